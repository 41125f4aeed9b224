from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifters import KINDS, TINY, inputs, striding_lifter
from safetensors.torch import save
from torch import Tensor

from poseda_deploy.backend import open_backend, replay_golden
from poseda_deploy.bundle import WEIGHTS, default_bundle_path, load_bundle, write_manifest
from poseda_deploy.errors import BundleError, InputError
from poseda_deploy.model import Lifter, LifterConfig, load_lifter
from poseda_deploy.onnx_graph import example_inputs
from poseda_deploy.rays import View, inverse_3x3, off_ray, onto_rays, placing, see, turn_onto_axis
from poseda_deploy.skeleton import BONE_FROM_JOINT, GROUP_FROM_LENGTH, H36M17


@pytest.fixture(scope="module", params=KINDS)
def lifter(request: pytest.FixtureRequest) -> Lifter:
    return striding_lifter(request.param)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@settings(max_examples=30, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2))
def test_turn_brings_the_anchor_onto_the_axis(x: float, y: float) -> None:
    turn = turn_onto_axis(torch.tensor([[x, y]], dtype=torch.float64))[0]
    ray = torch.tensor([x, y, 1.0], dtype=torch.float64)
    torch.testing.assert_close(turn @ ray / ray.norm(), torch.tensor([0.0, 0, 1], dtype=torch.float64))
    torch.testing.assert_close(turn @ turn.T, torch.eye(3, dtype=torch.float64))
    assert torch.det(turn) == pytest.approx(1)


def test_inverse_agrees_with_torch() -> None:
    random = torch.randn(20, 3, 5, generator=torch.Generator().manual_seed(0))
    matrix = random @ random.mT
    torch.testing.assert_close(inverse_3x3(matrix), torch.linalg.inv(matrix), rtol=1e-2, atol=1e-3)


def turned_view(joints: Tensor, score: Tensor | None = None) -> tuple[Tensor, View]:
    """Joints in turned axes, and how a camera of focal length 1 sees them."""
    score = torch.ones_like(joints[..., 0]) if score is None else score
    keypoints = torch.cat([joints[..., :2] / joints[..., 2:], score[..., None]], -1)
    view = see(keypoints, joints.new_tensor([1.0, 1, 0, 0]).expand(len(joints), 4))
    return joints @ view.turn.mT, view


def test_placing_a_true_pose_recovers_its_root(walker_cam_m: np.ndarray) -> None:
    joints, view = turned_view(torch.from_numpy(walker_cam_m).float())
    off = off_ray(view)
    pose = (joints - joints[:, :1]).reshape(-1, 51, 1)
    torch.testing.assert_close(-(placing(off) @ pose)[..., 0], joints[:, 0], atol=4e-3, rtol=0)
    limbs = [j for j, name in enumerate(H36M17.joints) if name not in ("pelvis", "thorax")]
    on_rays = (onto_rays(off, torch.eye(51)) @ pose).view(-1, 17, 3)
    torch.testing.assert_close(on_rays[:, limbs], joints[:, limbs], atol=4e-3, rtol=0)


def test_a_joint_beside_its_ray_moves_to_its_nearest_point(walker_cam_m: np.ndarray) -> None:
    wrist = H36M17.index("left_wrist")
    score = torch.ones(8, 17, dtype=torch.float64)
    score[4:, wrist] = 0.2  # moves (0.5 + 0.5 score) of the way
    joints, view = turned_view(torch.from_numpy(walker_cam_m[:8]).double(), score)
    off = off_ray(view)
    pose = joints - joints[:, :1]
    pose[:, wrist] += torch.tensor([0.0, 0.3, 0.0])
    root = -(placing(off) @ pose.view(-1, 51, 1))[:, :, 0]
    given = (pose + root[:, None])[:, wrist]
    moved = (onto_rays(off, torch.eye(51).double()) @ pose.view(-1, 51, 1)).view(-1, 17, 3)[:, wrist]
    unit = joints[:, wrist] / joints[:, wrist].norm(dim=1, keepdim=True)
    nearest = unit * (given * unit).sum(1, keepdim=True)
    share = torch.tensor([1.0] * 4 + [0.6] * 4, dtype=torch.float64)[:, None]
    torch.testing.assert_close(moved, given + share * (nearest - given))


