"""People as motion files want them: each alone, at a constant rate, in a world that gravity has put upright.

Tables may be mapped from disk and of any length: everything here reads them in blocks of rows.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float, Int

from poseda_deploy.poses import Poses3D

from .draw import world_axes
from .rates import exact_fps

Array = np.ndarray
STAMP_S = 0.0015
"""How far time stamps of a constant rate may scatter: many containers round to 1 ms."""
LONGEST_STEP_S, LONGEST_STEP_FRAMES = 0.2, 2.5
"""Between two sightings; what is further apart, as after an outage, is a gap."""
BLOCK_ROWS = 4096
"""Of a table, held at once: 3 MB."""
BLOCK_FRAMES = 1024
"""Of a take, held at once."""
_STEPS = 10_000  # of the table, whose median is its typical step


@dataclass(frozen=True)
class Rate:
    """At which a table becomes motion files."""

    fps: Fraction
    varies: bool
    """Time stamps have no constant rate: frames lie at multiples of 1/fps, not where the table's do."""
    longest_s: float
    """Between two sightings of a person that are joined."""

    def frames_at(self, time_s: Float[Array, " m"]) -> Float[Array, " m"]:
        """Where these times lie, in frames, where the rate varies; to a millionth, so that what meets one does."""
        return np.round(np.asarray(time_s) * float(self.fps), 6)


@dataclass(frozen=True)
class Take:
    """One person from the first frame with the person to the last, read from the table when asked for."""

    person: int
    fps: Fraction
    first_frame: int
    """As in the table; where its rate varies, time times rate."""
    start_s: float
    frames: int
    motion: "Motion"
    """Of the person, of which this is a part."""

    @property
    def joints_m(self) -> Float[Array, "t 17 3"]:
        """Right-handed: x right, y up, z backward, origin at the camera. NaN in frames without the person."""
        return self.motion.joints_m(self.first_frame, self.first_frame + self.frames)

    @property
    def time_s(self) -> Float[Array, " t"]:
        """Of every frame."""
        return self.start_s + np.arange(self.frames) / float(self.fps)

    def parts(self, frames: int) -> "Iterator[Take]":
        """The take, cut into pieces of so many frames, the last one shorter."""
        for done in range(0, self.frames, frames):
            start_s, count = self.start_s + done / float(self.fps), min(frames, self.frames - done)
            yield replace(self, first_frame=self.first_frame + done, start_s=start_s, frames=count)


@dataclass(frozen=True)
class Motion:
    """One person's joints at any stretch of frames."""

    poses: Poses3D
    rate: Rate
    axes: Float[Array, "3 3"]
    person: int

    def joints_m(self, first: int, end: int) -> Float[Array, "t 17 3"]:
        """Of frames first to end - 1, as Take has them: between two sightings on the line from one to the other.

        Sightings that lie far from every other, and no frame among them, are put into the frame next to them.
        """
        every, frame = np.full((end - first, 17, 3), np.nan), np.arange(first, end)
        at, joints_m, time_s = self._rows(first, end)
        if not len(at):
            return every
        joined = np.diff(time_s) <= self.rate.longest_s + 1e-6
        slot, row = _of_short_stretches(at, joined)
        inside = (slot >= first) & (slot < end)
        every[slot[inside] - first] = joints_m[row[inside]]
        before = np.searchsorted(at, frame, side="right") - 1
        exact = (before >= 0) & (at[before] == frame)
        every[exact] = joints_m[before[exact]]
        between = ~exact & np.append(joined, False)[before] & (before >= 0)
        before, after = before[between], before[between] + 1
        share = ((frame[between] - at[before]) / (at[after] - at[before]))[:, None, None]
        every[between] = joints_m[before] * (1 - share) + joints_m[after] * share
        every[~np.isfinite(every).all((1, 2))] = np.nan
        return every @ self.axes.T

    def _rows(self, first: int, end: int) -> tuple[Float[Array, " m"], Float[Array, "m 17 3"], Float[Array, " m"]]:
        """Where in frames the person's rows lie, joints in camera axes and times; a little beyond first and end too."""
        fps, beyond = float(self.rate.fps), int(self.rate.longest_s * float(self.rate.fps)) + 2
        column = self.poses.time_s if self.rate.varies else self.poses.frame
        unit = fps if self.rate.varies else 1.0
        low, high = bisect_left(column, (first - beyond) / unit), bisect_right(column, (end + beyond) / unit)
        near = rows_of(self.poses, low, high, self.person)
        if not self.rate.varies:
            return near.frame.astype(float), near.joints_m.astype(float), near.time_s
        near = _where(near, np.isfinite(near.joints_m).all((1, 2)))
        return self.rate.frames_at(near.time_s), near.joints_m.astype(float), near.time_s


def _of_short_stretches(at: Float[Array, " m"], joined: Bool[Array, " k"]) -> tuple[Int[Array, " s"], Int[Array, " s"]]:
    """The frame next to each stretch of joined rows that has no frame among them, and its first row."""
    start = np.flatnonzero(~np.append(False, joined))
    stop = np.append(start[1:], len(at)) - 1
    short = start[np.ceil(at[start]) > np.floor(at[stop])]
    return np.round(at[short]).astype(int), short


