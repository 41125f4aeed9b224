"""The target: unlabelled 2D of one camera, checked, with what it says of camera, people and detector."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from poseda_deploy.calibrate import (
    LEAST_FLOOR_M,
    USEFUL_JOINTS,
    Known,
    Lift,
    angle_rad,
    calibrate,
    floor_m,
    up_error_deg,
)
from poseda_deploy.camera import Camera
from poseda_deploy.errors import InputError
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.plausible import check_possible, pixel_doubts
from poseda_deploy.sides import with_sides_put_back

FEWEST = 60
"""Usable people, each in one frame."""
HELD_BLOCK = 40
"""Frames of one person that are held out together, so that a held-out frame is no neighbour of one that was used."""
STILL = 0.002
"""Share of the person's size that joints must move by, at the least, somewhere in the file."""
NOISE_OF_JITTER, STEADY, LARGEST_NOISE = 4.0, 0.0005, 0.02
"""A detector's errors last: MediaPipe's jitter is 0.17 % of the size at 60 fps, its error 0.8 %. Exact 2D of people who
move has 0.05 %."""
SLOWEST_FPS, UNKNOWN_NOISE = 20.0, 0.005
"""Below this rate people's own movement looks like jitter."""
SCALE_ERROR = 0.07
"""Of adults' heights, relative standard deviation, men and women together, and of the estimate."""
MOVED_DEG, WEAK_DEG, MOVED_ROWS = 10.0, 10.0, 600


