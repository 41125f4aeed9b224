"""poseda-run from files to files, through main(argv)."""

import json
import shutil
import signal
import socket
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import poseda_deploy
from poseda_deploy.bundle import default_bundle_path
from poseda_deploy.errors import InputError, PosedaError
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.opencv import cv2
from poseda_deploy.poses import load_poses
from poseda_deploy.runtime.cli import main
from poseda_deploy.runtime.overlay import write_overlay
from poseda_deploy.runtime.timing import StageClock
from poseda_deploy.runtime.track import track_clip
from poseda_deploy.runtime.video import VideoReader, VideoWriter
from poseda_deploy.runtime.write import convert_log


def run(tmp_path: Path, *flags: str | Path) -> int:
    return main([*map(str, flags), "--out", str(tmp_path / "out" / "a"), "--quiet"])


def written(tmp_path: Path) -> list[str]:
    """Everything under the output folder, hidden partial files included."""
    return sorted(path.name for path in (tmp_path / "out").rglob("*")) if (tmp_path / "out").exists() else []


def test_keypoints_to_poses(
    walker_file: Path, walker_cam_m: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--keypoints", walker_file, "--json") == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert {"frames", "people", "fps", "provider", "camera", "stages", "outputs"} <= set(summary)
    assert (summary["frames"], summary["people"], summary["provider"]) == (90, 1, "CPUExecutionProvider")
    assert summary["camera"]["from"] == "K of walker.npz"
    assert {"p50", "p95", "p99"} == set(summary["stages"]["lift"])
    assert "estimated from 90 frames" in summary["calibration"]["up_from"]
    assert written(tmp_path) == ["a.poses.jsonl", "a.poses.npz"]
    poses = load_poses(tmp_path / "out" / "a.poses.npz")
    error_m = np.linalg.norm(poses.pose_m - (walker_cam_m - walker_cam_m[:, :1]), axis=-1).mean()
    assert error_m < 0.08, "a walking stick figure on exact keypoints"
    np.testing.assert_allclose(poses.time_s, np.arange(90) / 30)
    lines = (tmp_path / "out" / "a.poses.jsonl").read_text().splitlines()
    assert len(lines) == 90 and json.loads(lines[3])["frame"] == 3


def test_what_is_known_of_the_scene_is_told(
    walker_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--person-height", "1.2", "--up", "0", "-1", "0.2", "--json"]
    assert run(tmp_path, "--keypoints", walker_file, *flags) == 0
    found = json.loads(capsys.readouterr().out)["calibration"]
    assert found["up"] == pytest.approx([0, -0.9806, 0.1961], abs=1e-3)
    assert "people of 1.2 m" in found["bones_from"] and found["bones_m"][0]["thigh"] < 0.33
    height_m = np.linalg.norm(np.diff(load_poses(tmp_path / "out" / "a.poses.npz").pose_m[:, [3, 10]], axis=1), axis=-1)
    assert np.median(height_m) < 1.2


def test_frames_without_a_person_have_no_row(walker: Keypoints2D, tmp_path: Path) -> None:
    walker.score[10:20] = 0
    try:
        walker.save(tmp_path / "gap.npz")
    finally:
        walker.score[10:20] = 1
    assert run(tmp_path, "--keypoints", tmp_path / "gap.npz") == 0
    frames = load_poses(tmp_path / "out" / "a.poses.npz").frame.tolist()
    assert frames == [*range(10), *range(20, 90)]


def test_two_people_keep_their_own_bones(walker: Keypoints2D, tmp_path: Path) -> None:
    xy_px = np.concatenate([walker.xy_px, walker.xy_px + np.float32(300)], 1)
    score = np.concatenate([walker.score, walker.score], 1)
    score[40:, 1] = 0
    pair = Keypoints2D(xy_px, score, walker.size_wh, walker.skeleton, walker.time_s, walker.camera)
    pair.save(tmp_path / "pair.npz")
    assert run(tmp_path, "--keypoints", tmp_path / "pair.npz") == 0
    poses = load_poses(tmp_path / "out" / "a.poses.npz")
    assert len(poses) == 130
    assert poses.person[poses.frame == 5].tolist() == [0, 1] and poses.person[poses.frame == 60].tolist() == [0]


def test_nobody_at_all_is_not_an_error(walker: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = np.zeros_like(walker.score)
    Keypoints2D(walker.xy_px, empty, walker.size_wh, walker.skeleton, walker.time_s).save(tmp_path / "empty.npz")
    assert run(tmp_path, "--keypoints", tmp_path / "empty.npz", "--json") == 0
    assert json.loads(capsys.readouterr().out)["people"] == 0


def test_camera_from_flags(walker: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = Keypoints2D(walker.xy_px, walker.score, walker.size_wh, walker.skeleton, walker.time_s)
    bare.save(tmp_path / "bare.npz")
    flags: list[str | Path] = ["--keypoints", tmp_path / "bare.npz", "--overwrite", "--json"]
    calibration = tmp_path / "calib.json"
    calibration.write_text(json.dumps({"K": [[1000, 0, 640], [0, 1000, 360], [0, 0, 1]]}))
    cases: list[tuple[list[str | Path], str]] = [
        (["--intrinsics", calibration], "calib.json"),
        (["--focal-px", "1000"], "--focal-px"),
        (["--fov-deg", "65.2"], "--fov-deg"),
        ([], "default: 60 degrees across the longer side"),
    ]
    for extra, origin in cases:
        assert run(tmp_path, *flags, *extra) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)["camera"]["from"] == origin
        assert ("no intrinsics given" in captured.err) == (not extra), "a guess is said"
    assert run(tmp_path, *flags, "--focal-px", "1000", "--fov-deg", "60") == 2


def test_existing_output_is_kept(walker_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--keypoints", walker_file) == 0
    before = (tmp_path / "out" / "a.poses.npz").read_bytes()
    assert run(tmp_path, "--keypoints", walker_file) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.poses.npz").read_bytes() == before
    assert run(tmp_path, "--keypoints", walker_file, "--overwrite") == 0


def bad_npz(path: Path) -> Path:
    np.savez(path, xy=np.zeros((3, 17, 2)))
    return path


def text_file(path: Path) -> Path:
    path.write_text("not a video")
    return path


@pytest.mark.parametrize(
    ("flag", "make", "message"),
    [
        ("--keypoints", lambda p: p / "none.npz", "file not found"),
        ("--keypoints", lambda p: bad_npz(p / "b.npz"), "lacks score, image_size, skeleton"),
        ("--video", lambda p: p / "none.mp4", "video not found"),
        ("--video", lambda p: text_file(p / "t.mp4"), "expected a video"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    flag: str, make: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, flag, make(tmp_path)) == 2  # type: ignore[operator]
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0] and lines[0].startswith("poseda-run: ")
    assert written(tmp_path) == []


def test_damaged_bundle(walker_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = Path(shutil.copytree(default_bundle_path(), tmp_path / "bundle"))
    data = bytearray((bundle / "lifter.onnx").read_bytes())
    data[1000] ^= 4
    (bundle / "lifter.onnx").write_bytes(data)
    assert run(tmp_path, "--keypoints", walker_file, "--bundle", bundle) == 2
    assert "lifter.onnx is damaged" in capsys.readouterr().err
    assert written(tmp_path) == []


@pytest.mark.parametrize("flags", [[], ["--demo", "--keypoints", "x.npz"], ["--video", "a", "--demo"]])
def test_exactly_one_source(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    assert "exactly one of" in capsys.readouterr().err


def test_cuda_where_there_is_none_exits_3(
    walker_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    assert run(tmp_path, "--keypoints", walker_file, "--backend", "ort-cuda") == 3
    assert "CUDAExecutionProvider" in capsys.readouterr().err


def test_overlay_has_the_video_s_frames(walker: Keypoints2D, walker_file: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--keypoints", walker_file) == 0
    poses = load_poses(tmp_path / "out" / "a.poses.npz")
    source = tmp_path / "grey.mp4"
    with VideoWriter(source, walker.size_wh, Fraction(30)) as writer:
        for _ in range(len(walker)):
            writer.write(np.full((720, 1280, 3), 90, np.uint8))
    clock = StageClock()
    drawn: list[int] = []
    up = np.array([0, -1, 0], np.float32)
    with VideoReader(source) as reader:
        write_overlay(reader, tmp_path / "o.mp4", track_clip(walker), poses, None, up, clock, drawn.append)
    with VideoReader(tmp_path / "o.mp4") as reader:
        frames = list(reader)
    assert len(frames) == len(drawn) == 90 and frames[0].bgr.shape[0] == 720
    assert clock.percentiles_ms()["draw"]["p50"] > 0
    picture = frames[40].bgr[:, :1280].astype(int)
    assert (np.abs(picture - 90).max(-1) > 60).sum() > 1000, "a skeleton is drawn on the grey picture"


@pytest.fixture
def grey_video(walker: Keypoints2D, tmp_path: Path) -> Path:
    """As long as the walker's keypoints."""
    path = tmp_path / "grey.mp4"
    with VideoWriter(path, walker.size_wh, Fraction(30)) as writer:
        for _ in range(len(walker)):
            writer.write(np.full((720, 1280, 3), 90, np.uint8))
    return path


def test_known_keypoints_save_detecting_again(walker_file: Path, grey_video: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--video", grey_video, "--keypoints", walker_file) == 0
    assert written(tmp_path) == ["a.overlay.mp4", "a.poses.jsonl", "a.poses.npz"]


def test_a_recording_that_is_streamed_is_lifted_as_it_comes(
    walker_file: Path, walker_cam_m: np.ndarray, grey_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every frame arrives, the first two without the person, who is one from the third sighting on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        address = f"udp://127.0.0.1:{ear.getsockname()[1]}"
        flags = ["--video", str(grey_video), "--keypoints", str(walker_file), "--stream", address, "--record", "--json"]
        assert run(tmp_path, *flags) == 0
        heard = [json.loads(ear.recv(65536)) for _ in range(90)]
    summary = json.loads(capsys.readouterr().out)
    assert summary["people"] == 1 and summary["frames"] == 90 and summary["dropped"] == 0 and summary["age"]["p50"] > 0
    assert [message["frame"] for message in heard] == list(range(90))
    assert [len(message["people"]) for message in heard] == [0, 0] + [1] * 88
    assert written(tmp_path) == ["a.overlay.mp4", "a.poses.jsonl", "a.poses.npz"]
    poses = load_poses(tmp_path / "out" / "a.poses.npz")
    assert poses.frame.tolist() == list(range(2, 90))
    np.testing.assert_allclose(heard[50]["people"][0]["root"], poses.root_m[48], atol=1e-4)
    error_m = np.linalg.norm(poses.pose_m - (walker_cam_m - walker_cam_m[:, :1])[2:], axis=-1)
    assert error_m[30:].mean() < 0.08


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("change", ["half as long", "another size"])
def test_keypoints_of_another_recording_are_refused(
    change: str, live: bool, walker: Keypoints2D, grey_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(walker, size_wh=(640, 480))
    if change == "half as long":
        half = slice(0, 45)
        other = replace(walker, xy_px=walker.xy_px[half], score=walker.score[half], time_s=walker.time_s[half])
    other.save(tmp_path / "other.npz")
    flags = ["--stream", "tcp://127.0.0.1:0"] if live else []
    assert run(tmp_path, "--video", grey_video, "--keypoints", tmp_path / "other.npz", *flags) == 2
    said = capsys.readouterr().err
    assert ("45 frames" in said and "90" in said) if change == "half as long" else "640x480" in said
    assert "poseda-detect --video" in said and written(tmp_path) == []


def test_a_photo_is_a_recording_of_one_frame(
    walker: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = replace(walker, xy_px=walker.xy_px[:1], score=walker.score[:1], time_s=walker.time_s[:1])
    one.save(tmp_path / "one.npz")
    cv2.imwrite(str(tmp_path / "photo.JPG"), np.full((720, 1280, 3), 90, np.uint8))
    assert run(tmp_path, "--video", tmp_path / "photo.JPG", "--keypoints", tmp_path / "one.npz", "--json") == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["frames"] == summary["people"] == 1 and "1 frame" in captured.err
    assert any("only 1 frame: tilt and bone lengths" in warning for warning in summary["warnings"])
    assert len(load_poses(tmp_path / "out" / "a.poses.npz")) == 1
    assert written(tmp_path) == ["a.overlay.mp4", "a.poses.jsonl", "a.poses.npz"]


def test_whoever_ends_it_while_it_converts_has_every_file(
    walker_file: Path, grey_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended_meanwhile(*args: Any) -> list[Path]:
        signal.raise_signal(signal.SIGTERM)
        return convert_log(*args)

    monkeypatch.setattr("poseda_deploy.runtime.write.convert_log", ended_meanwhile)
    flags = ["--stream", "udp://127.0.0.1:9", "--record", "--formats", "csv", "trc"]
    assert run(tmp_path, "--video", grey_video, "--keypoints", walker_file, *flags) == 0
    assert written(tmp_path) == ["a.overlay.mp4", "a.poses.csv", "a.poses.jsonl", "a.poses.trc"]


def test_live_and_whole_lift_everybody_of_the_keypoints(
    walker: Keypoints2D, grey_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = np.concatenate([walker.xy_px, walker.xy_px + np.float32(300)], 1)
    pair = replace(walker, xy_px=both, score=np.concatenate([walker.score, walker.score], 1))
    pair.save(tmp_path / "pair.npz")
    for live in ([], ["--stream", "udp://127.0.0.1:9"]):
        flags = ["--keypoints", str(tmp_path / "pair.npz"), "--no-overlay", "--overwrite", "--json", *live]
        assert run(tmp_path, "--video", grey_video, *flags) == 0
        assert json.loads(capsys.readouterr().out)["people"] == 2


def test_python_lifts_the_keypoints_that_it_is_given(walker_file: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--keypoints", walker_file) == 0
    frames = list(poseda_deploy.run(keypoints=walker_file))
    assert [len(frame) for frame in frames] == [1] * 90
    poses = load_poses(tmp_path / "out" / "a.poses.npz")
    np.testing.assert_allclose(frames[40].pose_m[0], poses.pose_m[40], atol=1e-5)


@pytest.mark.parametrize("flags", [{"out": "a"}, {"formats": ("csv",)}, {"overlay": False}, {"persons": 0}])
def test_python_refuses_flags_at_the_call(flags: dict[str, Any], walker_file: Path) -> None:
    with pytest.raises(InputError):
        poseda_deploy.run(keypoints=walker_file, **flags)


def test_python_closes_the_recording_where_the_bundle_fails(
    grey_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Path] = []
    monkeypatch.setattr(VideoReader, "__exit__", lambda reader, *error: closed.append(reader.path))
    with pytest.raises(PosedaError):
        next(poseda_deploy.run(grey_video, bundle=tmp_path / "none"))
    assert closed == [grey_video]


def test_what_needs_pictures_says_so(walker_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--keypoints", walker_file, "--web", "0") == 2
    assert "need pictures" in capsys.readouterr().err
    assert run(tmp_path, "--keypoints", walker_file, "--compare", "mediapipe") == 2
    assert "recording" in capsys.readouterr().err


@pytest.mark.parametrize("cam", [1, 2, 3, 4])
def test_open_target(cam: int, shared_data: Path, tmp_path: Path) -> None:
    """People and cameras it never saw, exact 2D, no training on them: under 55 mm on 16 joints (every 10th frame)."""
    target = np.load(shared_data / "free_target_cmu13_14_x_pose2sim_cams.npz")
    c, every = cam - 1, slice(None, None, 10)
    xy = target["keypoints_2d"][every, c]
    np.savez(
        tmp_path / "k.npz",
        xy=xy, score=np.ones(xy.shape[:2]), image_size=target["image_size"][c], skeleton="h36m17",
        K=target["K"][c], dist=target["dist"][c], fps=3,
    )  # fmt: skip
    assert run(tmp_path, "--keypoints", tmp_path / "k.npz") == 0
    poses = load_poses(tmp_path / "out" / "a.poses.npz")
    true = target["positions_world"][every] @ target["R"][c].T + target["T"][c]
    joints = [j for j in range(17) if j != 9]
    error_m = np.linalg.norm(poses.pose_m - (true - true[:, :1]), axis=-1)[:, joints]
    assert error_m.mean() < 0.055