def upright_axes(up: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Rows x, y, z of a Take's world in camera axes; `up` as of world_axes, whose axes are left-handed."""
    return world_axes(np.asarray(up, float)) * [[1.0], [1.0], [-1.0]]


def takes(poses: Poses3D, up: Float[Array, "3"]) -> Iterator[Take]:
    """Everybody, in order of identity; whoever has no finite row is left out."""
    rate, axes = constant_rate(poses), upright_axes(up)
    for who, (first, last) in sorted(people(poses).items()):
        motion = Motion(poses, rate, axes, who)
        start, end = (motion_frame(motion, row) for row in (first, last))
        start_s = start / float(rate.fps) if rate.varies else float(poses.time_s[first])
        yield Take(who, rate.fps, start, start_s, end - start + 1, motion)


def motion_frame(motion: Motion, row: int) -> int:
    """The frame of the person's first or last row; where the rate varies, the one next to it that has the person."""
    if not motion.rate.varies:
        return int(motion.poses.frame[row])
    low = int(np.floor(motion.rate.frames_at(motion.poses.time_s[row : row + 1]))[0])
    known = np.isfinite(motion.joints_m(low, low + 2)).all((1, 2))
    return low + int(known.argmax())


def people(poses: Poses3D) -> dict[int, tuple[int, int]]:
    """Everybody with a finite row: the first and the last such row."""
    found: dict[int, tuple[int, int]] = {}
    for start in range(0, len(poses), BLOCK_ROWS):
        part = _where(poses, slice(start, start + BLOCK_ROWS))
        rows = start + np.flatnonzero(np.isfinite(part.joints_m).all((1, 2)))
        for row, who in zip(rows.tolist(), part.person[rows - start].tolist(), strict=True):
            found[who] = found.get(who, (row, row))[0], row
    return found


def blocks_of(poses: Poses3D, first: int, last: int, person: int) -> Iterator[Poses3D]:
    """The person's finite rows from one row of the table to another, block by block."""
    for start in range(first, last + 1, BLOCK_ROWS):
        part = rows_of(poses, start, min(start + BLOCK_ROWS, last + 1), person)
        finite = _where(part, np.isfinite(part.joints_m).all((1, 2)))
        if len(finite):
            yield finite


def rows_of(poses: Poses3D, start: int, end: int, person: int) -> Poses3D:
    """The person's rows between two rows of the table, in memory."""
    part = _where(poses, slice(start, end))
    return _where(part, part.person == person)


def _where(poses: Poses3D, which: Array | slice) -> Poses3D:
    columns = (poses.frame, poses.person, poses.time_s, poses.pose_m, poses.root_m, poses.score)
    return Poses3D(*(np.asarray(column[which]) for column in columns))


def constant_rate(poses: Poses3D) -> Rate:
    """The rate of the table's time stamps, or the whole one next to it where they have no constant one."""
    if not len(poses) or poses.frame[-1] <= poses.frame[0] or poses.time_s[-1] <= poses.time_s[0]:
        return Rate(Fraction(30), False, LONGEST_STEP_S)
    mean = float((poses.frame[-1] - poses.frame[0]) / (poses.time_s[-1] - poses.time_s[0]))
    longest_s = max(LONGEST_STEP_S, LONGEST_STEP_FRAMES / mean, LONGEST_STEP_FRAMES * _typical_step_s(poses))
    whole = Fraction(max(1, round(mean)))
    ntsc = Fraction(max(1, round(mean * 1.001)) * 1000, 1001)
    rates = [fps for fps in (whole, ntsc, exact_fps(mean)) if fps > 0]
    scatter_s, fps = min(zip(_scatter_s(poses, rates), rates, strict=True))
    return Rate(fps, False, longest_s) if scatter_s <= STAMP_S else Rate(whole, True, longest_s)


def _typical_step_s(poses: Poses3D) -> float:
    """From one frame of the table to the next: a live run drops some, where it is slow most of them."""
    row = np.unique(np.linspace(0, len(poses) - 2, min(len(poses) - 1, _STEPS)).astype(int))
    step_s = np.asarray(poses.time_s[row + 1]) - np.asarray(poses.time_s[row])
    return float(np.median(step_s[step_s > 0])) if (step_s > 0).any() else 0.0


def _scatter_s(poses: Poses3D, rates: list[Fraction]) -> list[float]:
    """How far the time stamps are off each rate, from the earliest to the latest."""
    low, high = np.full(len(rates), np.inf), np.full(len(rates), -np.inf)
    every = np.array([[float(fps)] for fps in rates])
    for part in table_blocks(poses):
        off_s = part.time_s - part.frame / every
        low, high = np.minimum(low, off_s.min(1)), np.maximum(high, off_s.max(1))
    return [float(scatter_s) for scatter_s in high - low]


def table_blocks(poses: Poses3D) -> Iterator[Poses3D]:
    """The table in blocks of rows."""
    return (_where(poses, slice(start, start + BLOCK_ROWS)) for start in range(0, len(poses), BLOCK_ROWS))
