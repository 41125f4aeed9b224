"""poseda-detect: the real detector on the real demo video, and the JSON of other detectors."""

import json
import os
import threading
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from poseda_deploy.errors import MissingDependency
from poseda_deploy.keypoints import load_keypoints
from poseda_deploy.poses import load_poses
from poseda_deploy.runtime import detect
from poseda_deploy.runtime.assets import fetch_asset
from poseda_deploy.runtime.cli import main as run_main
from poseda_deploy.runtime.detect import detect_source
from poseda_deploy.runtime.detect_cli import main
from poseda_deploy.runtime.native_log import native_log_dropped
from poseda_deploy.runtime.timing import StageClock
from poseda_deploy.runtime.track import in_steady_slots, track_clip
from poseda_deploy.runtime.video import Frame, VideoReader, VideoWriter
from poseda_deploy.skeleton import COCO17, MEDIAPIPE33, OPENPOSE25
from poseda_deploy.terminal import say

SIZE = ["--image-size", "1280", "720"]


@pytest.fixture(scope="module")
def demo_video() -> Path:
    try:
        return fetch_asset("sports2d_demo.mp4", quiet=True)
    except MissingDependency as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def short_video(demo_video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames 60 to 100 of the demo, where the walker is in the middle."""
    path = tmp_path_factory.mktemp("video") / "walk.mp4"
    with VideoReader(demo_video) as reader, VideoWriter(path, reader.size_wh, reader.fps) as writer:
        for frame in reader:
            if 60 <= frame.index < 100:
                writer.write(frame.bgr)
    return path


class Chatty:
    """A landmarker that logs as MediaPipe's C++ does, while another thread of ours has something to say."""

    def detect_for_video(self, image: object, time_ms: int) -> Any:
        os.write(2, b"W0000 00:00:1795654118.278903   32036 inference_feedback_manager.cc:114] Feedback manager\n")
        other = threading.Thread(target=say, args=("stopping, what there is is kept",))
        other.start()
        other.join()
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nno line of theirs\nprogress 12%")
        return SimpleNamespace(pose_landmarks=[], pose_world_landmarks=[])

    def close(self) -> None:
        pass


def test_only_mediapipe_s_own_lines_are_kept_from_stderr(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mediapipe")
    monkeypatch.setattr(detect, "_create_landmarker", lambda model, persons: Chatty())
    monkeypatch.setattr(detect, "_model_file", lambda model, quiet: Path("unused.task"))
    with detect.MediaPipeDetector() as detector:
        detector.detect(Frame(0, 0.0, np.zeros((8, 8, 3), np.uint8)))
        os.write(2, b"\nafterwards\n")
    said = capfd.readouterr().err
    assert said == "stopping, what there is is kept\nno line of theirs\nprogress 12%\nafterwards\n"


def test_a_real_person_is_found(short_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my_keypoints.npz"
    try:
        code = main(["--video", str(short_video), "--out", str(out), "--quiet", "--json"])
    except MissingDependency as error:
        pytest.skip(str(error))
    captured = capsys.readouterr()
    if code == 3:
        pytest.skip(captured.err)
    assert code == 0
    summary = json.loads(captured.out)
    assert summary["frames"] == 40 and summary["frames_with_people"] >= 36 and summary["skeleton"] == "mediapipe33"
    keypoints = load_keypoints(out)
    assert (np.diff(keypoints.time_s) > 0).all()
    ankle, nose = keypoints.skeleton.index("left_ankle"), keypoints.skeleton.index("nose")
    seen = keypoints.score[:, 0, nose] > 0.5
    height_px = keypoints.xy_px[seen, 0, ankle, 1] - keypoints.xy_px[seen, 0, nose, 1]
    assert (height_px > 300).mean() > 0.9, "a standing person about half the picture high"


def test_mediapipe_s_own_3d_is_recorded_beside_ours(
    short_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--video", str(short_video), "--out", str(tmp_path / "w"), "--compare", "mediapipe", "--quiet", "--json"]
    code = run_main(flags)
    captured = capsys.readouterr()
    if code == 3:
        pytest.skip(captured.err)
    assert code == 0
    assert 20 < json.loads(captured.out)["mediapipe_apart_mm"] < 200, "the same person, seen by two"
    ours, own = load_poses(tmp_path / "w.poses.npz"), load_poses(tmp_path / "w.mediapipe.npz")
    assert len(ours) == len(own) and np.isnan(own.root_m).all()
    seen = np.isfinite(own.pose_m).all((1, 2))
    facing = [(poses.pose_m[seen, 11] - poses.pose_m[seen, 14]).mean(0) for poses in (ours, own)]
    assert seen.sum() > 30 and facing[0] @ facing[1] > 0, "both shoulders on the same sides"


def test_video_to_people_and_overlay(short_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--video", str(short_video), "--out", str(tmp_path / "w"), "--quiet", "--json"]
    code = run_main(flags)
    captured = capsys.readouterr()
    if code == 3:
        pytest.skip(captured.err)
    assert code == 0
    summary = json.loads(captured.out)
    assert {"decode", "detect", "lift", "draw"} <= set(summary["stages"])
    assert {Path(p).name for p in summary["outputs"]} == {"w.poses.npz", "w.poses.jsonl", "w.overlay.mp4"}
    poses = load_poses(tmp_path / "w.poses.npz")
    up = np.array(summary["calibration"]["up"])
    standing_m = (poses.pose_m[:, 10] - poses.pose_m[:, [3, 6]].mean(1)) @ up / np.linalg.norm(up)
    assert 1.2 < np.median(standing_m) < 1.8, "head above ankles, in metres"
    assert (poses.root_m[:, 2] > 1).all()


def test_two_detectors_at_once_leave_stderr_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    """The first to come is the first to go, so that neither goes back to what only the other had set."""
    with ExitStack() as one, ExitStack() as two:
        one.enter_context(native_log_dropped())
        two.enter_context(native_log_dropped())
        os.write(2, b"while both are at work\n")
        one.close()
        os.write(2, b"W0000 00:00:1795654118.278903   32036 theirs.cc:114] a warning\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "while both are at work\nafterwards\n"


def openpose_folder(path: Path, frames: dict[int, list[list[float]]]) -> Path:
    path.mkdir()
    for number, people in frames.items():
        content = {"version": 1.3, "people": [{"pose_keypoints_2d": person} for person in people]}
        (path / f"clip_{number:012d}_keypoints.json").write_text(json.dumps(content))
    return path


def person(joints: int, x: float, score: float = 0.9) -> list[float]:
    return [number for j in range(joints) for number in (x, 10.0 * j, score)]


def test_openpose_folder_keeps_gaps_and_the_best_people(tmp_path: Path) -> None:
    frames = {3: [person(25, 1, 0.2), person(25, 2)], 4: [], 6: [person(25, 5)]}
    folder = openpose_folder(tmp_path / "op", frames)
    out = tmp_path / "k.npz"
    assert main(["--from-openpose", str(folder), *SIZE, "--fps", "30000/1001", "--out", str(out), "--quiet"]) == 0
    keypoints = load_keypoints(out)
    assert keypoints.skeleton == OPENPOSE25 and keypoints.size_wh == (1280, 720)
    assert keypoints.xy_px[:, 0, 0, 0].tolist() == [2, 0, 0, 5]
    assert keypoints.score[:, 0, 0].tolist() == pytest.approx([0.9, 0, 0, 0.9])
    np.testing.assert_allclose(keypoints.time_s, np.arange(4) * 1001 / 30000)


def test_coco_results_in_order_of_image(tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = [
        {"image_id": f"img_{i}.jpg", "category_id": 1, "keypoints": person(17, i, 2)} for i in (10, 9, 2)
    ]
    (tmp_path / "c.json").write_text(json.dumps(entries))
    out = tmp_path / "k.npz"
    assert main(["--from-coco", str(tmp_path / "c.json"), *SIZE, "--out", str(out), "--quiet"]) == 0
    keypoints = load_keypoints(out)
    assert keypoints.skeleton == COCO17
    assert keypoints.xy_px[:, 0, 0, 0].tolist() == [2, 9, 10]
    assert keypoints.score.max() == 1, "visibility 2 is a score of 1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("{}", "expected a list of objects"),
        ('[{"keypoints": [1, 2, 3]}]', "coco17 has 17 joints, so 51 numbers a person, got 3"),
        ("[" + json.dumps({"keypoints": ["a"] * 51}) + "]", "must be numbers"),
    ],
)
def test_bad_coco(content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.json").write_text(content)
    out = tmp_path / "k.npz"
    assert main(["--from-coco", str(tmp_path / "c.json"), *SIZE, "--out", str(out), "--quiet"]) == 2
    assert message in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "exactly one of"),
        (["--from-openpose", "nowhere", *SIZE], "OpenPose folder not found"),
        (["--from-openpose", "nowhere"], "--image-size"),
        (["--from-openpose", "nowhere", *SIZE, "--fps", "0"], "--fps must be above 0"),
        (["--from-openpose", "nowhere", *SIZE, "--fps", "x"], "--fps must be a number"),
        (["--video", "nowhere.mp4"], "video not found"),
        (["--video", "nowhere.mp4", "--persons", "0"], "--persons must be 1 to 100"),
        (["--video", "nowhere.mp4", "--persons", "1000000"], "--persons must be 1 to 100"),
    ],
)
def test_bad_flags(flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*flags, "--out", str(tmp_path / "k.npz"), "--quiet"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("name", ["kp", "kp.npy", "", ".", "kp.npz/"])
def test_a_name_that_numpy_would_change_is_refused_before_any_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json").mkdir()
    (tmp_path / "kp.npz").mkdir()
    assert main(["--from-openpose", str(tmp_path / "json"), *SIZE, "--out", name, "--overwrite"]) == 2
    assert "--out" in (said := capsys.readouterr().err) and ".npz" in said
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["json", "kp.npz"]


@pytest.mark.parametrize(
    ("model", "message"), [("huge", "unknown pose model 'huge'"), ("nowhere.task", "pose model not found")]
)
def test_bad_pose_model(model: str, message: str, short_video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--video", str(short_video), "--pose-model", model, "--quiet"]) == 2
    assert message in capsys.readouterr().err


def test_a_task_file_that_is_none(short_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.task").write_bytes(b"nothing")
    assert main(["--video", str(short_video), "--pose-model", str(tmp_path / "x.task"), "--quiet"]) == 2
    assert "cannot load this pose model" in capsys.readouterr().err


class SwappingDetector:
    """Two people who stand still, found in another order in every other frame."""

    skeleton, persons = MEDIAPIPE33, 2

    def detect(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(0)
        body_px = random.uniform(0, 200, (33, 2)).astype(np.float32)
        people = np.stack([body_px, body_px + 400])[:: 1 if frame.index % 2 else -1]
        return people, np.ones((2, 33), np.float32)


def test_people_stay_in_their_slots_when_the_detector_swaps_them(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", (640, 640), Fraction(30)) as writer:
        for _ in range(10):
            writer.write(np.zeros((640, 640, 3), np.uint8))
    with VideoReader(tmp_path / "v.mp4") as reader:
        found, _ = detect_source(reader, SwappingDetector(), StageClock(), quiet=True)
    keypoints = in_steady_slots(track_clip(found))
    assert len(set(found.xy_px[:, 0, 0, 0].tolist())) == 2
    first_px = keypoints.xy_px[:, 0, 0, 0]
    assert len(set(first_px.tolist())) == 1 and abs(first_px[0] - keypoints.xy_px[0, 1, 0, 0]) == pytest.approx(400)
