"""What a camera's own 2D says about it and its people, without labels: which way is up, and how long the bones are.

Both are read off the lifter's own poses: a first lift knows neither, each further one knows the last estimate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from poseda_deploy.metrics import bone_lengths_m
from poseda_deploy.skeleton import BONE_GROUPS, H36M17

Lift = Callable[
    [Float[np.ndarray, "n 17 3"], Float[np.ndarray, "n 3"], Float[np.ndarray, "n 9"]],
    tuple[Float[np.ndarray, "n 17 3"], Float[np.ndarray, "n 3"]],
]
"""(keypoints, up, bones) -> (pose, root) for one camera: a backend with its camera filled in."""

ROUNDS = 2
# The lifter hedges depth, so most of its bones are too short. Over 30 source clips of 10 s in virtual cameras this
# quantile is unbiased: scale 0.999 +- 0.036 of the truth (median 0.963, 0.95 quantile 1.018).
LENGTH_QUANTILE = 0.85
MAX_FRAMES = 2000
MIN_JOINTS = 6  # of 17; fewer is a detector's ghost, not a person, and gets no pose
USEFUL_JOINTS = 8  # of 17; a frame with fewer says little about a body
# How far up is off per axis, at length 1 and at length 0: training gives the lifter up vectors of this kind.
UP_ERROR_RAD = (0.02, 0.32)
# A lean that everybody has does not show as scatter: clips of 10 s with a scatter of 2.4 degrees were 5.5 off.
UNSEEN_LEAN_RAD = 0.05


# Begun from the average adult, two people before four cameras are off by 43 mm after 8 frames instead of 48, by 41.5
# after 60 instead of 42.1, by the same after 300; a third, real one by the same, his pelvis by 166 mm instead of 181.
EXPECTED_FRAMES = 30
ANKLE_SHARE = 0.039
"""Height of the ankles above the soles, of a person's height (Winter)."""
CHAIN_SHARE = 0.885
"""Ankle to ears of a person's height: ears are 0.075 below the crown."""
# 156 rendered clips of 80 frames, MediaPipe's 2D: half of the estimates of up are within 7 degrees, 91 % within 15 or
# three of their own deviations; in the rest people crawl, lie or fall throughout.
FAR_UP_DEG, FAR_UP_SIGMAS, FAR_UP_ROWS = 15.0, 3.0, 60
LEAST_FLOOR_M = 0.3
"""Below the camera; nearer, the floor is none."""


@dataclass(frozen=True)
class Known:
    """What is known of a camera and its people before anything is seen; None = nothing."""

    up: Float[np.ndarray, "3"] | None = None
    """Taken as it is."""
    bones_m: Float[np.ndarray, "9"] | None = None
    """Lengths to expect; what is seen of a person counts against it as frames against EXPECTED_FRAMES."""
    person_height_m: float | None = None
    """Of everybody; sets the scale."""
    camera_height_m: float | None = None
    """Above the floor that people stand on; sets the scale."""
    up_from: Literal["--up", "bundle"] = "--up"
    """Who says `up`: the user's holds, a bundle's only where people stand as it says."""


@dataclass(frozen=True)
class Calibration:
    """Estimates for one camera and one person; zeros where unknown."""

    up: Float[np.ndarray, "3"]
    """Pointing up, camera axes; length 1 = sure, shorter = less, 0 = unknown."""
    bones_m: Float[np.ndarray, "9"]
    """Lengths in metres in the order of BONE_GROUPS."""
    up_spread_deg: float
    """Scatter of the single-frame estimates of up; above about 15 the estimate is weak."""
    frames: int
    """Frames used."""


def calibrate(lift: Lift, keypoints: Float[np.ndarray, "n 17 3"], known: Known) -> Calibration:
    """Estimate from one person's keypoints what is not known of up and bones."""
    useful = keypoints[(keypoints[..., 2] > 0).sum(1) >= USEFUL_JOINTS]
    some, spread_deg = thinned(useful), 0.0
    up = np.zeros(3, np.float32) if known.up is None else known.up
    bones_m = expected_bones_m(known)
    for _ in range((ROUNDS if known.up is None else 1) if len(some) else 0):
        if known.up is None:
            up, spread_deg = estimate_up(lift(some, tiled(up, some), tiled(bones_m, some))[0])
        bones_m = person_bones_m(lift, some, up, known, len(useful))
    return Calibration(up, bones_m, spread_deg, len(some))