@dataclass(frozen=True)
class Target2D:
    """People seen by one camera: n rows, one person in one frame each, in order of person and time."""

    name: str
    camera: Camera
    keypoints: Float[np.ndarray, "n 17 3"]
    """Undistorted pixels and score, as the lifter takes them."""
    person: Int[np.ndarray, " n"]
    frame: Int[np.ndarray, " n"]
    fps: float
    up: Float[np.ndarray, "3"]
    """Camera axes, as long as it is sure; zeros before calibration."""
    bones_m: Float[np.ndarray, "p 9"]
    """Of each person, order of BONE_GROUPS; zeros before calibration."""
    scale_from: str = f"the population that the lifter knows: one camera cannot see it, +- {SCALE_ERROR:.0%}"
    warnings: tuple[str, ...] = ()
    """What the user should know."""

    @property
    def rays(self) -> Float[np.ndarray, "n 17 2"]:
        """x/z, y/z; zeros where missing."""
        fx, fy, cx, cy = self.camera.vector
        ray = (self.keypoints[..., :2] - (cx, cy)) / (fx, fy)
        return np.where(self.keypoints[..., 2:] > 0, ray, 0).astype(np.float32)

    @property
    def held_out(self) -> Bool[np.ndarray, " n"]:
        """Every fourth stretch of a person's frames: for the verdict, not for training."""
        rank = np.arange(len(self.person)) - np.searchsorted(self.person, self.person)
        block = HELD_BLOCK if len(rank) >= 8 * HELD_BLOCK else max(len(rank) // 8, 1)
        return (rank // block) % 4 == 3

    def where(self, rows: Bool[np.ndarray, " n"]) -> "Target2D":
        """Some of the rows, with the same calibration."""
        return replace(self, keypoints=self.keypoints[rows], person=self.person[rows], frame=self.frame[rows])

    @property
    def noise(self) -> float:
        """Standard deviation of the detector's error per axis, as a share of the person's size."""
        if self.fps < SLOWEST_FPS:
            return UNKNOWN_NOISE
        return float(np.clip(NOISE_OF_JITTER * (jitter(self) - STEADY), 0, LARGEST_NOISE))

    @property
    def pitch_deg(self) -> float:
        """How far the camera looks down."""
        return float(np.degrees(np.arctan2(-self.up[2], np.hypot(*self.up[:2]))))

    @property
    def roll_deg(self) -> float:
        """How far the picture is turned; the camera's clockwise turn is positive."""
        return float(np.degrees(np.arctan2(-self.up[0], -self.up[1])))

    @property
    def up_error_deg(self) -> float:
        """Standard deviation that the length of `up` stands for, per axis."""
        return up_error_deg(self.up)

    def calibrated(self, lift: Lift, known: Known) -> "Target2D":
        """With up and each person's bone lengths read off the lifter's own poses; what is known is taken into account.

        Proportions are seen, scale is not: a known height of the people, or of the camera, sets it.
        """
        everyone = calibrate(lift, self.keypoints, known)
        of_people = replace(known, up=everyone.up)
        people = range(self.person.max() + 1)
        bones_m = np.stack([calibrate(lift, self.keypoints[self.person == p], of_people).bones_m for p in people])
        found = replace(self, up=everyone.up, bones_m=bones_m)
        if known.up is None:
            found = replace(found, warnings=tilt_warnings(lift, found))
        if known.camera_height_m is not None:
            return scaled_by_floor(lift, found, known)
        if known.person_height_m is not None:
            return replace(found, scale_from=f"--person-height {known.person_height_m:g} m")
        return found


def scaled_by_floor(lift: Lift, target: Target2D, known: Known) -> Target2D:
    """The same, told how sure a scale from the camera's height is; refused where people do not stand below it."""
    people = range(len(target.bones_m))
    mine = [target.keypoints[target.person == p] for p in people]
    floors = [floor_m(lift, rows, target.up, bones) for rows, bones in zip(mine, target.bones_m, strict=True)]
    below_m, away_m = (np.array(numbers) for numbers in zip(*floors, strict=True))
    if (below_m < LEAST_FLOOR_M).any():
        raise InputError(
            f"--camera-height: the floor seems to be {below_m.min():.1f} m below the camera, which must be above it",
            hint="--person-height gives the scale instead",
        )
    error = float(np.radians(target.up_error_deg) * np.median(away_m / below_m))
    scaled = replace(target, scale_from=f"--camera-height {known.camera_height_m:g} m, +- {error:.0%}")
    if known.up is not None or error <= SCALE_ERROR:
        return scaled
    said = f"--camera-height gives the scale to {error:.0%} only: the tilt is an estimate; --up knows it"
    return replace(scaled, warnings=(*scaled.warnings, said))


def jitter(target: Target2D) -> float:
    """Robust deviation of joints from the middle of the frames before and after, as a share of the person's size."""
    xy = target.keypoints
    person, frame = target.person, target.frame
    middle = np.flatnonzero((person[2:] == person[:-2]) & (frame[2:] == frame[:-2] + 2)) + 1
    if not len(middle):
        return 0.0
    off = xy[middle, :, :2] - (xy[middle - 1, :, :2] + xy[middle + 1, :, :2]) / 2
    size = 3 * np.sqrt(np.square(xy[middle, :, :2] - xy[middle, :1, :2]).sum(-1).mean(1))
    seen = (xy[middle - 1, :, 2] > 0) & (xy[middle, :, 2] > 0) & (xy[middle + 1, :, 2] > 0)
    share = np.abs(off / np.maximum(size, 1e-6)[:, None, None])[seen]
    return float(1.4826 * np.median(share) / np.sqrt(1.5)) if len(share) else 0.0


def tilt_warnings(lift: Lift, target: Target2D) -> tuple[str, ...]:
    """A camera that moved, or people who show too little of which way is up."""
    if len(target.keypoints) < MOVED_ROWS:  # a quarter of it would be one posture
        return weak_tilt(target)
    parts = np.array_split(np.arange(len(target.frame))[np.argsort(target.frame, kind="stable")], 4)
    ups = np.stack([calibrate(lift, target.keypoints[rows], Known()).up for rows in parts])
    off_deg = np.degrees(angle_rad(ups, np.repeat(target.up[None], 4, 0)))
    if off_deg.max() <= max(MOVED_DEG, 3 * target.up_error_deg):
        return weak_tilt(target)
    where = f"quarter {int(off_deg.argmax()) + 1} of the file"
    return (
        f"the camera may have moved or the picture been flipped: up is {off_deg.max():.0f} degrees off in {where}",
        *weak_tilt(target),
    )


def weak_tilt(target: Target2D) -> tuple[str, ...]:
    """Where up is little more than a guess."""
    if target.up_error_deg <= WEAK_DEG:
        return ()
    return (f"tilt known to {target.up_error_deg:.0f} degrees only: few upright people; --up gives it",)


def target_2d(keypoints: Keypoints2D, camera: Camera, name: str) -> Target2D:
    """The usable people of a file; refuses what cannot be learnt from, saying why."""
    inputs = keypoints.model_input(camera)
    present = (inputs[..., 2] > 0).sum(-1) >= USEFUL_JOINTS
    slots = np.where(present, np.arange(keypoints.people), -1)
    inputs = with_sides_put_back(inputs, keypoints.time_s, slots)
    person, frame = np.nonzero(present.T)
    people, person = np.unique(person, return_inverse=True)
    rows = inputs[frame, people[person]] if len(person) else np.zeros((0, 17, 3), np.float32)
    check_enough(len(rows), keypoints)
    for doubt in pixel_doubts(keypoints):
        raise InputError(doubt.what, hint=doubt.hint)
    check_possible(keypoints)
    check_moving(rows, person)
    fps = (len(keypoints) - 1) / float(np.ptp(keypoints.time_s)) if len(keypoints) > 1 else 30.0
    unknown = np.zeros(3, np.float32), np.zeros((len(people), 9), np.float32)
    return Target2D(name, camera, rows.astype(np.float32), person, frame, fps, *unknown)


def check_enough(rows: int, keypoints: Keypoints2D) -> None:
    """Calibration takes quantiles and the verdict compares means: both need people."""
    if rows < FEWEST:
        raise InputError(
            f"{rows} usable people in {len(keypoints)} frames; at least {FEWEST} are needed, each with {USEFUL_JOINTS} "
            "joints or more, for lengths and tilt to mean anything",
            hint="10 seconds or more of varied movement; check the scores: 0 means missing",
        )


def check_moving(rows: Float[np.ndarray, "n 17 3"], person: Int[np.ndarray, " n"]) -> None:
    """A still image repeated says nothing that one frame does not."""
    for who in np.unique(person):
        mine = rows[person == who]
        seen = mine[..., 2] > 0
        size_px = np.ptp(mine[0, seen[0], :2], axis=0).max()
        often = seen.sum(0) > 1
        spread_px = np.nanstd(np.where(seen[..., None], mine[..., :2], np.nan)[:, often], axis=0)
        if spread_px.max(initial=0) > STILL * size_px:
            return
    raise InputError("nobody moves: the same frame repeated?", hint="10 seconds or more of varied movement")
