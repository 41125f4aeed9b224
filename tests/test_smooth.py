"""One Euro and the zero-lag kernel on motions whose truth is known."""

import numpy as np
import pytest

from poseda_deploy.runtime.smooth import DEPTH, FILL_S, POSE, RESET_S, LiveSmoother, OneEuro, fillable, smoothed


def test_one_euro_step_by_step() -> None:
    """Against the formula, written out for one number."""
    time_s, x = [0.0, 0.02, 0.05, 0.09], [0.0, 0.1, 0.05, 0.2]
    euro = OneEuro(POSE)
    found = [euro(t, np.array([[v]]))[0, 0] for t, v in zip(time_s, x, strict=True)]
    smooth, speed = x[0], 0.0
    for i in range(1, 4):
        dt = time_s[i] - time_s[i - 1]
        speed += ((x[i] - x[i - 1]) / dt - speed) / (1 + 1 / (2 * np.pi * 1.0 * dt))
        cutoff = 2.0 + 8.0 * abs(speed)
        smooth += (x[i] - smooth) / (1 + 1 / (2 * np.pi * cutoff * dt))
        assert found[i] == pytest.approx(smooth)


def test_a_pose_that_flips_for_a_frame_does_not_open_the_filter() -> None:
    euro, flipped = OneEuro(POSE), np.ones((1, 1))
    for i in range(10):
        euro(i / 60, 0 * flipped)
    assert euro(10 / 60, flipped)[0, 0] < 0.55, "of a step of 1 m, 60 m/s; 0.83 if that counted"


@pytest.fixture
def noisy() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """time, pose, root as lifted, and true pose and root: a person who waves one arm and walks off; uneven steps."""
    random = np.random.default_rng(0)
    time_s = np.cumsum(random.uniform(0.02, 0.05, 150))
    true_pose = np.zeros((150, 17, 3))
    true_pose[:, 13, 1] = 0.4 * np.sin(2 * np.pi * 1.5 * time_s)
    true_root = np.stack([0.1 * time_s, 0 * time_s, 4 + 0.5 * time_s], -1)
    ray = true_root / np.linalg.norm(true_root, axis=-1, keepdims=True)
    root = true_root + random.normal(scale=0.01, size=(150, 3)) + random.normal(scale=0.06, size=(150, 1)) * ray
    return time_s, true_pose + random.normal(scale=0.015, size=true_pose.shape), root, true_pose, true_root


def rms(value: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(value))))


def test_live_is_steadier_at_rest_and_follows_fast_joints(noisy: tuple[np.ndarray, ...]) -> None:
    time_s, pose, root, true_pose, true_root = noisy
    smoother = LiveSmoother()
    rows = [smoother(t, p, r) for t, p, r in zip(time_s.tolist(), pose, root, strict=True)]
    found, found_root = np.stack([p for p, _ in rows])[20:], np.stack([r for _, r in rows])[20:]
    still = [j for j in range(17) if j != 13]
    assert rms((found - true_pose[20:])[:, still]) < 0.6 * rms((pose - true_pose)[:, still])
    swing = np.fft.rfft(true_pose[20:, 13, 1]), np.fft.rfft(found[:, 13, 1])
    lag_s = -np.angle(swing[1] / swing[0])[np.abs(swing[0]).argmax()] / (2 * np.pi * 1.5)
    assert 0 < lag_s < 0.02
    assert rms(np.diff(found_root[:, 2])) < 0.4 * rms(np.diff(root[:, 2]))
    behind_m = true_root[20:, 2] - found_root[:, 2]
    assert 0 < behind_m.mean() < 0.1 and behind_m.std() < 0.6 * (root - true_root)[:, 2].std()


def test_a_long_gap_starts_anew() -> None:
    euro = OneEuro(DEPTH)
    here, there = np.zeros((1, 1)), np.ones((1, 1))
    euro(0.0, here)
    assert euro(RESET_S - 0.01, there)[0, 0] < 1
    assert euro(2 * RESET_S, here)[0, 0] == 0


def test_no_time_between_two_values_changes_nothing() -> None:
    euro = OneEuro(POSE)
    first, second = euro(0.0, np.zeros((1, 1))), euro(0.03, np.ones((1, 1)))
    np.testing.assert_array_equal(euro(0.03, np.full((1, 1), 9.0)), second)
    assert first < second < euro(0.06, np.ones((1, 1))) < 1


def test_zero_lag_has_no_lag_and_half_the_noise(noisy: tuple[np.ndarray, ...]) -> None:
    time_s, pose, root, true_pose, true_root = noisy
    found, found_root = smoothed(time_s, pose, root, time_s)
    inner = slice(10, -10)
    assert rms((found - true_pose)[inner]) < 0.65 * rms(pose - true_pose)
    swing = np.fft.rfft(true_pose[:, 13, 1]), np.fft.rfft(found[:, 13, 1])
    peak = np.abs(swing[0]).argmax()
    assert abs(np.angle(swing[1] / swing[0])[peak]) < 0.02 and abs(swing[1] / swing[0])[peak] > 0.95
    assert rms(found_root[inner, 2] - true_root[inner, 2]) < 0.5 * rms(root[:, 2] - true_root[:, 2])


def test_a_parabola_is_left_as_it_is() -> None:
    time_s = np.sort(np.random.default_rng(0).uniform(0, 2, 60))
    pose = np.zeros((60, 17, 3)) + (time_s**2 - time_s)[:, None, None]
    root = np.stack([0 * time_s, 0 * time_s, 3 + time_s**2], -1)
    found, found_root = smoothed(time_s, pose, root, time_s)
    np.testing.assert_allclose(found, pose, atol=1e-5)
    np.testing.assert_allclose(found_root, root, atol=1e-5)


def test_short_gaps_are_filled_and_long_ones_not_bridged() -> None:
    grid_s = np.arange(90) / 30
    seen = np.ones(90, bool)
    seen[20:24] = False  # 0.17 s from sighting to sighting
    seen[50:60] = False
    time_s = grid_s[seen]
    inside = fillable(time_s, grid_s)
    assert inside[20:24].all() and not inside[50:60].any() and inside.sum() == 80
    pose = np.zeros((len(time_s), 17, 3)) + np.where(time_s > 55 / 30, 5.0, np.sin(3 * time_s))[:, None, None]
    root = np.tile([0.0, 0, 3], (len(time_s), 1))
    found, _ = smoothed(time_s, pose, root, grid_s[inside])
    np.testing.assert_allclose(found[20:24, 0, 0], np.sin(3 * grid_s[20:24]), atol=0.01)
    assert np.abs(found[:50, 0, 0] - np.sin(3 * grid_s[:50])).max() < 0.05, "nothing leaks across a long gap"
    assert found[54:].min() > 4.9


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_few_frames_and_slow_sources_are_left_alone(frames: int) -> None:
    time_s = np.arange(frames) * FILL_S * 1.6
    pose = np.random.default_rng(0).normal(size=(frames, 17, 3))
    root = np.arange(frames)[:, None] + np.array([0.1, 0.2, 3.0])
    found, found_root = smoothed(time_s, pose, root, time_s)
    np.testing.assert_allclose(found, pose, atol=1e-6)
    np.testing.assert_allclose(found_root, root, atol=1e-6)
    np.testing.assert_allclose(smoothed(time_s / 20, pose, root, time_s / 20)[0].shape, pose.shape)
