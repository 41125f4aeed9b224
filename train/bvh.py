"""Reading BVH motion capture: the hierarchy, the channels, and where every joint is (forward kinematics)."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import InputError
from poseda_deploy.npz import MAX_BYTES

AXES = "XYZ"
CHANNEL = re.compile(r"([XYZ])(position|rotation)", re.IGNORECASE)
END = " end"
"""An End Site has no name in the file: it is called after the joint that it ends."""
MOST_JOINTS, LONGEST_NAME = 1000, 100
"""Rigs with fingers and faces have 300 joints."""
LARGEST = 1e9
FRAME_TIME_S = (1e-4, 10.0)
_JOINT_BYTES, _NUMBER_BYTES = 96, 40  # position and rotation of a joint; a channel's value as read and in the array


@dataclass(frozen=True)
class Motion:
    """One BVH file, posed. Positions and offsets in the file's own units, axes as in the file (y up, by custom)."""

    path: Path
    joints: tuple[str, ...]
    """Names; parents come before children, an End Site is called "<joint> end"."""
    parents: tuple[int, ...]
    offsets: Float[np.ndarray, "joints 3"]
    positions: Float[np.ndarray, "frames joints 3"]
    rotations: Float[np.ndarray, "frames joints 3 3"]
    """Of each joint's own axes, against the world's."""
    fps: Fraction


@dataclass
class _Joint:
    """What the hierarchy says of one joint."""

    name: str
    parent: int
    offset: tuple[float, ...] = ()
    channels: list[tuple[int, str]] = field(default_factory=list)
    """(axis, "position" or "rotation") in the order of the columns."""


@dataclass
class _Lines:
    """Statements of a file, each with its line number, for messages that say where."""

    path: Path
    rest: Iterator[tuple[int, str]]
    number: int = 0

    def take(self, expected: str) -> str:
        """The next statement."""
        self.number, text = next(self.rest, (self.number, ""))
        if not text:
            self.fail(f"the file ends here, expected {expected}")
        return text

    def fail(self, what: str) -> NoReturn:
        """Raise, naming file and line."""
        raise InputError(f"{self.path}: line {self.number}: {what}", hint="export the file again as BVH")

    def numbers(self, words: Sequence[str], count: int) -> list[float]:
        """Exactly so many finite numbers."""
        if len(words) != count:
            self.fail(f"expected {count} numbers, got {len(words)}")
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            self.fail(str(error)[:100])
        if not np.isfinite(values).all():
            self.fail("a value is not finite")
        if max(map(abs, values), default=0) > LARGEST:
            self.fail("a value is beyond any length or angle")
        return values


def read_bvh(path: Path, max_bytes: int = MAX_BYTES) -> Motion:
    """Parse a BVH file and pose it in every frame; what would take more than max_bytes of memory is refused."""
    try:
        if path.stat().st_size > max_bytes:
            raise InputError(f"{path}: larger than {max_bytes / 1e9:.3g} GB", hint="split it, or --max-memory")
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            return _read(_Lines(path, _statements(stream)), max_bytes)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", hint="check the path") from error


def _read(lines: _Lines, max_bytes: int) -> Motion:
    if lines.take("HIERARCHY").upper() != "HIERARCHY":
        lines.fail("a BVH file begins with HIERARCHY")
    joints = _hierarchy(lines)
    fps, values = _motion(lines, joints, max_bytes)
    positions, rotations = _forward(joints, values)
    names, parents = tuple(j.name for j in joints), tuple(j.parent for j in joints)
    return Motion(lines.path, names, parents, np.array([j.offset for j in joints]), positions, rotations, fps)


