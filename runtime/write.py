"""Files of poses: for programs (npz, jsonl), spreadsheets, OpenSim, motion capture, animation and viewers.

    npz, jsonl, csv   camera axes, as in Poses3D
    trc, c3d, bvh     one file a person, in a world that gravity has put upright, origin at the camera

docs/outputs.md says what stands where.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.files import require_file, write_aside
from poseda_deploy.poses import PosedFrame, Poses3D
from poseda_deploy.skeleton import H36M17
from poseda_deploy.terminal import say

from .draw import world_axes
from .video import Frame

Array = np.ndarray
Up = Float[Array, "3"]
Write = Callable[[Poses3D, Up, Path], list[Path]]
LIBRARIES = {"c3d": ("ezc3d", "ezc3d", "formats"), "rrd": ("rerun", "rerun-sdk", "viz")}
"""Format -> module, package, and the extra of ours that brings it."""
ROWS_AT_ONCE = 10_000
"""Of a log: as Python objects they take ten times the memory of the arrays, 30 MB for an hour of one person."""


def require_libraries(formats: Sequence[str]) -> None:
    """MissingDependency before a run rather than at its end."""
    for name, (module, package, extra) in LIBRARIES.items():
        if name in formats and find_spec(module) is None:
            raise MissingDependency(
                f"--formats {name}: {package} is not installed", hint=f"pip install 'poseda-deploy[{extra}]'"
            )


def write_poses(poses: Poses3D, up: Up, outputs: Mapping[str, Path], formats: Sequence[str]) -> list[Path]:
    """Every format asked for; returns the files. `up`: pointing up in camera axes, zeros = as the picture."""
    return [path for name in formats for path in WRITERS[name](poses, up, outputs[name])]


# --- a live run: a log, and the other formats from it -----------------------------------------------------------------


class PoseLog:
    """A sink: JSON lines as of Poses3D.save_jsonl, on the disk frame by frame, so that they outlive the run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Append the people of one frame."""
        rows = _table(people)
        self._stream.writelines(f"{json.dumps(rows.row(i))}\n" for i in range(len(rows)))
        self._stream.flush()

    def __enter__(self) -> "PoseLog":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()


def _table(people: PosedFrame) -> Poses3D:
    n = len(people)
    frame, time_s = np.full(n, people.index), np.full(n, people.time_s)
    return Poses3D(frame, people.person, time_s, people.pose_m, people.root_m, people.score)


def load_log(path: Path) -> Poses3D:
    """The rows of a log; a last line that a kill cut short is left out, and that is said."""
    parts: list[Poses3D] = []
    with require_file(path, "log of poses").open(encoding="utf-8") as stream:
        while lines := list(islice(stream, ROWS_AT_ONCE)):
            parts.append(_rows(lines, path, len(parts) * ROWS_AT_ONCE))
    return Poses3D(*(np.concatenate([getattr(part, f.name) for part in parts or [_empty()]]) for f in fields(Poses3D)))


def _rows(lines: list[str], path: Path, before: int) -> Poses3D:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number + 1 < len(lines) or line.endswith("\n"):
                raise InputError(f"{path}: line {before + number + 1} is not JSON", hint="was it edited?") from error
            say(f"{path}: the last line is cut short; the {before + number} rows before it are whole")
    if not rows:
        return _empty()
    pose_m, root_m, score = (np.array([row[key] for row in rows], np.float32) for key in ("pose", "root", "score"))
    frame, person = (np.array([row[key] for row in rows], int) for key in ("frame", "person"))
    return Poses3D(frame, person, np.array([row["time_s"] for row in rows], float), pose_m, root_m, score)


def _empty() -> Poses3D:
    none = np.zeros(0, int)
    shapes = ((0, 17, 3), (0, 3), (0, 17))
    return Poses3D(none, none, np.zeros(0), *(np.zeros(shape, np.float32) for shape in shapes))


def convert_log(outputs: Mapping[str, Path], up: Up, formats: Sequence[str]) -> list[Path]:
    """The log, and every other format asked for made from it."""
    others = [name for name in formats if name != "jsonl"]
    return [outputs["jsonl"], *(write_poses(load_log(outputs["jsonl"]), up, outputs, others) if others else [])]


# --- formats ----------------------------------------------------------------------------------------------------------


def _npz(poses: Poses3D, up: Up, path: Path) -> list[Path]:
    poses.save(path)
    return [path]


def _jsonl(poses: Poses3D, up: Up, path: Path) -> list[Path]:
    poses.save_jsonl(path)
    return [path]


def _csv(poses: Poses3D, up: Up, path: Path) -> list[Path]:
    """One row a person and frame: absolute joints in metres, camera axes."""
    joints_m = (poses.pose_m + poses.root_m[:, None]).reshape(-1, 51)
    with write_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["frame", "person", "time_s", *(f"{j}_{a}_m" for j in H36M17.joints for a in "xyz")])
        for i, row in enumerate(joints_m):
            writer.writerow(
                [poses.frame[i], poses.person[i], f"{poses.time_s[i]:.6f}", *(f"{value:.5f}" for value in row)]
            )
    return [path]


@dataclass(frozen=True)
class Take:
    """One person from the first to the last sighting, in the upright world: x right, y up, z towards the viewer."""

    first_frame: int
    time_s: Float[Array, " t"]
    joints_m: Float[Array, "t 17 3"]
    """NaN in frames without the person."""

    @property
    def fps(self) -> float:
        """Mean rate."""
        span_s = float(self.time_s[-1] - self.time_s[0])
        return (len(self.time_s) - 1) / span_s if span_s > 0 else 30.0

    @property
    def held_m(self) -> Float[Array, "t 17 3"]:
        """Gaps filled with what was seen last, for formats that know no gaps."""
        known = ~np.isnan(self.joints_m[:, 0, 0])
        return self.joints_m[np.maximum.accumulate(np.where(known, np.arange(len(known)), 0))]


def takes(poses: Poses3D, up: Up) -> Iterator[tuple[int, Take]]:
    """(identity, take) of everybody."""
    right, above, forward = world_axes(np.asarray(up, float))
    upright = np.stack([right, above, -forward])
    for who in np.unique(poses.person):
        mine = poses.person == who
        frame: Int[Array, " m"] = poses.frame[mine]
        every = np.arange(frame[0], frame[-1] + 1)
        joints_m = np.full((len(every), 17, 3), np.nan)
        joints_m[frame - frame[0]] = (poses.pose_m[mine] + poses.root_m[mine, None]) @ upright.T
        yield int(who), Take(int(frame[0]), np.interp(every, frame, poses.time_s[mine]), joints_m)


def _each(write: Callable[[Take, Path, str], None]) -> Write:
    """One file a person: NAME.ENDING for the only one, else NAME.personN.ENDING."""

    def write_all(poses: Poses3D, up: Up, path: Path) -> list[Path]:
        people = list(takes(poses, up))
        paths = [path if len(people) == 1 else path.with_suffix(f".person{who}{path.suffix}") for who, _ in people]
        for (_, take), where in zip(people, paths, strict=True):
            with write_aside(where) as aside:
                write(take, aside, where.name)
        return paths

    return write_all


def _trc(take: Take, path: Path, name: str) -> None:
    """OpenSim's marker file; what is missing is left blank."""
    n, rate = len(take.time_s), f"{take.fps:.6g}"
    head = [
        f"PathFileType\t4\t(X/Y/Z)\t{name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate}\t{rate}\t{n}\t17\tm\t{rate}\t1\t{n}",
        "Frame#\tTime\t" + "\t\t\t".join(H36M17.joints) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{marker}" for marker in range(1, 18) for axis in "XYZ"),
        "",
    ]
    rows = (
        f"{i + 1}\t{time_s:.6f}\t" + "\t".join("" if np.isnan(value) else f"{value:.5f}" for value in joints.ravel())
        for i, (time_s, joints) in enumerate(zip(take.time_s, take.joints_m, strict=True))
    )
    path.write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")


