"""Every format, opened again by a program that is not ours, and compared with the poses to 0.1 mm."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from people import looking_down, walk_m

from poseda_deploy.camera import Camera
from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.poses import PosedFrame, Poses3D, load_poses, load_poses_jsonl
from poseda_deploy.runtime import markers, write
from poseda_deploy.runtime.bvh_writer import euler_rad, smallest_turn
from poseda_deploy.runtime.options import Format
from poseda_deploy.runtime.takes import constant_rate, takes
from poseda_deploy.runtime.video import Frame
from poseda_deploy.runtime.write import (
    WRITERS,
    PoseLog,
    convert_log,
    require_libraries,
    write_poses,
    written_before,
)
from poseda_deploy.skeleton import H36M17

FROM_WORLD, CAMERA_AT = looking_down(0.3)
UP = FROM_WORLD @ np.array([0.0, 1.0, 0.0])
NEAR_M, FPS = 1e-4, 30000 / 1001
GAP = range(20, 25)
PICTURE = np.zeros((2, 2, 3), np.uint8)


def table(frame: np.ndarray, person: np.ndarray, time_s: np.ndarray, joints_m: np.ndarray) -> Poses3D:
    order = np.lexsort((person, frame))
    joints_m, root_m = joints_m[order].astype(np.float32), joints_m[order, 0].astype(np.float32)
    score = np.full((len(frame), 17), 0.75, np.float32)
    return Poses3D(frame[order], person[order], time_s[order], joints_m - root_m[:, None], root_m, score)


def rows_of(poses: Poses3D, rows: slice | np.ndarray) -> Poses3D:
    return Poses3D(*(getattr(poses, field.name)[rows] for field in fields(Poses3D)))


@pytest.fixture(scope="module")
def poses() -> Poses3D:
    """A walker seen by a tilted camera in frames 7 to 66, with a gap of 5, and a second one who comes later."""
    first = np.array([i for i in range(60) if i not in GAP])
    frame = np.concatenate([first, np.arange(30, 60)])
    person = np.repeat([0, 3], [len(first), 30])
    joints_m = (walk_m(60) @ FROM_WORLD.T + CAMERA_AT)[frame] + np.array([1.0, 0, 0.5]) * (person > 0)[:, None, None]
    return table(frame + 7, person, (frame + 7) / FPS, joints_m)


@pytest.fixture(scope="module")
def alone(poses: Poses3D) -> Poses3D:
    """The first of them."""
    return rows_of(poses, poses.person == 0)


def upright_m(poses: Poses3D) -> np.ndarray:
    """The test's world, whose camera turns about x alone: x right, y up, z backward, origin moved to the camera."""
    return poses.joints_m @ FROM_WORLD


def apart_m(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other, axis=-1).max())


def written(poses: Poses3D, name: str, tmp_path: Path, **more: Any) -> list[Path]:
    return write_poses(poses, UP, {name: tmp_path / f"a.poses.{name}"}, [name], **more)


def test_npz_and_jsonl_are_the_table(poses: Poses3D, tmp_path: Path) -> None:
    (path,) = written(poses, "npz", tmp_path)
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["pose"], poses.pose_m)
    (path,) = written(poses, "jsonl", tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["frame"], r["person"]) for r in rows] == list(zip(poses.frame, poses.person, strict=True))
    found_m = np.array([r["pose"] for r in rows]) + np.array([r["root"] for r in rows])[:, None]
    assert apart_m(found_m, poses.joints_m) < NEAR_M / 2


def test_csv_is_a_spreadsheet(poses: Poses3D, tmp_path: Path) -> None:
    (path,) = written(poses, "csv", tmp_path)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found_m = np.array([[[float(row[f"{j}_{a}_m"]) for a in "xyz"] for j in H36M17.joints] for row in rows])
    assert len(rows) == len(poses) and apart_m(found_m, poses.joints_m) < NEAR_M
    assert [int(row["person"]) for row in rows] == poses.person.tolist()
    assert [float(row["time_s"]) for row in rows] == pytest.approx(poses.time_s, abs=1e-6)
    assert float(rows[0]["left_wrist_score"]) == 0.75


