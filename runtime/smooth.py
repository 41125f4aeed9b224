"""Steadier people over time, by their true time stamps: One Euro as the frames come, a zero-lag kernel for whole clips.

The pelvis is filtered along its ray and across separately, because depth is four times noisier: filtered as x, y, z it
gained a third as much. In virtual cameras with a detector's noise the absolute error of the pelvis is 64.9 mm raw, 53.2
with One Euro, 43.6 without lag; that of the pose 50.3, 47.9 and 46.0 (`benchmarks/smoothing.py ... error`).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from poseda_deploy.calibrate import unit

RESET_S = 0.5
"""A live filter starts anew after a longer time without its person."""
FILL_S = 0.2
"""Gaps up to this long, from sighting to sighting, are filled in clips; across longer ones nothing is smoothed."""
POSE_WIDTH_S = 0.06
"""Standard deviation of the kernel for pose and direction: half power at 4 Hz."""
DEPTH_WIDTH_S = 0.4
REACH = 3.0
"""In standard deviations: the kernel ends here, 0.18 s (depth: 1.2 s) into the future."""


@dataclass(frozen=True)
class OneEuroConfig:
    """Parameters of Casiez et al., "1 EUR Filter", CHI 2012."""

    min_cutoff_hz: float
    """For a point at rest: lower = steadier."""
    beta_per_m: float
    """Hz more per m/s of speed: higher = less lag."""
    speed_cutoff_hz: float = 1.0


# The pair with the least error of 12 tried in virtual cameras. Four real clips (`benchmarks/smoothing.py ... jitter`):
# slow joints shake 7 to 26 mm, not 13 to 41, fast ones lag 7 to 13 ms; MediaPipe's own filter: 9 to 32 and 6 to 16.
POSE = OneEuroConfig(2.0, 8.0)
DEPTH = OneEuroConfig(0.5, 1.0)  # a third of the jitter; 84 ms behind somebody who walks towards the camera
FASTEST_M_S = 8.0  # a wrist that throws; lifted poses that flip for a frame are faster, and would open the filter


class OneEuro:
    """One Euro filter of points that move together in time but each at its own speed.

    x' = x' + a(f) (x - x') with a(f) = 1 / (1 + 1 / (2 pi f dt)), f = min_cutoff + beta |v|, and v the speed of x,
    itself filtered with a(speed_cutoff), as in the paper. |v| is taken over the coordinates of a point. Unlike there,
    no single step counts as faster than FASTEST_M_S: in a fifth clip, with flips, jitter fell from 96 to 58 mm.
    """

    def __init__(self, config: OneEuroConfig) -> None:
        self._config = config
        self._last_s = -math.inf
        self._raw = self._smooth = self._speed = np.zeros((0, 0))

    def __call__(self, time_s: float, value: Float[np.ndarray, "k d"], unit_m: float = 1.0) -> Float[np.ndarray, "k d"]:
        """The filtered points; `unit_m` is how many metres one unit of them is, for the speed."""
        step_s, self._last_s = time_s - self._last_s, max(time_s, self._last_s)
        if step_s > RESET_S:
            self._raw = self._smooth = value.astype(np.float64)
            self._speed = np.zeros_like(self._raw)
            return value
        if step_s <= 0:  # no time to move in
            return self._smooth.astype(value.dtype)
        share = _share(np.full((1, 1), self._config.speed_cutoff_hz), step_s)
        step = (value - self._raw) / step_s
        step *= np.minimum(1, FASTEST_M_S / np.maximum(_length(step) * unit_m, 1e-9))
        self._speed = self._speed + share * (step - self._speed)
        fast_m_s = _length(self._speed) * unit_m
        cutoff_hz = self._config.min_cutoff_hz + self._config.beta_per_m * fast_m_s
        self._raw = value.astype(np.float64)
        self._smooth = self._smooth + _share(cutoff_hz, step_s) * (value - self._smooth)
        return self._smooth.astype(value.dtype)


def _share(cutoff_hz: Float[np.ndarray, "k 1"], step_s: float) -> Float[np.ndarray, "k 1"]:
    return 1 / (1 + 1 / (2 * np.pi * cutoff_hz * step_s))


def _length(vector: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "k 1"]:
    return np.linalg.norm(vector, axis=-1, keepdims=True)


class LiveSmoother:
    """One Euro for one person: pose, direction of the pelvis, and its distance."""

    def __init__(self) -> None:
        self._pose, self._direction, self._depth = OneEuro(POSE), OneEuro(POSE), OneEuro(DEPTH)

    def __call__(
        self, time_s: float, pose_m: Float[np.ndarray, "17 3"], root_m: Float[np.ndarray, "3"]
    ) -> tuple[Float[np.ndarray, "17 3"], Float[np.ndarray, "3"]]:
        """Pose and root of this moment; one that is not later than the moment before changes nothing."""
        depth_m = np.linalg.norm(root_m[None], axis=-1, keepdims=True)
        direction = self._direction(time_s, unit(root_m)[None], float(depth_m[0, 0]))
        root = unit(direction)[0] * self._depth(time_s, depth_m)[0, 0]
        return self._pose(time_s, pose_m), root.astype(root_m.dtype)


def smoothed(
    time_s: Float[np.ndarray, " n"],
    pose_m: Float[np.ndarray, "n 17 3"],
    root_m: Float[np.ndarray, "n 3"],
    at_s: Float[np.ndarray, " m"],
) -> tuple[Float[np.ndarray, "m 17 3"], Float[np.ndarray, "m 3"]]:
    """One person's pose and root at other times, without lag; n >= 1, times increase.

    At each moment a parabola is fitted to the frames around it with Gaussian weights (local quadratic regression;
    Savitzky-Golay for uneven steps): it follows accelerations, needs no even frame rate and fills gaps by itself.
    """
    stretch, wanted = _stretches(time_s, time_s), _stretches(time_s, at_s)
    pose = np.zeros((len(at_s), 17, 3), np.float32)
    root = np.zeros((len(at_s), 3), np.float32)
    for which in range(stretch[-1] + 1):
        here, there = stretch == which, wanted == which
        pose[there] = _local(time_s[here], pose_m[here].reshape(-1, 51), at_s[there], POSE_WIDTH_S).reshape(-1, 17, 3)
        depth_m = np.linalg.norm(root_m[here], axis=-1, keepdims=True)
        direction = _local(time_s[here], unit(root_m[here]), at_s[there], POSE_WIDTH_S)
        root[there] = unit(direction) * _local(time_s[here], depth_m, at_s[there], DEPTH_WIDTH_S)
    return pose, root


def fillable(time_s: Float[np.ndarray, " n"], at_s: Float[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """Which moments are sightings or lie in a gap of at most FILL_S between two of them."""
    before = np.searchsorted(time_s, at_s, side="right") - 1
    inside = (before >= 0) & (at_s <= time_s[-1])
    start_s, end_s = time_s[before], time_s[np.minimum(before + 1, len(time_s) - 1)]
    return inside & ((at_s == start_s) | (end_s - start_s <= FILL_S + 1e-6))


def _stretches(time_s: Float[np.ndarray, " n"], at_s: Float[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """Number of the stretch without a long gap in which each moment lies."""
    starts_s = time_s[np.flatnonzero(np.diff(time_s, prepend=-np.inf) > FILL_S + 1e-6)]
    return np.searchsorted(starts_s, at_s, side="right") - 1


def _local(
    time_s: Float[np.ndarray, " n"],
    value: Float[np.ndarray, "n d"],
    at_s: Float[np.ndarray, " m"],
    width_s: float,
) -> Float[np.ndarray, "m d"]:
    """Local quadratic regression; few samples give a line or a point."""
    parts = [at_s[i : i + 1024] for i in range(0, len(at_s), 1024)]  # a part's windows take 10 to 20 MB
    return np.concatenate([_local_part(time_s, value.astype(np.float64), part, width_s) for part in parts])


def _local_part(
    time_s: Float[np.ndarray, " n"],
    value: Float[np.ndarray, "n d"],
    at_s: Float[np.ndarray, " m"],
    width_s: float,
) -> Float[np.ndarray, "m d"]:
    first = np.searchsorted(time_s, at_s - REACH * width_s)
    end = np.searchsorted(time_s, at_s + REACH * width_s, side="right")
    index = first[:, None] + np.arange((end - first).max())
    inside, index = index < end[:, None], np.minimum(index, len(time_s) - 1)
    offset = np.where(inside, (time_s[index] - at_s[:, None]) / width_s, 0)
    weight = np.exp(-(offset**2) / 2) * inside
    powers = np.stack([np.ones_like(offset), offset, offset**2], -1)
    normal = np.einsum("mk,mki,mkj->mij", weight, powers, powers)
    kernel = np.einsum("mi,mki,mk->mk", np.linalg.pinv(normal, rcond=1e-9, hermitian=True)[:, 0], powers, weight)
    return np.einsum("mk,mkd->md", kernel, value[index])