def contradicted_deg(lift: Lift, keypoints: Float[np.ndarray, "n 17 3"], known: Known) -> float:
    """How far a bundle's up is from the one that these people show, in degrees; 0 where that is not clearly far."""
    useful = thinned(keypoints[(keypoints[..., 2] > 0).sum(1) >= USEFUL_JOINTS])
    if known.up is None or known.up_from != "bundle" or len(useful) < FAR_UP_ROWS:
        return 0.0
    seen, bones_m = np.zeros(3, np.float32), tiled(expected_bones_m(known), useful)
    for _ in range(ROUNDS):
        seen, _ = estimate_up(lift(useful, tiled(seen, useful), bones_m)[0])
    off_deg = float(np.degrees(angle_rad(seen[None], known.up[None]))[0])
    doubt_deg = FAR_UP_SIGMAS * max(up_error_deg(seen), up_error_deg(known.up))
    return off_deg if off_deg > max(FAR_UP_DEG, doubt_deg) else 0.0


def without_scene(known: Known) -> Known:
    """What is left of a bundle's knowledge before another camera, or after it was moved: the lengths to expect."""
    return Known(bones_m=known.bones_m)


def up_error_deg(up: Float[np.ndarray, "3"]) -> float:
    """Standard deviation that the length of an up vector stands for, per axis."""
    sure = min(float(np.linalg.norm(up)), 1.0)
    return float(np.degrees(UP_ERROR_RAD[0] * sure + UP_ERROR_RAD[1] * (1 - sure)))


def expected_bones_m(known: Known) -> Float[np.ndarray, "9"]:
    """Of somebody who has not been seen; zeros = unknown."""
    return np.zeros(9, np.float32) if known.bones_m is None else known.bones_m


def person_bones_m(
    lift: Lift, keypoints: Float[np.ndarray, "n 17 3"], up: Float[np.ndarray, "3"], known: Known, frames: int
) -> Float[np.ndarray, "9"]:
    """Lengths of one person, from a sample of the `frames` in which the person was seen."""
    seen_m = estimate_bones(lifted_without_bones(lift, keypoints, up))
    share = 1.0 if known.bones_m is None else frames / (frames + EXPECTED_FRAMES)
    bones_m = (share * seen_m + (1 - share) * expected_bones_m(known)).astype(np.float32)
    return bones_m * np.float32(scale_of(lift, keypoints, up, bones_m, known))


def scale_of(
    lift: Lift,
    keypoints: Float[np.ndarray, "n 17 3"],
    up: Float[np.ndarray, "3"],
    bones_m: Float[np.ndarray, "9"],
    known: Known,
) -> float:
    """True lengths over estimated ones, as a known height says; 1 where none is, or no floor is below the camera."""
    if known.person_height_m is not None:
        return known.person_height_m / stature_m(bones_m)
    if known.camera_height_m is not None:
        below_m, _ = floor_m(lift, keypoints, up, bones_m)
        return known.camera_height_m / below_m if below_m >= LEAST_FLOOR_M else 1.0
    return 1.0


def stature_m(bones_m: Float[np.ndarray, "9"]) -> float:
    """Height of a person with these bone lengths, from soles to crown."""
    chain = ("shin", "thigh", "pelvis_spine", "spine_thorax", "thorax_head")
    return float(sum(bones_m[BONE_GROUPS.index(name)] for name in chain)) / CHAIN_SHARE


def floor_m(
    lift: Lift, keypoints: Float[np.ndarray, "n 17 3"], up: Float[np.ndarray, "3"], bones_m: Float[np.ndarray, "9"]
) -> tuple[float, float]:
    """How far below the camera one person's soles are, and how far away the ankles: medians over the frames."""
    pose_m, root_m = lift(keypoints, tiled(up, keypoints), tiled(bones_m, keypoints))
    ankles_m = (pose_m + root_m[:, None])[:, [H36M17.index(f"{side}_ankle") for side in ("left", "right")]]
    lower_m = -(ankles_m @ unit(up)).min(1)
    away_m = np.linalg.norm(ankles_m, axis=-1).mean(1)
    return float(np.median(lower_m)) + ANKLE_SHARE * stature_m(bones_m), float(np.median(away_m))