def read_trc(path: Path) -> tuple[dict[str, str], np.ndarray, np.ndarray, np.ndarray]:
    """Head, frame numbers, times and (T,17,3) by the format's description."""
    lines = path.read_text().split("\n")
    assert lines[0].split("\t") == ["PathFileType", "4", "(X/Y/Z)", path.name]
    head = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    assert lines[3].split("\t")[:2] == ["Frame#", "Time"]
    assert [marker for marker in lines[3].split("\t")[2:] if marker] == list(H36M17.joints)
    assert lines[4].split("\t")[2:5] == ["X1", "Y1", "Z1"] and lines[5] == lines[-1] == ""
    cells = np.array([[float(cell) for cell in line.split("\t")] for line in lines[6:-1]])
    assert len(cells) == int(head["NumFrames"]) and cells.shape[1] == 2 + 51
    return head, cells[:, 0], cells[:, 1], cells[:, 2:].reshape(-1, 17, 3)


def test_trc_is_opensim_s(alone: Poses3D, tmp_path: Path) -> None:
    (path,) = written(alone, "trc", tmp_path)
    head, number, time_s, found_m = read_trc(path)
    assert head["Units"] == "m" and int(head["NumMarkers"]) == 17
    assert float(head["DataRate"]) == pytest.approx(FPS, abs=1e-6)
    assert number.tolist() == list(range(8, 68)), "the table's frames, from 1"
    np.testing.assert_allclose(time_s, (number - 1) / FPS, atol=1e-6)
    missing = np.isnan(found_m).all((1, 2))
    assert np.flatnonzero(missing).tolist() == list(GAP)
    assert apart_m(found_m[~missing], upright_m(alone)) < NEAR_M


def test_trc_in_opensim_itself(alone: Poses3D, tmp_path: Path) -> None:
    opensim = pytest.importorskip("opensim", reason="opensim (72 MB) is not installed")
    (path,) = written(alone, "trc", tmp_path)
    markers = opensim.TimeSeriesTableVec3(str(path))
    rows = (markers.getRowAtIndex(i) for i in range(markers.getNumRows()))
    found_m = np.array([[[row.getElt(0, j)[axis] for axis in range(3)] for j in range(17)] for row in rows])
    assert markers.getTableMetaDataString("Units") == "m"
    assert np.flatnonzero(np.isnan(found_m).all((1, 2))).tolist() == list(GAP)
    assert apart_m(found_m[~np.isin(np.arange(60), GAP)], upright_m(alone)) < NEAR_M


@pytest.mark.filterwarnings("ignore:No analog data")
def test_c3d_is_read_by_another_library(alone: Poses3D, tmp_path: Path) -> None:
    pytest.importorskip("ezc3d", reason="ezc3d (extra formats) is not installed")
    c3d = pytest.importorskip("c3d", reason="the reader of the comparison, c3d, is not installed")
    (path,) = written(alone, "c3d", tmp_path)
    with path.open("rb") as stream:
        reader = c3d.Reader(stream)
        assert [label.strip() for label in reader.point_labels] == list(H36M17.joints)
        assert reader.point_rate == pytest.approx(FPS) and reader.first_frame == 8
        texts = [reader.get(f"POINT:{name}").string_value.strip() for name in ("UNITS", "X_SCREEN", "Y_SCREEN")]
        assert texts == ["mm", "+X", "+Z"]
        points = np.array([points for _, points, _ in reader.read_frames()])
    missing = points[..., 3] < 0
    assert np.flatnonzero(missing.all(1)).tolist() == list(GAP) and missing.sum() == 17 * len(GAP)
    x, y, z = np.moveaxis(points[~missing.all(1), :, :3] / 1000, -1, 0)
    assert apart_m(np.stack([x, z, -y], -1), upright_m(alone)) < NEAR_M


