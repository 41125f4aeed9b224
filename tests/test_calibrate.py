import numpy as np
import pytest
from people import looking_down, walk_m

from poseda_deploy.backend import open_backend, with_camera
from poseda_deploy.bundle import default_bundle_path, load_bundle
from poseda_deploy.calibrate import MAX_FRAMES, calibrate, estimate_bones, estimate_up, thinned, unit
from poseda_deploy.camera import Camera
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.skeleton import BONE_FROM_JOINT, GROUP_FROM_LENGTH


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(unit(a) @ unit(b), -1, 1))))


@pytest.mark.parametrize("pitch_rad", [-0.2, 0.0, 0.4, 0.9])
def test_up_from_true_poses(pitch_rad: float) -> None:
    rotation, _ = looking_down(pitch_rad)
    up, spread_deg = estimate_up(walk_m(90) @ rotation.T)
    assert angle_deg(up, rotation[:, 1]) < 3
    assert 0.8 < np.linalg.norm(up) <= 1 and spread_deg < 5


def test_up_is_not_fooled_by_people_on_the_floor() -> None:
    rotation, _ = looking_down(0.3)
    walking = walk_m(90)
    lying = walking[:30] @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    up, spread_deg = estimate_up(np.concatenate([walking, lying]) @ rotation.T)
    assert angle_deg(up, rotation[:, 1]) < 4
    assert spread_deg > estimate_up(walking @ rotation.T)[1]


def test_scattered_bodies_make_a_short_up() -> None:
    random = np.random.default_rng(0)
    rotation = [np.linalg.qr(random.normal(size=(3, 3)))[0] for _ in range(60)]
    poses = np.stack([pose @ r for pose, r in zip(walk_m(60), rotation, strict=True)])
    assert np.linalg.norm(estimate_up(poses)[0]) < 0.2


def test_bones_of_rigid_people_are_their_lengths() -> None:
    pose = walk_m(60)
    true = (np.linalg.norm(BONE_FROM_JOINT @ pose, axis=-1) @ GROUP_FROM_LENGTH.T).mean(0)
    np.testing.assert_allclose(estimate_bones(pose), true, rtol=0.02)


def test_long_footage_is_thinned_evenly() -> None:
    rows = np.zeros((MAX_FRAMES * 3 + 5, 17, 3))
    assert MAX_FRAMES * 0.7 < len(thinned(rows)) <= MAX_FRAMES
    assert len(thinned(rows[:10])) == 10


def test_the_shipped_lifter_calibrates_a_camera_it_never_saw(walker: Keypoints2D, camera: Camera) -> None:
    bundle = load_bundle(default_bundle_path())
    rotation, _ = looking_down(0.2)
    with open_backend(bundle, "ort-cpu") as backend:
        found = calibrate(with_camera(backend, camera), walker.model_input(camera)[:, 0])
    assert angle_deg(found.up, rotation[:, 1]) < 8
    true = (np.linalg.norm(BONE_FROM_JOINT @ walk_m(60), axis=-1) @ GROUP_FROM_LENGTH.T).mean(0)
    thigh_shin = found.bones_m[[1, 2]].sum() / true[[1, 2]].sum()
    assert 0.85 < thigh_shin < 1.15


def test_given_values_are_kept(walker: Keypoints2D, camera: Camera) -> None:
    up, bones_m = np.array([0, -1, 0], np.float32), np.full(9, 0.3, np.float32)
    lift = lambda k, u, b: (np.zeros((len(k), 17, 3)), np.zeros((len(k), 3)))  # noqa: E731
    found = calibrate(lift, walker.model_input(camera)[:, 0], up, bones_m)
    np.testing.assert_array_equal(found.up, up)
    np.testing.assert_array_equal(found.bones_m, bones_m)


def test_nobody_to_calibrate_on() -> None:
    lift = lambda k, u, b: (np.zeros((len(k), 17, 3)), np.zeros((len(k), 3)))  # noqa: E731
    found = calibrate(lift, np.zeros((20, 17, 3), np.float32))
    assert found.frames == 0 and not found.up.any() and not found.bones_m.any()
