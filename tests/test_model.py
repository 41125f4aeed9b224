from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poseda_deploy.errors import InputError
from poseda_deploy.model import (
    FEATURES,
    Lifter,
    LifterConfig,
    mirror_features,
    onto_rays,
    place,
    see,
    solve_3x3,
    turn_onto_axis,
)
from poseda_deploy.onnx_graph import example_inputs
from poseda_deploy.skeleton import BONE_FROM_JOINT, GROUP_FROM_LENGTH, H36M17

TINY = LifterConfig(width=32, blocks=1)


@pytest.fixture(scope="module")
def lifter() -> Lifter:
    torch.manual_seed(0)
    return Lifter(TINY).eval()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def inputs(rows: int = 12) -> list[torch.Tensor]:
    return [torch.from_numpy(value) for value in example_inputs(rows).values()]


@settings(max_examples=30, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2))
def test_turn_brings_the_anchor_onto_the_axis(x: float, y: float) -> None:
    turn = turn_onto_axis(torch.tensor([[x, y]], dtype=torch.float64))[0]
    ray = torch.tensor([x, y, 1.0], dtype=torch.float64)
    torch.testing.assert_close(turn @ ray / ray.norm(), torch.tensor([0.0, 0, 1], dtype=torch.float64))
    torch.testing.assert_close(turn @ turn.T, torch.eye(3, dtype=torch.float64))
    assert torch.det(turn) == pytest.approx(1)


def test_solver_agrees_with_torch() -> None:
    random = torch.randn(20, 3, 5, generator=torch.Generator().manual_seed(0))
    matrix = random @ random.mT
    vector = torch.randn(20, 3)
    torch.testing.assert_close(solve_3x3(matrix, vector), torch.linalg.solve(matrix, vector), rtol=1e-2, atol=1e-3)


def test_placing_a_true_pose_recovers_its_root(walker_cam_m: np.ndarray) -> None:
    joints = torch.from_numpy(walker_cam_m).float()
    keypoints = torch.cat([joints[..., :2] / joints[..., 2:], torch.ones(len(joints), 17, 1)], -1)
    view = see(keypoints, torch.tensor([1.0, 1, 0, 0]).expand(len(joints), 4))
    root = place(joints - joints[:, :1], view)
    torch.testing.assert_close(root, joints[:, 0], atol=4e-3, rtol=0)
    limbs = [j for j, name in enumerate(H36M17.joints) if name not in ("pelvis", "thorax")]
    torch.testing.assert_close(onto_rays(joints, view)[:, limbs], joints[:, limbs], atol=1e-4, rtol=0)


def test_refinement_keeps_the_truth_and_repairs_short_depth(walker_cam_m: np.ndarray) -> None:
    """What the network does wrong is to shrink depth; known lengths bring most of it back."""
    joints = torch.from_numpy(walker_cam_m).float()
    pose = joints - joints[:, :1]
    lengths = np.linalg.norm(BONE_FROM_JOINT @ pose.numpy(), axis=-1) @ GROUP_FROM_LENGTH.T
    bones = torch.from_numpy(lengths).float()
    keypoints = torch.cat([joints[..., :2] / joints[..., 2:], torch.ones(len(joints), 17, 1)], -1)
    view = see(keypoints, torch.tensor([1.0, 1, 0, 0]).expand(len(joints), 4))
    lifter = Lifter(TINY)
    same, root = lifter.refine(pose, view, bones)
    assert (same - pose).norm(dim=-1).max() < 0.006, "the middle of two projections is not quite that of the middle"
    assert (root - joints[:, 0]).norm(dim=-1).max() < 0.006
    flat = pose * torch.tensor([1.0, 1.0, 0.6])
    mended, _ = lifter.refine(flat, view, bones)
    before, after = ((p - pose).norm(dim=-1).mean() for p in (flat, mended))
    assert after < 0.75 * before