def test_long_takes_are_cut_where_c3d_stops_counting(
    alone: Poses3D, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ezc3d = pytest.importorskip("ezc3d", reason="ezc3d (extra formats) is not installed")
    monkeypatch.setattr(markers, "C3D_FRAMES", 25)
    paths = written(alone, "c3d", tmp_path)
    assert [path.name for path in paths] == ["a.poses.c3d", "a.poses.part2.c3d", "a.poses.part3.c3d"]
    parts = [ezc3d.c3d(str(path))["data"]["points"] for path in paths]
    assert [part.shape[2] for part in parts] == [25, 25, 10]
    x, y, z = np.concatenate(parts, 2)[:3].transpose(0, 2, 1) / 1000
    known = ~np.isin(np.arange(60), GAP)
    assert apart_m(np.stack([x, z, -y], -1)[known], upright_m(alone)) < NEAR_M


def bvh_m(path: Path, frames: int) -> np.ndarray:
    """Forward kinematics of bvhio."""
    bvhio = pytest.importorskip("bvhio", reason="the reader of the comparison, bvhio, is not installed")
    root, found_m = bvhio.readAsHierarchy(str(path)), np.full((frames, 17, 3), np.nan)
    for frame in range(frames):
        root.loadPose(frame)
        for joint, _, _ in root.layout():
            if joint.Name in H36M17.joints:
                found_m[frame, H36M17.index(joint.Name)] = np.array(joint.PositionWorld) / 100
    return found_m


def test_bvh_is_moved_by_another_library(alone: Poses3D, tmp_path: Path) -> None:
    """The walker's bones keep their lengths, which is what the format can hold: nothing is lost."""
    (path,) = written(alone, "bvh", tmp_path)
    held_m = upright_m(alone)[np.searchsorted(alone.frame, np.arange(7, 67), "right") - 1]  # a gap holds the last
    assert apart_m(bvh_m(path, 60), held_m) < NEAR_M
    assert "Frames: 60\nFrame Time: 0.03336667\n" in path.read_text()


def test_bvh_of_anything(tmp_path: Path) -> None:
    """Bones of constant length in any direction whatever, also straight up, down and against their rest."""
    random = np.random.default_rng(0)
    bone_m = random.normal(size=(40, 17, 3))
    bone_m[:6] = np.eye(3)[random.integers(0, 3, (6, 17))] * random.choice([-1, 1], (6, 17, 1))
    bone_m *= random.uniform(0.1, 0.5, (17, 1)) / np.linalg.norm(bone_m, axis=-1, keepdims=True)
    joints_m = np.array(random.normal(size=(40, 17, 3)))
    for joint, parent in enumerate(H36M17.parents):
        joints_m[:, joint] = joints_m[:, parent] + bone_m[:, joint] if joint else joints_m[:, 0]
    wild = table(np.arange(40), np.zeros(40, int), np.arange(40) / 30, joints_m)
    (path,) = write_poses(wild, np.zeros(3), {"bvh": tmp_path / "a.bvh"}, ["bvh"])
    assert apart_m(bvh_m(path, 40), wild.joints_m * [1, -1, -1]) < NEAR_M


def test_bone_lengths_that_change_move_bvh_joints(alone: Poses3D, tmp_path: Path) -> None:
    """What constant lengths cost: 2 % of scatter add up to millimetres along a limb; directions stay."""
    scale = np.random.default_rng(1).normal(1, 0.02, (len(alone), 1, 1))
    part = table(alone.frame, alone.person, alone.time_s, alone.pose_m * scale + alone.root_m[:, None])
    (path,) = written(part, "bvh", tmp_path)
    known = ~np.isin(np.arange(60), GAP)
    error_m = apart_m(bvh_m(path, 60)[known], upright_m(part))
    assert 0.005 < error_m < 0.1


def test_turns_are_the_smallest() -> None:
    random = np.random.default_rng(2)
    start, end = random.normal(size=3), random.normal(size=(50, 3))
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end, axis=1, keepdims=True)
    end[0], end[1] = start, -start
    turn = smallest_turn(start, end)
    np.testing.assert_allclose(turn @ start, end, atol=1e-7)
    np.testing.assert_allclose(turn @ np.swapaxes(turn, -1, -2), np.broadcast_to(np.eye(3), turn.shape), atol=1e-7)
    np.testing.assert_allclose(np.trace(turn, axis1=1, axis2=2), 1 + 2 * end @ start, atol=1e-7)  # 1 + 2 cos


