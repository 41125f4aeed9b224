"""A flag that has no effect where it stands is an error, in every command; and those that have one are taken."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import poseda_deploy
from poseda_deploy.errors import InputError
from poseda_deploy.export.cli import main as export
from poseda_deploy.runtime.cli import main as run
from poseda_deploy.runtime.detect_cli import main as detect
from poseda_deploy.train.adapt_cli import main as adapt
from poseda_deploy.train.cli import main as train
from poseda_deploy.train.eval_cli import main as evaluate

IDLE: list[tuple[Callable[[list[str]], int], str, str]] = [
    (run, "--demo --detector-device cuda", "--detector onnx"),
    (run, "--demo --person-input yolox", "--detector onnx"),
    (run, "--demo --camera-name left", "--intrinsics"),
    (run, "--demo --web-host 0.0.0.0", "--web"),
    (run, "--demo --image-fps 25", "folder of images"),
    (run, "--video a.mp4 --image-fps 25", "folder of images"),
    (run, "--video a.mp4 --record", "live"),
    (run, "--keypoints k.npz --record", "--video"),
    (run, "--keypoints k.npz --overlay", "--video"),
    (run, "--video a.mp4 --show --overlay", "whole"),
    (run, "--keypoints k.npz --persons 2", "detect"),
    (run, "--keypoints k.npz --pose-model heavy", "detect"),
    (run, "--video a.mp4 --keypoints k.npz --detector onnx", "detect"),
    (detect, "--video a.mp4 --fps 25", "folder of images"),
    (detect, "--video a.mp4 --skeleton coco17", "--from-openpose"),
    (detect, "--video a.mp4 --image-size 640 480", "--from-openpose"),
    (detect, "--from-coco a.json --pose-model heavy", "--video"),
    (detect, "--from-coco a.json --detector-device cuda", "--video"),
    (export, "--batch 1,2,4", "--trt"),
    (export, "--onnx fp16 --gpu sm86", "--trt"),
    (export, "--out somewhere", "--onnx or --trt"),
    (export, "--overwrite", "--onnx, --trt or --triton"),
    (evaluate, "--target t.npz --seed 3", "--noise"),
    (adapt, "--target-2d t.npz --camera-name left", "--intrinsics"),
    (train, "--source a.npz --bvh-scale 0.01", "BVH"),
]


@pytest.mark.parametrize(("command", "flags", "needs"), IDLE, ids=lambda value: value if isinstance(value, str) else "")
def test_a_flag_without_effect_is_an_error(
    command: Callable[[list[str]], int],
    flags: str,
    needs: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(flags.split()) == 2
    said = capsys.readouterr().err
    assert "has no effect" in said and needs in said and len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [], "before any work"


def test_flags_of_a_config_file_count_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text('camera_name = "left"\ntarget_2d = ["t.npz"]\n')
    assert adapt(["--config", str(tmp_path / "a.toml")]) == 2
    assert "--camera-name has no effect" in capsys.readouterr().err


def test_a_config_where_none_is_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.toml").write_text("persons = 2\n")
    assert run(["--demo", "--config", str(tmp_path / "a.toml")]) == 2
    assert "--config" in capsys.readouterr().err


def test_switching_off_what_would_not_happen_is_no_error(walker_file: Path, tmp_path: Path) -> None:
    flags = ["--keypoints", str(walker_file), "--no-overlay", "--out", str(tmp_path / "a"), "--quiet"]
    assert run(flags) == 0


def test_python_refuses_them_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--camera-name has no effect"):
        poseda_deploy.run(tmp_path / "a.mp4", camera_name="left")


def test_the_same_flags_are_taken_where_they_act(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "x.npz", a=1)
    assert run(["--video", str(tmp_path), "--image-fps", "25"]) == 2
    assert "has no effect" not in capsys.readouterr().err
