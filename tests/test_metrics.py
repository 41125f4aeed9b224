"""Metrics against answers worked out by hand, and the properties that their names promise."""

import numpy as np
import pytest
from people import turned, walk_m

from poseda_deploy import metrics
from poseda_deploy.skeleton import BONE_GROUPS, H36M17


def points(*xyz: tuple[float, float, float]) -> np.ndarray:
    """One frame (1,J,3)."""
    return np.array([xyz], float)


def similar(pose_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each frame turned, scaled and moved at random."""
    turn, _ = np.linalg.qr(rng.normal(size=(len(pose_m), 3, 3)))
    turn *= np.sign(np.linalg.det(turn))[:, None, None]
    scale = rng.uniform(0.2, 5, (len(pose_m), 1, 1))
    return scale * pose_m @ turn + rng.normal(size=(len(pose_m), 1, 3))


def test_mpjpe_is_the_distance() -> None:
    error_mm = metrics.mpjpe_mm(points((0, 0, 0), (0.03, 0.04, 1)), points((0, 0, 0), (0, 0, 1)))
    np.testing.assert_allclose(error_mm, [[0, 50]])


def test_the_root_is_one_joint_of_the_mean() -> None:
    error_mm = np.array([[0.0, 30.0, 60.0]])
    assert error_mm.mean() == 30 and metrics.without_joint(error_mm, 0).mean() == 45


def test_root_relative() -> None:
    np.testing.assert_allclose(metrics.root_relative(points((1, 2, 3), (2, 2, 2)), root=1)[0, 0], (-1, 0, 1))


def test_n_mpjpe_by_hand() -> None:
    """<pose, true> / <pose, pose> = 2, and 1 m is left across."""
    error_mm = metrics.n_mpjpe_mm(points((0, 0, 0), (1, 0, 0)), points((0, 0, 0), (2, 1, 0)))
    np.testing.assert_allclose(error_mm, [[0, 1000]])


def test_p_mpjpe_by_hand() -> None:
    """A rod of half the length beside a bent one: scale 2, no turn, and the bend of 0.3 m is shared out."""
    true_m = points((-2, 0, 0), (0, 0.3, 0), (2, 0, 0))
    for rod_m in (points((-1, 0, 0), (0, 0, 0), (1, 0, 0)), points((7, 7, -1), (7, 7, 0), (7, 7, 1))):
        np.testing.assert_allclose(metrics.p_mpjpe_mm(rod_m, true_m), [[100, 200, 100]], atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_p_mpjpe_sees_no_similarity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true_m = walk_m(20)
    pose_m = true_m + rng.normal(size=true_m.shape) * 0.05
    assert metrics.p_mpjpe_mm(similar(true_m, rng), true_m).max() < 1e-6
    once, again = metrics.p_mpjpe_mm(pose_m, true_m), metrics.p_mpjpe_mm(similar(pose_m, rng), true_m)
    np.testing.assert_allclose(again, once, atol=1e-6)
    assert (once**2).mean() <= (metrics.mpjpe_mm(pose_m, true_m) ** 2).mean()


def test_p_mpjpe_does_not_mirror() -> None:
    true_m = walk_m(20)
    assert metrics.p_mpjpe_mm(true_m * (-1, 1, 1), true_m).mean() > 5


@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
def test_n_mpjpe_sees_no_scale(scale: float) -> None:
    true_m = metrics.root_relative(walk_m(20))
    pose_m = turned(true_m, np.full(20, 0.3))
    np.testing.assert_allclose(
        metrics.n_mpjpe_mm(scale * pose_m, true_m), metrics.n_mpjpe_mm(pose_m, true_m), atol=1e-6
    )
    assert metrics.n_mpjpe_mm(scale * true_m, true_m).max() < 1e-6


def test_pck_is_strict() -> None:
    np.testing.assert_array_equal(metrics.pck_percent(np.array([[0, 149.999, 150, 151]])), [[100, 100, 0, 0]])


def test_auc_counts_31_limits_strictly() -> None:
    """Error 0 is below 30 of 0, 5, ..., 150; 5 below 29; 6 too; 150 below none."""
    np.testing.assert_allclose(metrics.auc_percent(np.array([[0, 5, 6, 150.0]])) * 31 / 100, [[30, 29, 29, 0]])


def test_velocity_leaves_out_the_cut() -> None:
    """10 mm a frame against a truth that stands still, with a jump of 9 m between two runs."""
    pose_m = np.zeros((5, 2, 3))
    pose_m[:, 1, 0] = [0, 0.01, 0.02, 9, 9.01]
    error_mm = metrics.velocity_error_mm(pose_m, np.zeros((5, 2, 3)), np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(error_mm, [[0, 10]] * 3)


def test_velocity_sees_no_constant_offset() -> None:
    true_m = walk_m(10)
    assert metrics.velocity_error_mm(true_m + 0.4, true_m, np.zeros(10, int)).max() < 1e-9


def test_root_error_is_absolute() -> None:
    np.testing.assert_allclose(metrics.root_error_mm(np.array([[0, 0, 4.0]]), np.array([[0.3, 0.4, 4.0]])), [500])


def test_bones_that_breathe() -> None:
    """Both ankles 10 mm up and down about 0.42 m, the neck unknown: only the shins drift, by 10 mm."""
    pose_m = np.repeat(walk_m(1), 4, 0)
    for side in ("left", "right"):
        knee, ankle = (pose_m[:, H36M17.index(f"{side}_{joint}")] for joint in ("knee", "ankle"))
        away = (ankle - knee) / np.linalg.norm(ankle - knee, axis=-1, keepdims=True)
        ankle += away * 0.01 * np.array([1, -1, 1, -1])[:, None]
    pose_m[:, H36M17.index("neck")] = np.nan
    drift_mm = dict(zip(BONE_GROUPS, metrics.bone_drift_mm(pose_m), strict=True))
    assert drift_mm.pop("shin") == pytest.approx(10)
    assert max(drift_mm.values()) < 1e-6


def test_bone_lengths_of_the_walker() -> None:
    length_m = dict(zip(BONE_GROUPS, metrics.bone_lengths_m(walk_m(3)).T, strict=True))
    for bone, expected_m in (("hip", 0.1), ("thigh", 0.42), ("shin", 0.42), ("forearm", np.hypot(0.25, 0.01))):
        np.testing.assert_allclose(length_m[bone], expected_m, atol=1e-9)


def test_interval_of_two_sequences() -> None:
    """Drawn again: both of one, of the other, or one each; so from 0 to 1, however many frames each has."""
    for frames in (1, 100):
        value, sequence = np.repeat([0.0, 1.0], frames), np.repeat([3, 8], frames)
        assert metrics.bootstrap_interval(value, sequence) == (0, 1)


def test_interval_is_seeded_and_holds_the_mean() -> None:
    rng = np.random.default_rng(0)
    sequence = np.arange(400) // 10
    value = rng.normal(50, 2, 40)[sequence] + rng.normal(size=400)
    low, high = metrics.bootstrap_interval(value, sequence, seed=1)
    assert (low, high) == metrics.bootstrap_interval(value, sequence, seed=1)
    assert (low, high) != metrics.bootstrap_interval(value, sequence, seed=2)
    assert low < value.mean() < high
    assert 2 * 1.96 * 2 / np.sqrt(40) == pytest.approx(high - low, rel=0.35), "two standard errors of 40 sequences"


def test_one_sequence_has_no_interval() -> None:
    assert np.isnan(metrics.bootstrap_interval(np.arange(9.0), np.zeros(9, int))).all()
