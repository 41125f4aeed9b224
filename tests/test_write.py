"""Every format, opened again by a program that is not ours, and compared with the poses to 0.1 mm."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from people import looking_down, walk_m

from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.poses import PosedFrame, Poses3D, load_poses
from poseda_deploy.runtime.bvh_writer import CHILDREN
from poseda_deploy.runtime.video import Frame
from poseda_deploy.runtime.write import WRITERS, PoseLog, convert_log, load_log, require_libraries, write_poses
from poseda_deploy.skeleton import H36M17

UP = looking_down(0.3)[0] @ np.array([0.0, 1.0, 0.0])
NEAR_M = 1e-4


@pytest.fixture(scope="module")
def poses() -> Poses3D:
    """A walker seen by a tilted camera for 60 frames, with a gap of 5, and a second one who comes later."""
    rotation, translation = looking_down(0.3)
    joints_m = walk_m(60) @ rotation.T + translation
    first = np.array([i for i in range(60) if not 20 <= i < 25])
    second = np.arange(30, 60)
    frame = np.concatenate([first, second])
    person = np.concatenate([np.zeros(len(first), int), np.ones(len(second), int)])
    order = np.lexsort((person, frame))
    frame, person = frame[order], person[order]
    people_m = (joints_m[frame] + np.array([1.0, 0, 0.5]) * person[:, None, None]).astype(np.float32)
    root_m = people_m[:, 0]
    return Poses3D(frame, person, frame / 30, people_m - root_m[:, None], root_m, np.ones((len(frame), 17), np.float32))


def rows_of(poses: Poses3D, rows: slice | np.ndarray) -> Poses3D:
    return Poses3D(*(getattr(poses, n)[rows] for n in ("frame", "person", "time_s", "pose_m", "root_m", "score")))


@pytest.fixture(scope="module")
def alone(poses: Poses3D) -> Poses3D:
    """The first of them."""
    return rows_of(poses, poses.person == 0)


def joints_m(poses: Poses3D) -> np.ndarray:
    return poses.pose_m + poses.root_m[:, None]


def upright_m(poses: Poses3D) -> np.ndarray:
    """The true world of the test: y up, turned about the camera."""
    rotation, _ = looking_down(0.3)
    return joints_m(poses) @ rotation


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Largest distance of joints once both worlds face the same way: gravity is known, the compass is not."""
    assert np.abs(one[..., 1] - other[..., 1]).max() < NEAR_M, "heights"
    flat_one, flat_other = (v[..., 0] - 1j * v[..., 2] for v in (one, other))
    turn = (flat_one * flat_other.conj()).sum()
    return float(np.abs(flat_one - flat_other * turn / abs(turn)).max())


def written(poses: Poses3D, name: str, tmp_path: Path) -> list[Path]:
    return write_poses(poses, UP, {name: tmp_path / f"a.poses.{name}"}, [name])


def test_npz_and_jsonl_are_the_table(poses: Poses3D, tmp_path: Path) -> None:
    (path,) = written(poses, "npz", tmp_path)
    np.testing.assert_array_equal(load_poses(path).pose_m, poses.pose_m)
    (path,) = written(poses, "jsonl", tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(r["frame"], r["person"]) for r in rows] == list(zip(poses.frame, poses.person, strict=True))
    assert np.abs(np.array([r["pose"] for r in rows]) - poses.pose_m).max() < NEAR_M


def test_csv_is_a_spreadsheet(poses: Poses3D, tmp_path: Path) -> None:
    (path,) = written(poses, "csv", tmp_path)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = np.array([[[float(row[f"{j}_{a}_m"]) for a in "xyz"] for j in H36M17.joints] for row in rows])
    assert len(rows) == len(poses) and np.abs(found - joints_m(poses)).max() < NEAR_M
    assert [int(row["person"]) for row in rows] == poses.person.tolist()


def test_trc_is_opensim_s(alone: Poses3D, tmp_path: Path) -> None:
    """Read by the format's description: five lines of head, tabs, blanks where missing."""
    (path,) = written(alone, "trc", tmp_path)
    lines = path.read_text().splitlines()
    head = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    assert (
        lines[0].split("\t")[3] == path.name
        and head["Units"] == "m"
        and int(head["NumMarkers"]) == 17
        and float(head["DataRate"]) == pytest.approx(30)
    )
    assert [marker for marker in lines[3].split("\t")[2:] if marker] == list(H36M17.joints)
    cells = [line.split("\t") for line in lines[6:]]
    assert len(cells) == int(head["NumFrames"]) == 60 and all(len(row) == 2 + 51 for row in cells)
    assert all(cell == "" for row in cells[20:25] for cell in row[2:])
    found = np.array([[float(cell) for cell in row[2:]] for row in cells if row[2]]).reshape(-1, 17, 3)
    assert apart(found, upright_m(alone)) < NEAR_M
    assert [float(row[1]) for row in cells] == pytest.approx(np.arange(60) / 30, abs=1e-5)


