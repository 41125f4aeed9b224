import numpy as np
import pytest
from people import looking_down, walk_m

from poseda_deploy.backend import open_backend, with_camera
from poseda_deploy.bundle import default_bundle_path, load_bundle
from poseda_deploy.calibrate import (
    ANKLE_SHARE,
    EXPECTED_FRAMES,
    MAX_FRAMES,
    Known,
    Lift,
    calibrate,
    estimate_bones,
    estimate_up,
    stature_m,
    thinned,
    unit,
)
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
        found = calibrate(with_camera(backend, camera), walker.model_input(camera)[:, 0], Known())
    assert angle_deg(found.up, rotation[:, 1]) < 8
    true = (np.linalg.norm(BONE_FROM_JOINT @ walk_m(60), axis=-1) @ GROUP_FROM_LENGTH.T).mean(0)
    thigh_shin = found.bones_m[[1, 2]].sum() / true[[1, 2]].sum()
    assert 0.85 < thigh_shin < 1.15


def lift_to(pose_m: np.ndarray, root_m: np.ndarray) -> Lift:
    """Gives these, whatever it is told."""
    return lambda keypoints, up, bones: (pose_m[: len(keypoints)], root_m[: len(keypoints)])


@pytest.fixture
def standing(camera: Camera, walker: Keypoints2D) -> tuple[Lift, np.ndarray]:
    """A lifter that sees a walker whose soles are 1.5 m below a level camera; the walker's keypoints."""
    pose_m = (walk_m(90) - walk_m(90)[:, :1]) * [1, -1, -1]
    lower_m = pose_m[:, [3, 6], 1].max(1)
    soles_m = ANKLE_SHARE * stature_m(estimate_bones(pose_m))
    root_m = np.stack([0 * lower_m, 1.5 - soles_m - lower_m, 0 * lower_m + 4], -1)
    return lift_to(pose_m, root_m), walker.model_input(camera)[:, 0]


LEVEL = np.array([0, -1, 0], np.float32)


def test_expected_lengths_count_as_frames(standing: tuple[Lift, np.ndarray]) -> None:
    lift, keypoints = standing
    alone = calibrate(lift, keypoints, Known(LEVEL))
    expected = np.full(9, 0.3, np.float32)
    begun = calibrate(lift, keypoints, Known(LEVEL, expected))
    np.testing.assert_array_equal(begun.up, LEVEL)
    np.testing.assert_allclose(begun.bones_m, (90 * alone.bones_m + EXPECTED_FRAMES * expected) / 120, rtol=1e-5)


def test_a_known_height_sets_the_scale(standing: tuple[Lift, np.ndarray]) -> None:
    lift, keypoints = standing
    plain = calibrate(lift, keypoints, Known(LEVEL)).bones_m
    child = calibrate(lift, keypoints, Known(LEVEL, person_height_m=1.2)).bones_m
    np.testing.assert_allclose(child, plain * 1.2 / stature_m(plain), rtol=1e-5)
    by_floor = calibrate(lift, keypoints, Known(LEVEL, camera_height_m=3.0)).bones_m
    np.testing.assert_allclose(by_floor, 2 * plain, rtol=1e-4)
    upside_down = calibrate(lift, keypoints, Known(-LEVEL, camera_height_m=3.0)).bones_m
    np.testing.assert_allclose(upside_down, plain, rtol=1e-5, err_msg="no floor below, no scale")


def test_nobody_to_calibrate_on() -> None:
    lift = lambda k, u, b: (np.zeros((len(k), 17, 3)), np.zeros((len(k), 3)))  # noqa: E731
    found = calibrate(lift, np.zeros((20, 17, 3), np.float32), Known())
    assert found.frames == 0 and not found.up.any() and not found.bones_m.any()