def test_refinement_keeps_the_truth_and_repairs_short_depth(walker_cam_m: np.ndarray) -> None:
    """What the network does wrong is to shrink depth; known lengths bring most of it back."""
    joints, view = turned_view(torch.from_numpy(walker_cam_m).float())
    pose = joints - joints[:, :1]
    lengths = np.linalg.norm(BONE_FROM_JOINT @ pose.numpy(), axis=-1) @ GROUP_FROM_LENGTH.T
    bones = torch.from_numpy(lengths).float()
    lifter = Lifter(TINY)
    same = lifter.refine(pose, view, bones)
    assert (same - joints).norm(dim=-1).max() < 0.009, "the middle of two projections is not quite that of the middle"
    flat = pose * torch.tensor([1.0, 1.0, 0.6])
    mended = lifter.refine(flat, view, bones)
    before, after = ((p - pose).norm(dim=-1).mean() for p in (flat, mended - mended[:, :1]))
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
def test_what_each_data_set_defines_anew_does_not_matter(joint: str) -> None:
    """Spine and neck are not read; pelvis and thorax only where a hip or shoulder is missing."""
    lifter = striding_lifter("conditioned")
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


@pytest.mark.parametrize("size", [{"width": 1}, {"rounds": -1}, {"blocks": -2}, {"kind": "semgcn", "rounds": -1}])
def test_impossible_size_is_refused(size: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="impossible lifter"):
        LifterConfig(**size)


def test_the_paper_s_sizes_are_fixed() -> None:
    with pytest.raises(InputError, match="vpose has the size of the paper"):
        LifterConfig(width=512, kind="vpose")


def test_default_size_is_written_out() -> None:
    assert LifterConfig() == LifterConfig(width=512, blocks=2)


def test_a_bundle_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(save(Lifter(TINY).state_dict()))
    for told in (
        {},
        {"lifter": {"depth": 3}},
        {"lifter": {"width": 64}},
        {"lifter": {"kind": "semgcn"}},
        {"lifter": {"kind": "gcn"}},
    ):
        with pytest.raises(BundleError, match="another version"):
            load_lifter(write_manifest(tmp_path, (WEIGHTS,), config=told))


def test_the_shipped_weights_are_those_of_the_shipped_onnx() -> None:
    bundle = load_bundle(default_bundle_path())
    with open_backend(bundle, "ort-cpu") as ort, open_backend(bundle, "torch") as reference:
        assert replay_golden(ort, bundle) < 0.05 and replay_golden(reference, bundle) < 0.05


def test_onnx_runtime_agrees_with_torch(tmp_path: Path) -> None:
    from poseda_deploy.train.publish import publish

    lifter = striding_lifter("conditioned")
    bundle = publish(lifter, tmp_path / "bundle", name="tiny", config={"lifter": TINY.__dict__}, report={}, extras={})
    with open_backend(bundle, "ort-cpu") as ort, open_backend(bundle, "torch") as reference:
        assert ort.provider == "CPUExecutionProvider"
        for rows in (1, 2, 7, 64):
            values = list(example_inputs(rows, seed=rows).values())
            for a, b in zip(ort.lift(*values), reference.lift(*values), strict=True):
                assert np.quantile(np.abs(a - b), 0.99) < 5e-5, "more than 0.05 mm apart"
                assert np.abs(a - b).max() < 1e-3, "a bone of no length turns freely, and rounding turns it"
    assert {p.name for p in tmp_path.iterdir()} == {"bundle"}
    assert b"model.py" not in bundle.file("lifter.onnx").read_bytes(), "paths of this machine"