@pytest.mark.parametrize("x_deg", [0, 40, -89.9999, 90, -90])
def test_euler_angles_give_the_turn_back(x_deg: float) -> None:
    def about(axis: int, rad: float) -> np.ndarray:
        one, two = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[[one, one, two, two], [one, two, one, two]] = np.cos(rad), -np.sin(rad), np.sin(rad), np.cos(rad)
        return turn

    turn = about(2, 0.7) @ about(0, np.deg2rad(x_deg)) @ about(1, -2.0)
    z, x, y = euler_rad(turn[None])[0]
    np.testing.assert_allclose(about(2, z) @ about(0, x) @ about(1, y), turn, atol=1e-7)


def columns(batch: Any) -> dict[str, list[Any]]:
    """What a chunk holds; not its times, whose nanoseconds Python has no type for."""
    return {name: batch.column(name).to_pylist() for name in batch.schema.names if name not in ("time", "log_time")}


def test_rerun_reads_it_back(poses: Poses3D, camera: Camera, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk (extra viz, 170 MB) is not installed")
    chunk = pytest.importorskip("rerun.chunk")
    (path,) = written(poses, "rrd", tmp_path, camera=camera)
    batches = [(c.entity_path, columns(c.to_record_batch())) for c in chunk.RrdReader(str(path)).stream()]
    for who in (0, 3):
        mine = rows_of(poses, poses.person == who)
        (joints,) = (b for name, b in batches if name == f"/world/person{who}/joints" and "Points3D:positions" in b)
        np.testing.assert_array_equal(joints["frame"], mine.frame)
        assert apart_m(np.array(joints["Points3D:positions"]), upright_m(mine)) < NEAR_M
        (bones,) = (b for name, b in batches if name == f"/world/person{who}/bones" and "LineStrips3D:strips" in b)
        assert np.array(bones["LineStrips3D:strips"]).shape == (len(mine), 16, 2, 3)
    clears = (b for name, b in batches if name == "/world/person0" and "Clear:is_recursive" in b)
    assert [frame for b in clears for frame in b["frame"]] == [27, 67], "where the gap begins, and at the end"
    seen = {key for name, b in batches if name == "/world/camera" for key in b}
    assert {"Pinhole:image_from_camera", "Transform3D:mat3x3"} <= seen


def test_several_people_get_a_file_each(poses: Poses3D, alone: Poses3D, tmp_path: Path) -> None:
    paths = written(poses, "trc", tmp_path)
    assert [path.name for path in paths] == ["a.poses.person0.trc", "a.poses.person3.trc"]
    assert read_trc(paths[1])[1].tolist() == list(range(38, 68)), "the second from the first frame with them"
    (tmp_path / "a.poses.person_of_mine.trc").touch()
    assert written_before(tmp_path / "a.poses.trc") == paths
    (path,) = written(alone, "trc", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.poses.person_of_mine.trc", path.name], "no stale people"


def test_nobody_gives_empty_files(poses: Poses3D, tmp_path: Path) -> None:
    nobody = rows_of(poses, slice(0))
    for name in ("trc", "bvh"):
        assert written(nobody, name, tmp_path) == []
    assert written(nobody, "csv", tmp_path)[0].read_text().count("\n") == 1
    assert len(load_poses_jsonl(written(nobody, "jsonl", tmp_path)[0])[0]) == 0
    assert len(load_poses(written(nobody, "npz", tmp_path)[0])) == 0


def test_rows_that_are_not_finite(alone: Poses3D, tmp_path: Path) -> None:
    """JSON has no NaN, a spreadsheet shows nothing, and to motion files the person is missing."""
    pose_m = alone.pose_m.copy()
    pose_m[3, 5, 1] = np.nan
    broken = Poses3D(alone.frame, alone.person, alone.time_s, pose_m, alone.root_m, alone.score)
    text = written(broken, "jsonl", tmp_path)[0].read_text()
    assert "NaN" not in text and text.count("null") == 1
    again, _ = load_poses_jsonl(tmp_path / "a.poses.jsonl")
    assert np.isnan(again.pose_m[3, 5, 1]) and np.isnan(again.pose_m).sum() == 1
    assert "nan" not in written(broken, "csv", tmp_path)[0].read_text()
    assert np.isnan(read_trc(written(broken, "trc", tmp_path)[0])[3][3]).all()
    assert "nan" not in written(broken, "bvh", tmp_path)[0].read_text()


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [24, 30, 30000 / 1001, 60, 12.5])
@pytest.mark.parametrize("digits", [9, 3])
def test_a_constant_rate_is_known_though_stamps_are_rounded(fps: float, digits: int) -> None:
    joints_m = walk_m(300)
    poses = table(np.arange(300), np.zeros(300, int), np.round(np.arange(300) / fps, digits), joints_m)
    rate = constant_rate(poses)
    assert float(rate.fps) == pytest.approx(fps, rel=1e-6) and not rate.varies
    (take,) = takes(poses, np.zeros(3))
    np.testing.assert_array_equal(take.joints_m, poses.joints_m * [1.0, -1, -1], "each row as it is")


def test_a_varying_rate_is_resampled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who moves at 1 m/s is where the time says, not where the count of frames says; an outage is a gap."""
    step_s = np.random.default_rng(3).uniform(0.02, 0.06, 200)
    step_s[120] = 2.0
    time_s = np.cumsum(step_s)
    joints_m = walk_m(1)[0] + time_s[:, None, None] * np.array([1.0, 0, 0])
    poses = table(np.arange(200), np.zeros(200, int), time_s, joints_m)
    (path,) = write_poses(poses, np.zeros(3), {"trc": tmp_path / "a.trc"}, ["trc"])
    head, number, at_s, found_m = read_trc(path)
    rate = float(head["DataRate"])
    assert rate == round(199 / (time_s[-1] - time_s[0])) and f"resampled to {rate:.0f} fps" in capsys.readouterr().err
    np.testing.assert_allclose(at_s, (number - 1) / rate, atol=1e-5)
    missing = np.isnan(found_m).all((1, 2))
    assert missing.sum() == pytest.approx(2 * rate, abs=2) and not missing[[0, -1]].any()
    expected_m = walk_m(1)[0][None] * [1, -1, -1] + at_s[:, None, None] * np.array([1.0, 0, 0])
    assert apart_m(found_m[~missing], expected_m[~missing]) < NEAR_M


@pytest.mark.parametrize("name", ["trc", "c3d", "bvh"])
def test_frames_that_a_live_run_dropped_are_filled_in(name: Format, tmp_path: Path) -> None:
    """A camera of 60 fps of which every second frame was dropped: counts of frames rise by two."""
    frame = np.arange(0, 240, 2)
    joints_m = walk_m(1)[0] + (frame / 60)[:, None, None] * np.array([1.0, 0, 0])
    poses = table(frame, np.zeros(120, int), frame / 60 + 0.001, joints_m)
    (take,) = takes(poses, np.zeros(3))
    assert take.fps == 60 and len(take.joints_m) >= 235 and np.isfinite(take.joints_m).all()
    assert written(poses, name, tmp_path)


def test_frames_dropped_at_random_are_filled_in_and_an_outage_is_not() -> None:
    kept = np.random.default_rng(4).random(300) > 0.4
    kept[100:160] = False
    frame = np.flatnonzero(kept)
    joints_m = walk_m(1)[0] + (frame / 60)[:, None, None] * np.array([1.0, 0, 0])
    (take,) = takes(table(frame, np.zeros(len(frame), int), frame / 60, joints_m), np.zeros(3))
    missing = np.isnan(take.joints_m).all((1, 2))
    assert 55 <= missing.sum() <= 75, "the second without a picture, and nothing else"


def test_a_short_or_single_row(alone: Poses3D, tmp_path: Path) -> None:
    one = rows_of(alone, slice(4, 5))
    (take,) = takes(one, UP)
    assert float(take.fps) == 30 and take.first_frame == one.frame[0] and len(take.joints_m) == 1
    assert written(one, "bvh", tmp_path) and written(one, "trc", tmp_path)


def test_two_who_share_a_varying_rate(tmp_path: Path) -> None:
    """Whoever is there for one frame between two moments of the new rate is not lost."""
    time_s = np.array([0, 0.03, 0.1, 0.13, 0.15, 0.22])
    frame, person = np.array([0, 1, 2, 3, 4, 5, 3]), np.array([0, 0, 0, 0, 0, 0, 1])
    poses = table(frame, person, time_s[frame], np.zeros((7, 17, 3)))
    assert [take.person for take in takes(poses, np.zeros(3))] == [0, 1]


# --- the log of a live run --------------------------------------------------------------------------------------------


def posed(poses: Poses3D, index: int) -> PosedFrame:
    here = rows_of(poses, poses.frame == index)
    seen_px = np.zeros((len(here), 17, 2), np.float32)
    return PosedFrame(index, index / FPS, here.person, here.pose_m, here.root_m, here.score, seen_px)


def logged(poses: Poses3D, path: Path) -> None:
    with PoseLog(path) as log:
        for index in range(70):
            log.put(Frame(index, index / 30, PICTURE), posed(poses, index))


def test_a_log_is_the_file_of_a_clip(poses: Poses3D, tmp_path: Path) -> None:
    logged(poses, tmp_path / "a.jsonl")
    poses.save_jsonl(tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()


def test_a_log_becomes_the_other_formats(poses: Poses3D, tmp_path: Path) -> None:
    outputs = {name: tmp_path / f"a.poses.{name}" for name in ("jsonl", "npz", "csv")}
    logged(poses, outputs["jsonl"])
    assert convert_log(outputs, UP, ["npz", "csv"]) == list(outputs.values())
    again = load_poses(outputs["npz"])
    assert apart_m(again.joints_m, poses.joints_m) < NEAR_M / 2
    np.testing.assert_array_equal(again.person, poses.person)
    np.testing.assert_allclose(again.time_s, poses.time_s, atol=1e-6)


def test_a_killed_run_keeps_its_rows(tmp_path: Path) -> None:
    """kill -9 while it writes: what is in the file is whole, and not far behind."""
    path = tmp_path / "run.jsonl"
    script = f"""
import itertools, numpy as np
from pathlib import Path
from poseda_deploy.poses import PosedFrame
from poseda_deploy.runtime.video import Frame
from poseda_deploy.runtime.write import PoseLog
two = np.zeros((2, 17, 3), np.float32)
with PoseLog(Path({str(path)!r})) as log:
    for i in itertools.count():
        people = PosedFrame(i, i / 30, np.arange(2), two, two[:, 0], two[..., 0], two[..., :2])
        log.put(Frame(i, i / 30, np.zeros((2, 2, 3), np.uint8)), people)
        print(i, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        try:
            told = next(int(line) for line in process.stdout if int(line) == 100)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    poses, cut = load_poses_jsonl(path)
    assert len(poses) >= 2 * (told + 1) and cut == "", "all that was put is there, before the next frame came"
    np.testing.assert_array_equal(poses.frame, np.arange(len(poses)) // 2)


@pytest.mark.parametrize("left", [1, 20, 500])
def test_a_half_last_line_is_left_out_and_told(
    left: int, poses: Poses3D, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {name: tmp_path / f"a.{name}" for name in ("jsonl", "csv")}
    logged(poses, outputs["jsonl"])
    lines = outputs["jsonl"].read_text().splitlines(keepends=True)
    outputs["jsonl"].write_text("".join(lines[:-1]) + lines[-1][:left])
    again, cut = load_poses_jsonl(outputs["jsonl"])
    assert len(again) == len(poses) - 1 and cut == lines[-1][:left]
    convert_log(outputs, UP, ["csv"])
    assert f"cut short and left out; the {len(poses) - 1} rows before it are whole" in capsys.readouterr().err


def test_a_whole_last_line_needs_no_end(poses: Poses3D, tmp_path: Path) -> None:
    logged(poses, tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text((tmp_path / "a.jsonl").read_text().rstrip("\n"))
    again, cut = load_poses_jsonl(tmp_path / "a.jsonl")
    assert len(again) == len(poses) and cut == ""


@pytest.mark.parametrize(
    "bad", ["{}", "5", '{"frame": 1', '{"frame":0,"person":0,"time_s":0,"pose":[1],"root":[],"score":[]}']
)
def test_other_damage_is_an_error_with_its_line(bad: str, poses: Poses3D, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    logged(poses, path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], bad, *lines[4:]]) + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl line 5: expected a row"):
        load_poses_jsonl(path)


def test_a_full_disk_leaves_whole_rows(poses: Poses3D, tmp_path: Path) -> None:
    """The system takes a part of a write, then nothing: the error is told, rows before it stay."""

    class Full:
        left = 5000

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def write(self, data: memoryview) -> int:
            if not self.left:
                raise OSError(28, "No space left on device")
            taken = min(self.left, len(data))
            self.left -= taken
            self.stream.write(data[:taken])
            return taken

        def close(self) -> None:
            self.stream.close()

    path = tmp_path / "a.jsonl"
    with pytest.raises(OSError, match="No space left"), PoseLog(path) as log:
        log._stream = Full(log._stream)
        for index in range(70):
            log.put(Frame(index, index / 30, PICTURE), posed(poses, index))
    again, cut = load_poses_jsonl(path)
    assert len(again) > 2 and cut and path.stat().st_size == 5000


def test_a_run_that_never_began_leaves_no_log(tmp_path: Path) -> None:
    with pytest.raises(InputError), PoseLog(tmp_path / "a.jsonl"):
        raise InputError("the port is taken")
    with PoseLog(tmp_path / "b.jsonl"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["b.jsonl"], "one that saw nobody does"


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), PoseLog(tmp_path / "file" / "a.jsonl"):
        pass


# --- the registry -----------------------------------------------------------------------------------------------------


def test_every_format_has_a_writer() -> None:
    assert set(WRITERS) == set(get_args(Format))


@pytest.mark.parametrize(("name", "command"), [("c3d", r"poseda-deploy\[formats\]"), ("rrd", r"poseda-deploy\[viz\]")])
def test_a_missing_library_is_named(name: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "find_spec", lambda module: None if module in ("ezc3d", "rerun") else object())
    require_libraries(["npz", "csv", "trc", "bvh"])
    with pytest.raises(MissingDependency, match=f"--formats {name}: .* is not installed") as failure:
        require_libraries(["npz", name])
    assert re.search(command, failure.value.hint)


def test_a_failing_writer_leaves_what_was_there(
    alone: Poses3D, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = written(alone, "trc", tmp_path)
    before = path.read_text()
    monkeypatch.setattr(markers, "H36M17", None)
    with pytest.raises(AttributeError):
        written(alone, "trc", tmp_path)
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == [path.name]
