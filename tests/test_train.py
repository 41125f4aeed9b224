import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from people import walk_m

from poseda_deploy.bundle import load_bundle
from poseda_deploy.calibrate import unit
from poseda_deploy.errors import InputError
from poseda_deploy.model import Lifter, LifterConfig
from poseda_deploy.skeleton import H36M17
from poseda_deploy.train.cli import lifter_to_train, main
from poseda_deploy.train.config import TrainConfig
from poseda_deploy.train.loop import fit
from poseda_deploy.train.postures import balanced_weights, facing_forward
from poseda_deploy.train.publish import publish
from poseda_deploy.train.source import SourcePoses, load_source, sampler_of
from poseda_deploy.train.views import ViewConfig, ViewSampler, rotate


def write_source(path: Path, scale: float = 1.0, subjects: tuple[str, ...] = ("a1", "a12")) -> Path:
    positions = (walk_m(120) * scale).astype(np.float32)
    np.savez(
        path,
        positions=positions,
        seq_id=np.repeat(np.arange(len(subjects)), 120 // len(subjects)),
        seq_subject=np.array(subjects),
        valid=np.ones(120, bool),
    )
    return path


@pytest.fixture
def source_file(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source.npz")


@pytest.fixture(scope="module")
def walking() -> SourcePoses:
    pose = walk_m(120)
    return SourcePoses((pose - pose[:, :1]).astype(np.float32), np.full(120, 1 / 120), np.zeros(120, int))


def sampler(walking: SourcePoses, seed: int = 0, **views: object) -> ViewSampler:
    config = ViewConfig(**views)
    return ViewSampler(torch.from_numpy(walking.pose_m), torch.from_numpy(walking.weight), config, seed)


def test_subjects_are_left_out_by_equality(source_file: Path) -> None:
    assert len(load_source([source_file], ["a1"]).pose_m) == 60
    assert len(load_source([source_file], ["a"]).pose_m) == 120


def test_everything_left_out_is_an_error(source_file: Path) -> None:
    with pytest.raises(InputError, match="no pose is left"):
        load_source([source_file], ["a1", "a12"])


@pytest.mark.parametrize(("scale", "factor"), [(1000, "0.001"), (100, "0.01"), (0.0254, "39.4")])
def test_poses_that_are_not_metres_name_the_factor(tmp_path: Path, scale: float, factor: str) -> None:
    with pytest.raises(InputError, match="shins are") as caught:
        load_source([write_source(tmp_path / "s.npz", scale)], [])
    assert factor in caught.value.hint


def test_rare_postures_gain_weight() -> None:
    random = np.random.default_rng(0)
    upright = np.repeat(walk_m(1), 20_000, 0)
    lying = np.repeat(walk_m(1) @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]), 50, 0)
    poses = np.concatenate([upright, lying]) + random.normal(0, 0.02, (20_050, 17, 3))
    weight = balanced_weights((poses - poses[:, :1]).astype(np.float32))
    assert weight.sum() == pytest.approx(1)
    assert weight[20_000:].mean() > 1.2 * weight[:20_000].mean()


def test_facing_forward_forgets_yaw_but_not_tilt() -> None:
    pose = walk_m(40)
    directions = facing_forward(pose - pose[:, :1])
    assert np.abs(directions[:, 1, 2]).max() < 1e-6, "the left hip lies on the x axis"
    lying = pose @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    assert np.abs(facing_forward(lying - lying[:, :1]) - directions).max() > 0.5


def test_views_are_what_a_camera_would_see(walking: SourcePoses) -> None:
    """Exact views: every joint but hips and head lies on the ray of its keypoint for one root position."""
    views = sampler(walking, exact=1.0, cropped=0.0, hips_spread=0.0).draw(64)
    seen = views.keypoints[..., 2] > 0
    seen[:, H36M17.index("head")] = False
    assert seen[:, H36M17.index("left_wrist")].all()
    ray = torch.nn.functional.pad(views.keypoints[..., :2], (0, 1), value=1.0).double()
    unit_ray = ray / ray.norm(dim=-1, keepdim=True)
    across = (torch.eye(3, dtype=torch.float64) - unit_ray[..., None] * unit_ray[..., None, :]) * seen[..., None, None]
    pose = views.pose.double()
    root = torch.linalg.solve(across.sum(1), -(across @ pose[..., None]).sum(1)[..., 0])
    off = (across @ (pose + root[:, None])[..., None]).norm(dim=2).squeeze(-1)
    assert off.max() < 1e-3 and (root[:, 2] > 1).all()


def test_up_is_where_the_head_is(walking: SourcePoses) -> None:
    views = sampler(walking, known_up=1.0).draw(512)
    head = views.pose[:, H36M17.index("head")].numpy()
    sure = views.up.norm(dim=1).numpy() > 0.9
    assert ((unit(head) * unit(views.up.numpy())).sum(-1)[sure] > 0.9).mean() > 0.95