@pytest.mark.filterwarnings("ignore:No analog data")
def test_c3d_is_read_by_another_library(alone: Poses3D, tmp_path: Path) -> None:
    c3d = pytest.importorskip("c3d")
    pytest.importorskip("ezc3d")
    (path,) = written(alone, "c3d", tmp_path)
    with path.open("rb") as stream:
        reader = c3d.Reader(stream)
        assert [label.strip() for label in reader.point_labels] == list(H36M17.joints)
        assert reader.point_rate == pytest.approx(30) and reader.get("POINT:UNITS").string_value.strip() == "mm"
        points = np.array([points for _, points, _ in reader.read_frames()])
    missing = points[..., 3] < 0
    assert missing.all(1).tolist() == [20 <= i < 25 for i in range(60)]
    x, y, z = np.moveaxis(points[~missing.all(1), :, :3] / 1000, -1, 0)
    assert apart(np.stack([x, z, -y], -1), upright_m(alone)) < NEAR_M


def test_bvh_is_moved_by_another_library(alone: Poses3D, tmp_path: Path) -> None:
    """Forward kinematics of bvhio; the walker's bones have constant lengths, which is what the format can hold."""
    bvhio = pytest.importorskip("bvhio")
    part = rows_of(alone, slice(0, 20))
    (path,) = written(part, "bvh", tmp_path)
    root = bvhio.readAsHierarchy(str(path))
    lengths_m = np.linalg.norm(part.pose_m - part.pose_m[:, list(H36M17.parents)], axis=-1).mean(0)
    found = np.zeros((20, 17, 3))
    for frame in range(20):
        root.loadPose(frame)
        for joint, _, _ in root.layout():
            start, _, end = joint.Name.partition("_to_")
            found[frame, H36M17.index(start)] = np.array(joint.PositionWorld) / 100
            if end and not CHILDREN[H36M17.index(end)]:  # bvhio leaves end sites out
                along = np.array(joint.UpWorld)  # to bvhio y is the direction of a bone
                found[frame, H36M17.index(end)] = (
                    np.array(joint.PositionWorld) / 100 + along * lengths_m[H36M17.index(end)]
                )
    assert apart(found, upright_m(part)) < NEAR_M


def test_several_people_get_a_file_each(poses: Poses3D, tmp_path: Path) -> None:
    paths = written(poses, "trc", tmp_path)
    assert [path.name for path in paths] == ["a.poses.person0.trc", "a.poses.person1.trc"]
    assert "\t30\t17\tm" in paths[1].read_text(), "the second from its first frame on"


def test_nobody_gives_empty_files(poses: Poses3D, tmp_path: Path) -> None:
    nobody = rows_of(poses, slice(0))
    assert written(nobody, "trc", tmp_path) == []
    assert written(nobody, "csv", tmp_path)[0].read_text().count("\n") == 1


def test_rerun_reads_its_own(poses: Poses3D, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk (extra viz) is not installed")
    (path,) = written(poses, "rrd", tmp_path)
    assert path.stat().st_size > 10_000


def test_every_format_has_a_writer() -> None:
    from typing import get_args

    from poseda_deploy.runtime.options import Format

    assert set(WRITERS) == set(get_args(Format))


def test_a_library_that_is_not_there_is_said_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poseda_deploy.runtime.write.find_spec", lambda module: None)
    require_libraries(["npz", "bvh"])
    with pytest.raises(MissingDependency, match="ezc3d") as caught:
        require_libraries(["npz", "c3d"])
    assert "poseda-deploy[formats]" in caught.value.hint


def posed(poses: Poses3D, index: int) -> PosedFrame:
    here = poses.frame == index
    seen_px = np.zeros((int(here.sum()), 17, 2), np.float32)
    rows = (poses.person[here], poses.pose_m[here], poses.root_m[here], poses.score[here], seen_px)
    return PosedFrame(index, index / 30, *rows)


def test_a_log_becomes_the_other_formats(poses: Poses3D, tmp_path: Path) -> None:
    outputs = {name: tmp_path / f"a.poses.{name}" for name in ("jsonl", "npz", "csv")}
    with PoseLog(outputs["jsonl"]) as log:
        for index in range(60):
            log.put(Frame(index, index / 30, np.zeros((2, 2, 3), np.uint8)), posed(poses, index))
    assert convert_log(outputs, UP, ["npz", "csv"]) == list(outputs.values())
    again = load_poses(outputs["npz"])
    assert np.abs(joints_m(again) - joints_m(poses)).max() < NEAR_M
    np.testing.assert_array_equal(again.person, poses.person)


def test_a_killed_log_keeps_its_whole_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """kill -9 while a run writes; then the last line loses its end."""
    path = tmp_path / "run.jsonl"
    script = f"""
import itertools, numpy as np
from pathlib import Path
from poseda_deploy.poses import PosedFrame
from poseda_deploy.runtime.video import Frame
from poseda_deploy.runtime.write import PoseLog
one = np.zeros((1, 17, 3), np.float32)
with PoseLog(Path({str(path)!r})) as log:
    for i in itertools.count():
        people = PosedFrame(i, i / 30, np.zeros(1, int), one, one[:, 0], one[..., 0], one[..., :2])
        log.put(Frame(i, i / 30, np.zeros((2, 2, 3), np.uint8)), people)
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s and (not path.exists() or path.stat().st_size < 100_000):
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    rows = len(load_log(path))
    assert rows > 10
    whole = path.read_text()
    path.write_text(whole[: whole.rindex("{") + 20])
    assert rows - 1 <= len(load_log(path)) <= rows
    assert "cut short" in capsys.readouterr().err
    lines = whole.splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "{oops\n", *lines[4:]]))
    with pytest.raises(InputError, match="line 4 is not JSON"):
        load_log(path)