def test_mirrored_input_gives_the_mirrored_pose(lifter: Lifter) -> None:
    keypoints, camera, up, bones = inputs()
    camera = torch.tensor([1000.0, 1000, 640, 360]).expand_as(camera)
    pose, root = lifter(keypoints, camera, up, bones)
    flipped = keypoints[:, H36M17.mirror].clone()
    flipped[..., 0] = torch.where(flipped[..., 2] > 0, 1280 - flipped[..., 0], 0)
    pose_m, root_m = lifter(flipped, camera, up * torch.tensor([-1.0, 1, 1]), bones)
    sign = torch.tensor([-1.0, 1, 1])
    torch.testing.assert_close(pose_m[:, H36M17.mirror] * sign, pose, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(root_m * sign, root, atol=1e-4, rtol=1e-4)


def test_mirroring_features_twice_is_nothing() -> None:
    features = torch.randn(4, FEATURES)
    torch.testing.assert_close(mirror_features(mirror_features(features)), features)


def test_focal_length_and_resolution_do_not_matter(lifter: Lifter) -> None:
    keypoints, camera, up, bones = inputs()
    scaled = keypoints * torch.tensor([0.5, 0.5, 1])
    for a, b in zip(lifter(keypoints, camera, up, bones), lifter(scaled, camera * 0.5, up, bones), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_where_a_missing_joint_lies_does_not_matter(lifter: Lifter) -> None:
    keypoints, camera, up, bones = inputs()
    elsewhere = torch.where(keypoints[..., 2:] > 0, keypoints, torch.tensor([-500.0, 9000.0, 0.0]))
    assert not torch.equal(elsewhere, keypoints)
    for a, b in zip(lifter(keypoints, camera, up, bones), lifter(elsewhere, camera, up, bones), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("joint", ["spine", "neck", "pelvis", "thorax"])
def test_what_each_data_set_defines_anew_does_not_matter(lifter: Lifter, joint: str) -> None:
    """Spine and neck are not read; pelvis and thorax only where a hip or shoulder is missing."""
    keypoints, camera, up, bones = inputs()
    keypoints[..., 2] = 1
    moved = keypoints.clone()
    moved[:, H36M17.index(joint), :2] += 40
    for a, b in zip(lifter(keypoints, camera, up, bones), lifter(moved, camera, up, bones), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("missing", [[0], [1, 4, 0], list(range(7)), list(range(3, 17)), list(range(17))])
def test_missing_joints_never_give_nan(lifter: Lifter, missing: list[int]) -> None:
    keypoints, camera, up, bones = inputs()
    keypoints[:, missing] = 0
    pose, root = lifter(keypoints, camera, up, bones)
    assert torch.isfinite(pose).all() and torch.isfinite(root).all()


def test_known_lengths_are_honoured(lifter: Lifter) -> None:
    keypoints, camera, up, bones = inputs()
    bones = torch.full_like(bones, 0.3)
    keypoints[..., 2] = 0  # no rays to follow
    pose, _ = lifter(keypoints, camera, up, bones)
    lengths = np.linalg.norm(BONE_FROM_JOINT @ pose.detach().numpy(), axis=-1) @ GROUP_FROM_LENGTH.T
    np.testing.assert_allclose(lengths, 0.3, rtol=1e-3)


def test_impossible_size_is_refused() -> None:
    with pytest.raises(InputError, match="impossible lifter"):
        LifterConfig(width=1)


def test_onnx_runtime_agrees_with_torch(lifter: Lifter, tmp_path: Path) -> None:
    from poseda_deploy.backend import open_backend
    from poseda_deploy.train.publish import publish

    bundle = publish(lifter, tmp_path / "bundle", name="tiny", config={"lifter": TINY.__dict__}, report={})
    with open_backend(bundle, "ort-cpu") as ort, open_backend(bundle, "torch") as reference:
        assert ort.provider == "CPUExecutionProvider"
        for rows in (1, 2, 7, 256):
            values = list(example_inputs(rows, seed=rows).values())
            for a, b in zip(ort.lift(*values), reference.lift(*values), strict=True):
                assert np.abs(a - b).max() < 5e-5, "more than 0.05 mm apart"
    assert {p.name for p in tmp_path.iterdir()} == {"bundle"}
    assert b"model.py" not in bundle.file("lifter.onnx").read_bytes(), "paths of this machine"