def test_given_bones_are_those_of_the_pose(walking: SourcePoses) -> None:
    views = sampler(walking, known_bones=1.0, bone_error=0.0).draw(64)
    hip, knee = H36M17.index("left_hip"), H36M17.index("left_knee")
    thigh = (views.pose[:, hip] - views.pose[:, knee]).norm(dim=-1)
    torch.testing.assert_close(views.bones[:, 1], thigh, atol=1e-4, rtol=1e-4)


def test_noise_comes_with_its_share_of_exact_views(walking: SourcePoses) -> None:
    exact, noisy = (sampler(walking, exact=e, cropped=0.0).draw(256).keypoints for e in (1.0, 0.0))
    wrist = H36M17.index("left_wrist")
    moved = (exact[:, wrist, :2] - noisy[:, wrist, :2]).norm(dim=-1)
    assert moved.median() > 1e-3 and moved.max() < 0.5


def test_same_seed_same_views(walking: SourcePoses) -> None:
    a, b, c = (sampler(walking, seed).draw(32).keypoints for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_rotating_keeps_lengths() -> None:
    vector, turn = torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    torch.testing.assert_close(rotate(vector, turn).norm(dim=-1), vector.norm(dim=-1))
    torch.testing.assert_close(rotate(rotate(vector, turn), -turn), vector, atol=1e-5, rtol=1e-5)


def tiny(steps: int, seed: int = 0) -> TrainConfig:
    return TrainConfig(source=(Path("x"),), steps=steps, batch=64, seed=seed, average=0.98, lifter=LifterConfig(64, 1))


def trained(
    config: TrainConfig, source: SourcePoses, on_steps: Callable[[int], None] = print, keep: Path | None = None
) -> tuple[Lifter, list[float]]:
    return fit(config, lifter_to_train(config), sampler_of(source, config), on_steps, keep)


def test_training_learns_and_is_repeatable(walking: SourcePoses) -> None:
    torch.set_num_threads(1)
    first, errors_mm = trained(tiny(320), walking)
    assert len(errors_mm) == 20 and errors_mm[-1] < 0.6 * errors_mm[0]
    again, _ = trained(tiny(320), walking)
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_training_goes_on_from_a_bundle(walking: SourcePoses, tmp_path: Path) -> None:
    lifter, _ = trained(tiny(160), walking)
    config = {"lifter": asdict(lifter.config)}
    publish(lifter, tmp_path / "first", name="first", config=config, report={}, extras={})
    again = replace(tiny(16), start=tmp_path / "first", learning_rate=1e-6)
    _, errors_mm = trained(again, walking)
    _, fresh_mm = trained(tiny(16), walking)
    assert errors_mm[0] < 0.8 * fresh_mm[0]
    with pytest.raises(InputError, match="another size"):
        trained(replace(again, lifter=LifterConfig(32, 1)), walking)


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_as_if_nothing_had_been(
    walking: SourcePoses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poseda_deploy.train.checkpoint.EVERY_S", 0.0)
    torch.set_num_threads(1)
    keep = tmp_path / "kept.safetensors"

    def kill(step: int) -> None:
        if step >= 96:
            raise Killed

    whole, whole_mm = trained(tiny(160), walking)
    with pytest.raises(Killed):
        trained(tiny(160), walking, kill, keep)
    steps: list[int] = []
    resumed, resumed_mm = trained(tiny(160), walking, steps.append, keep)
    assert steps[0] == 80, "the last saved state was after 80 steps"
    assert resumed_mm == pytest.approx(whole_mm)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_another_training_s_state_is_not_taken(
    walking: SourcePoses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poseda_deploy.train.checkpoint.EVERY_S", 0.0)
    trained(tiny(32), walking, keep=tmp_path / "kept")
    steps: list[int] = []
    trained(tiny(32, seed=1), walking, steps.append, tmp_path / "kept")
    assert steps == [0, 16, 32]


def test_the_command_writes_a_bundle_that_runs(
    source_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"
    flags = ["--steps", "32", "--batch", "32", "--width", "32", "--blocks", "1", "--out", str(out), "--json", "--quiet"]
    assert main(["--source", str(source_file), "--without", "a1", *flags]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["source_poses"] == 60 and summary["onnx_parity_mm"] < 0.5
    bundle = load_bundle(out)
    assert bundle.file("training.png").read_bytes().startswith(b"\x89PNG")
    assert bundle.manifest.config["without"] == ["a1"] and bundle.manifest.config["lifter"]["width"] == 32
    assert main(["--source", str(source_file), *flags]) == 2, "an existing bundle is kept"
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--steps", "0"], ["--batch", "2"], ["--width", "2"], ["--source", "/nowhere.npz"]])
def test_nonsense_is_refused_in_one_line(
    flags: list[str], source_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = [] if "--source" in flags else ["--source", str(source_file)]
    assert main([*source, *flags, "--out", str(tmp_path / "b")]) == 2
    assert not (tmp_path / "b").exists()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