def _c3d(take: Take, path: Path, name: str) -> None:
    """Points in millimetres, z up, as most programs expect; residual -1 where missing."""
    import ezc3d

    file = ezc3d.c3d()
    points = np.ones((4, 17, len(take.time_s)))
    x, y, z = np.moveaxis(take.joints_m, 2, 0) * 1000
    points[:3] = np.stack([x, -z, y]).transpose(0, 2, 1)
    file["header"]["points"]["frame_rate"] = take.fps
    file["parameters"]["POINT"]["RATE"]["value"] = [take.fps]
    file["parameters"]["POINT"]["LABELS"]["value"] = list(H36M17.joints)
    file["parameters"]["POINT"]["UNITS"]["value"] = ["mm"]
    file["data"]["points"] = points
    file["data"]["meta_points"]["residuals"] = np.where(np.isnan(points[:1]), -1.0, 0.0)
    file.write(str(path))


def _bvh(take: Take, path: Path, name: str) -> None:
    from .bvh_writer import bvh_text

    path.write_text(bvh_text(take.held_m, take.fps), encoding="utf-8")


def _rrd(poses: Poses3D, up: Up, path: Path) -> list[Path]:
    """A recording for Rerun's viewer: joints and bones of everybody over time, camera axes."""
    import rerun

    recording = rerun.RecordingStream("poseda-deploy")
    with write_aside(path) as aside:
        recording.save(aside)
        recording.log("/", rerun.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
        for i, joints_m in enumerate(poses.pose_m + poses.root_m[:, None]):
            recording.set_time("frame", sequence=int(poses.frame[i]))
            recording.set_time("time", duration=float(poses.time_s[i]))
            name = f"person{poses.person[i]}"
            recording.log(f"{name}/joints", rerun.Points3D(joints_m, radii=0.02))
            recording.log(f"{name}/bones", rerun.LineStrips3D([joints_m[list(edge)] for edge in H36M17.edges]))
        recording.flush()
        recording.disconnect()
    return [path]


WRITERS: Mapping[str, Write] = {
    "npz": _npz,
    "jsonl": _jsonl,
    "csv": _csv,
    "trc": _each(_trc),
    "c3d": _each(_c3d),
    "bvh": _each(_bvh),
    "rrd": _rrd,
}
"""Name -> writer; each says which files it wrote."""
