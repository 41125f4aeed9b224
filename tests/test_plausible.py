"""2D that cannot be people in pixels, and poses that cannot be people: refused, or said with the likely reason."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.plausible import PoseCheck
from poseda_deploy.runtime.cli import main
from poseda_deploy.skeleton import COCO17, H36M17


def outcome(
    keypoints: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary and what a quiet run says."""
    keypoints.save(tmp_path / "k.npz")
    code = main(["--keypoints", str(tmp_path / "k.npz"), "--out", str(tmp_path / "a"), "--quiet", "--json", *flags])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if code == 0 else {}, captured.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda xy: xy / np.array([1280, 720], np.float32), "shares of the picture"),
        (lambda xy: xy / np.array([640, 360], np.float32) - 1, "shares of the picture"),
        (lambda xy: np.full_like(xy, 400), "in one point"),
        (lambda xy: np.where(np.arange(17)[:, None] == 3, np.float32(1e30), xy), "1e+30"),
    ],
)
def test_what_cannot_be_people_in_pixels_is_refused(
    change: Any, message: str, walker: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = outcome(replace(walker, xy_px=change(walker.xy_px)), tmp_path, capsys)
    assert code == 2 and message in said and len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["k.npz"], "before any work"


def test_pixels_of_another_picture_are_said(
    walker: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, summary, said = outcome(replace(walker, xy_px=walker.xy_px * 2), tmp_path, capsys)
    assert code == 0 and "lie outside the 1280x720 image" in said
    assert any("lie outside" in warning for warning in summary["warnings"])


@pytest.mark.parametrize(
    ("rate", "message"), [(1000.0, "milliseconds"), (300.0, "10 s apart")], ids=["milliseconds", "0.1 fps"]
)
def test_frames_seconds_apart_are_said(
    rate: float, message: str, walker: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, summary, said = outcome(replace(walker, time_s=walker.time_s * rate), tmp_path, capsys)
    assert code == 0 and message in said and any(message in warning for warning in summary["warnings"])


def test_nobody_is_said_with_the_reason(
    walker: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = replace(walker, score=np.zeros_like(walker.score))
    code, summary, said = outcome(nobody, tmp_path, capsys)
    assert code == 0 and summary["people"] == 0 and "no joint has a score above 0" in said
    few = walker.score.copy()
    few[..., 4:] = 0
    code, _, said = outcome(replace(walker, score=few), tmp_path, capsys, "--overwrite")
    assert code == 0 and "6 joints" in said


def test_people_as_they_are_are_not_warned_of(
    walker: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, summary, said = outcome(walker, tmp_path, capsys)
    assert code == 0 and not said and "warnings" not in summary


def test_joints_in_another_order_are_said(
    walker: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face = {"nose", "left_eye", "right_eye", "left_ear", "right_ear"}
    order = [H36M17.index("head" if joint in face else joint) for joint in COCO17.joints]
    assert "joint order" in outcome(replace(walker, xy_px=walker.xy_px[:, :, order]), tmp_path, capsys)[2]


def test_poses_that_nobody_takes_are_counted(walker_cam_m: np.ndarray) -> None:
    root_m = walker_cam_m[:, 0].astype(np.float32)
    pose_m = (walker_cam_m - walker_cam_m[:, :1]).astype(np.float32)
    check = PoseCheck()
    check.add(pose_m, root_m)
    assert check.warnings() == ()
    check.add(pose_m[:10], root_m[:10] * 1000)
    check.add(pose_m[:20] * 4, root_m[:20])
    check.add(np.where(np.arange(17)[:, None] == H36M17.index("head"), np.float32(np.nan), pose_m[:5]), root_m[:5])
    said = " | ".join(check.warnings())
    assert "10 of 125" in said and "20 of 125" in said and "5 of 125" in said
