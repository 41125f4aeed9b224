"""Files of poses: for programs (npz, jsonl), spreadsheets, OpenSim, motion capture, animation and viewers.

    npz, jsonl, csv   camera axes, as in Poses3D
    trc, c3d, bvh     one file a person, constant rate, in a world that gravity has put upright
    rrd               everybody, in that world

docs/outputs.md says what stands where.
"""

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float

from poseda_deploy.camera import Camera
from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.files import write_aside
from poseda_deploy.poses import PosedFrame, Poses3D, mapped_poses_jsonl
from poseda_deploy.skeleton import H36M17
from poseda_deploy.terminal import say

from .bvh_writer import write_bvh
from .markers import c3d_parts, write_c3d, write_trc
from .rerun_file import write_rrd
from .takes import Take, constant_rate, table_blocks, takes
from .video import Frame

Up = Float[np.ndarray, "3"]
Write = Callable[[Poses3D, Up, Camera | None, Path], list[Path]]
LIBRARIES = {"c3d": ("ezc3d", "ezc3d", "formats"), "rrd": ("rerun", "rerun-sdk", "viz")}
"""Format -> module, package, and the extra of ours that brings it."""
CONSTANT_RATE = ("trc", "c3d", "bvh")
"""Formats of one file a person, NAME.ENDING for the only one, else NAME.personN.ENDING."""


def require_libraries(formats: Sequence[str]) -> None:
    """MissingDependency before a run rather than at its end."""
    for name in formats:
        module, package, extra = LIBRARIES.get(name, ("json", "", ""))
        if find_spec(module) is None:
            hint = f"pip install 'poseda-deploy[{extra}]'"
            raise MissingDependency(f"--formats {name}: {package} is not installed", hint=hint)


def written_before(path: Path) -> list[Path]:
    """Files that writing this output would replace or remove."""
    own = re.compile(re.escape(path.stem) + r"(\.person\d+)?(\.part\d+)?" + re.escape(path.suffix))
    return sorted(file for file in path.parent.glob("*") if own.fullmatch(file.name))


def write_poses(
    poses: Poses3D, up: Up, outputs: Mapping[str, Path], formats: Sequence[str], camera: Camera | None = None
) -> list[Path]:
    """Every format asked for; returns the files.

    `up`: pointing up in camera axes, zeros = as the picture; `camera`: drawn in the rrd.
    """
    if set(formats) & set(CONSTANT_RATE):
        rate = constant_rate(poses)
        if rate.varies:
            files = ", ".join(name for name in formats if name in CONSTANT_RATE)
            say(f"the frame rate varies: {files} resampled to {rate.fps} fps")
    return [path for name in formats for path in WRITERS[name](poses, up, camera, outputs[name])]


# --- a live run: a log, and the other formats from it -----------------------------------------------------------------


class PoseLog:
    """A sink: JSON lines as of Poses3D.save_jsonl, with the system frame by frame, so that they outlive the run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Append the people of one frame. OSError where the disk is full; the rows before stay whole."""
        left = memoryview("".join(people.table.lines()).encode())
        while left:
            left = left[self._stream.write(left) :]

    def __enter__(self) -> "PoseLog":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("wb", buffering=0)  # nothing waits in this process, which may be killed
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror})", hint="--out STEM elsewhere"
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()
        if any(error) and not self.path.stat().st_size:  # of a run that never began; it would be in the way of the next
            self.path.unlink()


def convert_log(
    outputs: Mapping[str, Path], up: Up, formats: Sequence[str], camera: Camera | None = None
) -> list[Path]:
    """The log, and every other format asked for made from it; arguments as of write_poses."""
    log, others = outputs["jsonl"], [name for name in formats if name != "jsonl"]
    if not others:
        return [log]
    with mapped_poses_jsonl(log) as (poses, cut):
        if cut:
            say(f"{log}: the last line is cut short and left out; the {len(poses)} rows before it are whole")
        return [log, *write_poses(poses, up, outputs, others, camera)]


# --- formats ----------------------------------------------------------------------------------------------------------


def _npz(poses: Poses3D, up: Up, camera: Camera | None, path: Path) -> list[Path]:
    poses.save(path)
    return [path]


def _jsonl(poses: Poses3D, up: Up, camera: Camera | None, path: Path) -> list[Path]:
    poses.save_jsonl(path)
    return [path]


def _csv(poses: Poses3D, up: Up, camera: Camera | None, path: Path) -> list[Path]:
    """One row a person and frame: absolute joints in metres, camera axes, then the scores; empty = not finite."""
    joints = [f"{joint}_{axis}_m" for joint in H36M17.joints for axis in "xyz"]
    with write_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["frame", "person", "time_s", *joints, *(f"{joint}_score" for joint in H36M17.joints)])
        for part in table_blocks(poses):
            columns = (part.frame, part.person, part.time_s, part.joints_m.reshape(-1, 51), part.score)
            for frame, person, time_s, xyz_m, score in zip(*(column.tolist() for column in columns), strict=True):
                numbers = [f"{value:.5f}" if math.isfinite(value) else "" for value in xyz_m]
                writer.writerow([frame, person, f"{time_s:.6f}", *numbers, *(f"{value:.3f}" for value in score)])
    return [path]


def _rrd(poses: Poses3D, up: Up, camera: Camera | None, path: Path) -> list[Path]:
    with write_aside(path) as aside:
        write_rrd(poses, up, camera, aside)
    return [path]


def _each(write: Callable[[Take, Path, str], None], parts: Callable[[Take], Iterable[Take]]) -> Write:
    """A file a person; the files of other people that an earlier run left under this name go."""

    def write_all(poses: Poses3D, up: Up, camera: Camera | None, path: Path) -> list[Path]:
        before, people, written = written_before(path), list(takes(poses, up)), []
        for take in people:
            named = path if len(people) == 1 else path.with_suffix(f".person{take.person}{path.suffix}")
            for number, part in enumerate(parts(take), 1):
                where = named if number == 1 else named.with_suffix(f".part{number}{path.suffix}")
                with write_aside(where) as aside:
                    write(part, aside, where.name)
                written.append(where)
        for stale in set(before) - set(written):
            stale.unlink()
        return written

    return write_all


WRITERS: Mapping[str, Write] = {
    "npz": _npz,
    "jsonl": _jsonl,
    "csv": _csv,
    "trc": _each(write_trc, lambda take: [take]),
    "c3d": _each(lambda take, aside, _: write_c3d(take, aside), c3d_parts),
    "bvh": _each(lambda take, aside, _: write_bvh(take, aside), lambda take: [take]),
    "rrd": _rrd,
}
"""Name -> writer; each says which files it wrote."""