def thinned(keypoints: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "m 17 3"]:
    """At most MAX_FRAMES, evenly spread."""
    step = -(-len(keypoints) // MAX_FRAMES) or 1
    return keypoints[::step]


class RunningSample:
    """Evenly thinned keypoints of a stream without end, and when an estimate from them is worth making again.

    Estimates from 128 rows are as good as from 2000: over 8 source clips in 2 virtual cameras with a detector's noise
    the error after 10 s was 55.6 mm against 55.9; from the first 8 frames alone 57.5, with unknown bones 68.2.
    """

    CAPACITY = 128
    FIRST = 8
    GROWTH = 1.5

    def __init__(self) -> None:
        self._rows: list[Float[np.ndarray, "17 3"]] = []
        self._seen, self._stride, self._due = 0, 1, self.FIRST

    def add(self, keypoints: Float[np.ndarray, "17 3"]) -> None:
        """Offer one frame; those that say little about a body are passed over."""
        if (keypoints[:, 2] > 0).sum() < USEFUL_JOINTS:
            return
        if self._seen % self._stride == 0:
            self._rows.append(keypoints)
        self._seen += 1
        if len(self._rows) > self.CAPACITY:
            self._rows = self._rows[::2]
            self._stride *= 2

    @property
    def frames(self) -> int:
        """Useful frames so far."""
        return self._seen

    @property
    def is_due(self) -> bool:
        """Whether the stream has grown by half since the last estimate."""
        return self._seen >= self._due

    def ask_again(self) -> None:
        """An estimate is due now: what the last one was for has changed."""
        self._due = 0

    def take(self) -> Float[np.ndarray, "n 17 3"]:
        """The rows for an estimate made now."""
        self._due = int(np.ceil(self._seen * self.GROWTH))
        return np.stack(self._rows)


def lifted_without_bones(
    lift: Lift, keypoints: Float[np.ndarray, "n 17 3"], up: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "n 17 3"]:
    """Poses to read lengths off, or up: the lifter's own idea of the lengths."""
    return lift(keypoints, tiled(up, keypoints), np.zeros((len(keypoints), 9), np.float32))[0]


def tiled(vector: Float[np.ndarray, " k"], rows: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n k"]:
    """The vector once per row."""
    return np.repeat(vector[None].astype(np.float32), len(rows), 0)


def estimate_up(pose: Float[np.ndarray, "n 17 3"]) -> tuple[Float[np.ndarray, "3"], float]:
    """Robust mean of the body axes (ankles to thorax) of upright people, as long as it is sure; its scatter in degrees.

    A plain mean is 13 to 34 degrees off where people crouch; weighted by how straight they stand it is 1 to 3.
    """
    axis = unit(_joint(pose, "thorax") - (_joint(pose, "left_ankle") + _joint(pose, "right_ankle")) / 2)
    bend = bend_rad(pose)
    tolerance = max(np.radians(15), float(np.quantile(bend, 0.15)))
    straight = np.exp(-((bend / tolerance) ** 2)) + 1e-9
    weight = straight
    for _ in range(10):
        up = unit((axis * weight[:, None]).sum(0))
        off_rad = np.arccos(np.clip(axis @ up, -1, 1))
        weight = straight / (1 + (off_rad / 0.2) ** 2)
    spread_rad = float(np.sqrt((weight * off_rad**2).sum() / weight.sum()))
    error_rad = np.hypot(spread_rad, UNSEEN_LEAN_RAD)
    sure = np.clip((UP_ERROR_RAD[1] - error_rad) / (UP_ERROR_RAD[1] - UP_ERROR_RAD[0]), 0, 1)
    return (up * sure).astype(np.float32), float(np.degrees(spread_rad))


def bend_rad(pose: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, " n"]:
    """Root mean square deviation of both knees and both hips from straight."""
    trunk = _joint(pose, "thorax") - _joint(pose, "pelvis")
    angles = []
    for side in ("left", "right"):
        thigh = _joint(pose, f"{side}_knee") - _joint(pose, f"{side}_hip")
        shin = _joint(pose, f"{side}_ankle") - _joint(pose, f"{side}_knee")
        angles += [angle_rad(thigh, shin), angle_rad(-trunk, thigh)]
    return np.sqrt(np.mean(np.square(angles), axis=0))


def estimate_bones(pose: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "9"]:
    """0.85 quantile of the lengths that the lifter gives when it knows none, left and right pooled."""
    return np.quantile(bone_lengths_m(pose), LENGTH_QUANTILE, axis=0).astype(np.float32)


def angle_rad(a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Angle between vectors, 0..pi."""
    return np.arccos(np.clip((unit(a) * unit(b)).sum(-1), -1, 1))


def unit(vector: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
    """Length 1; zero stays zero."""
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-9)


def _joint(pose: Float[np.ndarray, "n 17 3"], name: str) -> Float[np.ndarray, "n 3"]:
    return pose[:, H36M17.index(name)]
