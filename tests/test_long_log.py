"""The end of a run of many hours: its log becomes every other format in bounded memory, with the same numbers."""

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import walk_m

from poseda_deploy.poses import Poses3D, load_poses, load_poses_jsonl
from poseda_deploy.runtime import bvh_writer, markers, takes
from poseda_deploy.runtime.write import convert_log, write_poses

UP = np.array([0.0, -0.98, -0.199])


def live_table(frames: int) -> Poses3D:
    """One person all the time and others for some seconds each, with gaps, at a rate that varies."""
    random = np.random.default_rng(0)
    time_s = np.cumsum(random.uniform(0.02, 0.05, frames))
    time_s[frames // 2 :] += 5
    seen = random.random(frames) > 0.05
    guests = np.flatnonzero(np.arange(frames) % 300 < 90)
    frame = np.concatenate([np.flatnonzero(seen), guests])
    person = np.concatenate([np.zeros(seen.sum(), int), 1 + guests // 300])
    order = np.lexsort((person, frame))
    frame, person = frame[order], person[order]
    at_m = walk_m(90)[frame % 90] * [1, -1, -1] + np.stack([person * 0.3, 0 * person, 5 + 0 * person], -1)[:, None]
    at_m = np.round(at_m, 5).astype(np.float32)
    root_m = at_m[:, 0]
    score = np.full((len(frame), 17), 0.75, np.float32)
    return Poses3D(frame, person, np.round(time_s[frame], 6), at_m - root_m[:, None], root_m, score)


def written_log(rows: int, path: Path) -> Path:
    """Rows of two people, 30 frames a second, written as fast as text can be."""
    pose = json.dumps(np.round(walk_m(1)[0], 5).tolist())
    with path.open("w") as stream:
        for row in range(rows):
            frame, person = divmod(row, 2)
            stream.write(
                f'{{"frame": {frame}, "time_s": {frame / 30:.6f}, "person": {person}, "pose": {pose}, '
                f'"root": [0.1, 0.2, 4.0], "score": {[0.5] * 17}}}\n'
            )
    return path


def peak_bytes(work: Any) -> int:
    """Most memory that the work held at once, as Python and numpy count it."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def converted(rows: int, names: list[str], folder: Path) -> int:
    folder.mkdir()
    outputs = {name: folder / f"a.poses.{name}" for name in ("jsonl", *names)}
    written_log(rows, outputs["jsonl"])
    return peak_bytes(lambda: convert_log(outputs, UP, names))


def blocks_of(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(takes, "BLOCK_ROWS", rows)
    for module in (markers, bvh_writer):
        monkeypatch.setattr(module, "BLOCK_FRAMES", rows)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that some hundred rows are many blocks."""
    blocks_of(monkeypatch, 37)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("name", "most_bytes"), [("csv", 100), ("trc", 100), ("bvh", 100), ("npz", 600)])
def test_memory_does_not_grow_with_the_log(name: str, most_bytes: int, tmp_path: Path) -> None:
    """Rows took 1,400 bytes each. Numpy writes an npz in blocks of 16 MB, in which these still are."""
    few, many = (converted(rows, [name], tmp_path / str(rows)) for rows in (400, 1400))
    assert many - few < 1000 * most_bytes


@pytest.mark.slow
def test_memory_of_two_hundred_thousand_rows(tmp_path: Path) -> None:
    names = ["npz", "csv", "trc", "bvh"]
    assert converted(200_000, names, tmp_path / "long") < 64e6, "held whole they are 260 MB"


def test_reading_a_log_takes_little_more_than_its_table(tmp_path: Path) -> None:
    path = written_log(2000, tmp_path / "a.jsonl")
    assert peak_bytes(lambda: load_poses_jsonl(path)) < 2000 * 3 * (71 * 4 + 24)


@pytest.mark.usefixtures("small_blocks")
def test_blocks_leave_no_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["npz", "csv", "trc", "bvh"]
    live_table(700).save_jsonl(tmp_path / "log.poses.jsonl")
    poses, _ = load_poses_jsonl(tmp_path / "log.poses.jsonl")
    log = {name: tmp_path / f"log.poses.{name}" for name in ("jsonl", *names)}
    in_blocks = convert_log(log, UP, names)[1:]
    blocks_of(monkeypatch, 100_000)
    whole = write_poses(poses, UP, {name: tmp_path / f"clip.poses.{name}" for name in names}, names)
    assert len(whole) == len(in_blocks) == 2 + 2 * 4
    for one, other in zip(in_blocks, whole, strict=True):
        assert one.name == other.name.replace("clip", "log")
        if one.suffix == ".npz":
            for field in ("frame", "person", "time_s", "pose_m", "root_m", "score"):
                np.testing.assert_array_equal(getattr(load_poses(one), field), getattr(poses, field))
        elif one.suffix == ".csv":
            assert one.read_text() == other.read_text()
        else:
            np.testing.assert_allclose(numbers(one), numbers(other), atol=2e-5)


def numbers(path: Path) -> np.ndarray:
    """All of a motion file, its head too."""
    words = re.findall(r"(?<![\w.])(?:NaN|-?\d+(?:\.\d+)?)(?![\w])", path.read_text())
    return np.array([float(word) for word in words])


@pytest.mark.usefixtures("small_blocks")
def test_nothing_is_left_beside_a_converted_log(tmp_path: Path) -> None:
    converted(200, ["npz", "trc"], tmp_path / "a")
    found = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert found == ["a.poses.jsonl", "a.poses.npz", "a.poses.person0.trc", "a.poses.person1.trc"]


@pytest.mark.usefixtures("small_blocks")
def test_a_recording_for_rerun_is_written_in_blocks(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk (extra viz, 170 MB) is not installed")
    chunk = pytest.importorskip("rerun.chunk")
    poses = live_table(200)
    (path,) = write_poses(poses, UP, {"rrd": tmp_path / "a.rrd"}, ["rrd"])
    frames: list[int] = []
    for part in chunk.RrdReader(str(path)).stream():
        batch = part.to_record_batch()
        if part.entity_path == "/world/person0/joints" and "Points3D:positions" in batch.schema.names:
            frames += batch.column("frame").to_pylist()
    assert sorted(frames) == poses.frame[poses.person == 0].tolist()