def _statements(stream: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(line number, statement); a brace is a statement of its own wherever it stands."""
    for number, line in enumerate(stream, 1):
        parts = (found[0].strip() for found in re.finditer(r"[{}]|[^{}]+", line))
        yield from ((number, part) for part in parts if part)


def _hierarchy(lines: _Lines) -> list[_Joint]:
    """Joints up to the MOTION line, parents first."""
    joints: list[_Joint] = []
    open_joints: list[int] = []
    while (statement := lines.take("MOTION")).upper() != "MOTION":
        keyword, *words = statement.split()
        match keyword.upper():
            case "ROOT" | "JOINT" | "END":
                _open(lines, joints, open_joints, keyword.upper(), " ".join(words))
            case "OFFSET" if open_joints:
                joints[open_joints[-1]].offset = tuple(lines.numbers(words, 3))
            case "CHANNELS" if open_joints:
                joints[open_joints[-1]].channels = _channels(lines, words)
            case "}" if open_joints:
                _close(lines, joints[open_joints.pop()])
            case _:
                lines.fail(f"{statement[:40]!r} is out of place")
    if open_joints or not joints:
        lines.fail(f"MOTION before {joints[open_joints[-1]].name!r} is closed" if joints else "no joint before MOTION")
    return joints


def _open(lines: _Lines, joints: list[_Joint], open_joints: list[int], keyword: str, name: str) -> None:
    if len(name) > LONGEST_NAME:
        lines.fail(f"a name of {len(name)} letters")
    if (keyword == "ROOT") == bool(joints) or (joints and not open_joints):
        lines.fail(f"{keyword} {name!r}: one ROOT must hold all joints")
    if len(joints) == MOST_JOINTS:
        lines.fail(f"more than {MOST_JOINTS} joints")
    parent = open_joints[-1] if open_joints else -1
    open_joints.append(len(joints))
    joints.append(_Joint(joints[parent].name + END if keyword == "END" else name, parent))
    if lines.take("{") != "{":
        lines.fail(f"expected {{ after {joints[-1].name!r}")


def _close(lines: _Lines, joint: _Joint) -> None:
    if not joint.offset:
        lines.fail(f"{joint.name!r} has no OFFSET")


def _channels(lines: _Lines, words: Sequence[str]) -> list[tuple[int, str]]:
    found = [CHANNEL.fullmatch(word) for word in words[1:]]
    channels = [(AXES.index(m[1].upper()), m[2].lower()) for m in found if m]
    if not words or words[0] != str(len(channels)) or len(found) != len(channels):
        lines.fail(f"CHANNELS {' '.join(words)[:60]!r}: expected a count and as many of Xposition ... Zrotation")
    if len(set(channels)) != len(channels):
        lines.fail("a channel is there twice")
    return channels


def _motion(
    lines: _Lines, joints: Sequence[_Joint], max_bytes: int
) -> tuple[Fraction, Float[np.ndarray, "frames columns"]]:
    """Frame rate and channel values; every frame is there, whole and finite."""
    frames, columns = _header(lines, "Frames:"), sum(len(joint.channels) for joint in joints)
    if not frames.isdecimal() or len(frames) > 18 or not int(frames):
        lines.fail(f"Frames: {frames[:40]}: there must be one at least")
    needed = int(frames) * (_JOINT_BYTES * len(joints) + _NUMBER_BYTES * columns)
    if needed > max_bytes:
        lines.fail(f"Frames: {frames}: {needed / 1e9:.3g} GB, more than {max_bytes / 1e9:.3g} GB (--max-memory)")
    fps = _fps(lines, _header(lines, "Frame Time:"))
    rows: list[list[float]] = []
    for number, text in lines.rest:
        lines.number = number
        if len(rows) == int(frames):
            lines.fail(f"more rows than the {frames} frames it speaks of")
        rows.append(lines.numbers(text.split(), columns))
    if len(rows) < int(frames):
        lines.fail(f"the file ends after {len(rows)} of {frames} frames")
    return fps, np.array(rows)


def _header(lines: _Lines, key: str) -> str:
    """What follows "Frames:" or "Frame Time:", however it is spaced."""
    statement = " ".join(lines.take(key).split())
    if not statement.lower().startswith(key.lower()):
        lines.fail(f"expected {key!r}, got {statement[:40]!r}")
    return statement[len(key) :].strip()


def _fps(lines: _Lines, text: str) -> Fraction:
    """Frames a second, undoing the rounding of "0.0333333" to 30 and of "0.0333667" to 30000/1001."""
    number_s = lines.numbers(text.split(), 1)[0]
    if number_s <= 0:
        lines.fail(f"Frame Time: {text[:40]}: must be above zero")
    if not FRAME_TIME_S[0] <= number_s <= FRAME_TIME_S[1] or len(text) > 40:
        lines.fail(f"Frame Time: {text[:40]}: expected {FRAME_TIME_S[0]:g} to {FRAME_TIME_S[1]:g} s")
    frame_s = Fraction(repr(number_s))
    whole = Fraction(round(1 / frame_s))
    ntsc = Fraction(round(1001 / frame_s / 1000) * 1000, 1001)
    last_digit = Fraction(1, 10 ** len(text.partition(".")[2]))
    for fps in (whole, ntsc):
        # "0.0333" is 30; "0.033" may be 30 or 30.3 and is taken as it stands.
        if fps and abs(1 / fps - frame_s) <= min(last_digit, frame_s / 800):
            return fps
    return 1 / frame_s


def _forward(
    joints: Sequence[_Joint], values: Float[np.ndarray, "frames columns"]
) -> tuple[Float[np.ndarray, "frames joints 3"], Float[np.ndarray, "frames joints 3 3"]]:
    """World position and rotation of every joint; a position channel takes the place of the offset."""
    position = np.zeros((len(values), len(joints), 3))
    rotation = np.tile(np.eye(3), (len(values), len(joints), 1, 1))
    column = 0
    for j, joint in enumerate(joints):
        step = np.tile(joint.offset, (len(values), 1))
        if joint.parent >= 0:
            rotation[:, j] = rotation[:, joint.parent]
        for axis, kind in joint.channels:
            if kind == "position":
                step[:, axis] = values[:, column]
            else:
                rotation[:, j] = rotation[:, j] @ _about(axis, np.radians(values[:, column]))
            column += 1
        if joint.parent >= 0:
            step = position[:, joint.parent] + (rotation[:, joint.parent] @ step[..., None])[..., 0]
        position[:, j] = step
    return position, rotation


def _about(axis: int, angle_rad: Float[np.ndarray, " frames"]) -> Float[np.ndarray, "frames 3 3"]:
    """Right-handed rotations about one axis."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.tile(np.eye(3), (len(angle_rad), 1, 1))
    matrix[:, a, a] = matrix[:, b, b] = np.cos(angle_rad)
    matrix[:, b, a] = np.sin(angle_rad)
    matrix[:, a, b] = -matrix[:, b, a]
    return matrix
