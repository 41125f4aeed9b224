"""People as motion files want them: each alone, at a constant rate, in a world that gravity has put upright."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float, Int

from poseda_deploy.poses import Poses3D

from .draw import world_axes
from .rates import exact_fps

Array = np.ndarray
STAMP_S = 0.0015
"""How far time stamps of a constant rate may scatter: many containers round to 1 ms."""
LONGEST_STEP_S, LONGEST_STEP_FRAMES = 0.2, 2.5
"""Between two sightings, where the rate varies or frames were dropped; what is further apart, as after an outage, is a
gap."""


@dataclass(frozen=True)
class Take:
    """One person from the first frame with the person to the last."""

    person: int
    fps: Fraction
    first_frame: int
    """As in the table; where that was resampled, time times rate."""
    start_s: float
    joints_m: Float[Array, "t 17 3"]
    """Right-handed: x right, y up, z backward, origin at the camera. NaN in frames without the person."""

    @property
    def time_s(self) -> Float[Array, " t"]:
        """Of every frame."""
        return self.start_s + np.arange(len(self.joints_m)) / float(self.fps)

    @property
    def held_m(self) -> Float[Array, "t 17 3"]:
        """Gaps filled with what was there last, for formats that know no gaps."""
        known = np.isfinite(self.joints_m).all((1, 2))
        last = np.maximum.accumulate(np.where(known, np.arange(len(known)), known.argmax()))
        return self.joints_m[last]


def upright_axes(up: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Rows x, y, z of a Take's world in camera axes; `up` as of world_axes, whose axes are left-handed."""
    return world_axes(np.asarray(up, float)) * [[1.0], [1.0], [-1.0]]


def takes(poses: Poses3D, up: Float[Array, "3"]) -> list[Take]:
    """Everybody, in order of identity; whoever has no finite row is left out."""
    steady, fps, _ = at_constant_rate(poses)
    joints_m = steady.joints_m @ upright_axes(up).T
    finite = np.isfinite(joints_m).all((1, 2))
    found = []
    for who in np.unique(steady.person[finite]).tolist():
        mine = finite & (steady.person == who)
        frame = steady.frame[mine]
        every = np.full((frame[-1] - frame[0] + 1, 17, 3), np.nan)
        every[frame - frame[0]] = joints_m[mine]
        found.append(Take(who, fps, int(frame[0]), float(steady.time_s[mine][0]), every))
    return found


def at_constant_rate(poses: Poses3D) -> tuple[Poses3D, Fraction, bool]:
    """The table, its rate, and whether it was resampled (linearly): its time stamps have no constant one, or frames are
    missing from it, as a live run drops them."""
    frame, first = np.unique(poses.frame, return_index=True)
    time_s = poses.time_s[first]
    if len(frame) < 2 or time_s[-1] <= time_s[0]:
        return poses, Fraction(30), False
    mean = float((frame[-1] - frame[0]) / (time_s[-1] - time_s[0]))
    whole = Fraction(max(1, round(mean)))
    ntsc = Fraction(max(1, round(mean * 1.001)) * 1000, 1001)
    scatter_s, fps = min((_scatter_s(frame, time_s, fps), fps) for fps in (whole, ntsc, exact_fps(mean)) if fps > 0)
    longest_s = max(LONGEST_STEP_S, LONGEST_STEP_FRAMES / mean)
    dropped = (np.diff(frame) > 1) & (np.diff(time_s) <= longest_s)
    if scatter_s <= STAMP_S and not dropped.any():
        return poses, fps, False
    people = [_resampled(_rows(poses, poses.person == who), whole, longest_s) for who in np.unique(poses.person)]
    columns = [np.concatenate(parts) for parts in zip(*(_columns(part) for part in people), strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    return Poses3D(*(column[order] for column in columns)), whole, True


def _scatter_s(frame: Int[Array, " t"], time_s: Float[Array, " t"], fps: Fraction) -> float:
    return float(np.ptp(time_s - frame / float(fps)))


def _columns(poses: Poses3D) -> tuple[Array, ...]:
    return poses.frame, poses.person, poses.time_s, poses.pose_m, poses.root_m, poses.score


def _rows(poses: Poses3D, which: Array) -> Poses3D:
    return Poses3D(*(column[which] for column in _columns(poses)))


def _resampled(one: Poses3D, fps: Fraction, longest_s: float) -> Poses3D:
    """One person at multiples of 1/fps, between rows at most `longest_s` apart; the score is the lower one."""
    rate, time_s = float(fps), one.time_s
    slot = np.arange(np.ceil(time_s[0] * rate), np.floor(time_s[-1] * rate) + 1).astype(int)
    if not len(slot):  # too short: its first row, where it nearly belongs
        slot = np.round(time_s[:1] * rate).astype(int)
    at_s = slot / rate
    after = np.clip(np.searchsorted(time_s, at_s), min(1, len(one) - 1), len(one) - 1)
    before = np.maximum(after - 1, 0)
    step_s = time_s[after] - time_s[before]
    share = np.clip((at_s - time_s[before]) / np.where(step_s > 0, step_s, 1), 0, 1)
    known = (step_s <= longest_s) | (share == 0) | (share == 1)
    slot, at_s, before, after, share = (values[known] for values in (slot, at_s, before, after, share))
    pose_m, root_m = (_between(x, before, after, share) for x in (one.pose_m, one.root_m))
    score = np.minimum(one.score[before], one.score[after])
    return Poses3D(slot, np.full(len(slot), one.person[0]), at_s, pose_m, root_m, score)


def _between(values: Array, before: Array, after: Array, share: Array) -> Array:
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return values[before] * (1 - share) + values[after] * share
