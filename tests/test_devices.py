"""Training on another device than the one that judges; what is asked of a device that is not here."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from lifters import KINDS
from people import looking_down, walk_m
from second_device import OnGpu, second_device

from poseda_deploy.camera import Camera
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.model import Lifter, LifterConfig
from poseda_deploy.networks import Kind
from poseda_deploy.skeleton import H36M17
from poseda_deploy.train import target_views, verdict
from poseda_deploy.train.adapt import AdaptConfig, adapt
from poseda_deploy.train.config import TrainConfig
from poseda_deploy.train.loop import fit
from poseda_deploy.train.source import SourcePoses, sampler_of
from poseda_deploy.train.target2d import Target2D, target_2d
from poseda_deploy.train.target_views import TargetViewConfig
from poseda_deploy.train.verdict import evidence, matched_views, residuals
from poseda_deploy.train.views import ViewSampler

CAMERA = Camera.from_focal(1000.0, (1280, 720), "test")
WITHOUT_AUTOCAST = pytest.mark.filterwarnings("ignore:.*CUDA is not available")  # torch's, where it is so


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The second device, and less work for it."""
    for module, fewer in (
        (target_views, {"WARM_UP": 2, "UPDATES": 1, "LEARNT": 32}),
        (verdict, {"FRAMES": 12, "POOL": 300}),
    ):
        for name, count in fewer.items():
            monkeypatch.setattr(module, name, count)
    with second_device(monkeypatch):
        yield


@pytest.fixture
def target() -> Target2D:
    """The walker's 2D, calibrated."""
    rotation, translation = looking_down(0.3)
    xy_px = CAMERA.project(walk_m(240) @ rotation.T + translation)[:, None].astype(np.float32)
    score = np.ones(xy_px.shape[:3], np.float32)
    keypoints = Keypoints2D(xy_px, score, CAMERA.size_wh, H36M17, np.arange(240) / 30, CAMERA)
    bones_m = np.array([[0.1, 0.42, 0.42, 0.22, 0.28, 0.22, 0.175, 0.28, 0.25]], np.float32)
    up = (rotation @ np.array([0.0, 1.0, 0.0])).astype(np.float32)
    return replace(target_2d(keypoints, CAMERA, "walker"), up=up, bones_m=bones_m)


def sampler(config: TrainConfig) -> ViewSampler:
    pose_m = walk_m(120)
    pose_m = (pose_m - pose_m[:, :1]).astype(np.float32)
    return sampler_of(SourcePoses(pose_m, np.full(120, 1 / 120, np.float32), np.zeros(120, np.int64)), config)


def test_what_meets_on_two_devices_is_refused(gpu: None) -> None:
    """The stand-in does as a GPU would; else nothing below shows anything."""
    here, there = torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3).to("cuda")
    assert isinstance(there * 2 + 1, OnGpu) and there.device.type == "cuda"
    assert float(there.sum()) == 15 and torch.equal(there.cpu(), here)
    with pytest.raises(RuntimeError, match="one device"):
        here + there
    with pytest.raises(RuntimeError, match="one device"):
        here[there[:, 0] > 1]
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, generator=torch.Generator(), device="cuda")
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()


@WITHOUT_AUTOCAST
def test_a_lifter_is_adapted_on_a_gpu_and_judged(gpu: None, target: Target2D) -> None:
    """The whole way with both augmentations: what comes out is on the CPU, where it is published."""
    config = AdaptConfig(steps=16, batch=8, tries=("random", "adversarial"), device="cuda")
    start = Lifter(LifterConfig(32, 1))
    adapted = adapt(start, [target], sampler(TrainConfig(source=(), device="cuda")), config, lambda steps: None)
    assert [one.lpa for one in adapted.tries] == ["random", "adversarial"]
    for one in adapted.tries:
        assert not any(isinstance(value, OnGpu) for value in one.lifter.state_dict().values())
        assert np.isfinite([one.evidence.matched_mm, one.evidence.residual, *one.errors_mm]).all()
        assert np.isfinite(residuals(one.lifter, target).detach().numpy()).all()


def test_evidence_on_a_gpu_is_that_of_the_cpu(gpu: None, target: Target2D) -> None:
    """The stand-in draws the CPU's random numbers, so the matched people are the same to the bit."""
    lifter, config = Lifter(LifterConfig(32, 1)), TargetViewConfig()
    cpu, cuda = (
        evidence(lifter, [target], [matched_views(sampler(TrainConfig(source=(), device=where)), target, config)])
        for where in ("cpu", "cuda")
    )
    assert cpu == cuda


@WITHOUT_AUTOCAST
@pytest.mark.parametrize("kind", KINDS)
def test_every_lifter_trains_on_a_gpu(kind: Kind, gpu: None, tmp_path: Path) -> None:
    config = TrainConfig(source=(), steps=2, batch=8, device="cuda")
    lifter = Lifter(LifterConfig(*((32, 1) if kind == "conditioned" else (0, 0)), kind=kind))
    trained, errors_mm = fit(config, lifter, sampler(config), lambda steps: None, keep=tmp_path / "state")
    assert np.isfinite(errors_mm).all()
    assert not any(isinstance(value, OnGpu) for value in trained.state_dict().values())


@pytest.mark.parametrize("command", ["adapt_cli", "cli"])
def test_a_gpu_that_is_not_here_is_said_before_any_work(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    flag = "--target-2d" if command == "adapt_cli" else "--source"
    (tmp_path / "people.npz").write_bytes(b"not read")
    flags = [flag, str(tmp_path / "people.npz"), "--device", "cuda", "--out", str(tmp_path / "out"), "--quiet"]
    assert import_module(f"poseda_deploy.train.{command}").main(flags) == 3
    assert "--device cuda: this PyTorch finds no GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
