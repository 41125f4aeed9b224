"""Poses3D: metric people in camera axes, one row per person and frame, and the files that carry them."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from jaxtyping import Float, Int

from poseda_deploy.errors import InputError
from poseda_deploy.files import require_file, write_aside
from poseda_deploy.npz import MAX_BYTES, load_npz, numbers, whole_numbers

_ROW = {"pose": (17, 3), "root": (3,), "score": (17,)}
_COLUMNS: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
    **{"frame": (np.dtype("i8"), ()), "person": (np.dtype("i8"), ()), "time_s": (np.dtype("f8"), ())},
    **{key: (np.dtype("f4"), shape) for key, shape in _ROW.items()},
}
"""Keys of a line of NAME.poses.jsonl in the order of Poses3D, with what one row of each is."""


@dataclass(frozen=True)
class Poses3D:
    """M rows, ordered by frame and then person."""

    frame: Int[np.ndarray, " m"]
    person: Int[np.ndarray, " m"]
    time_s: Float[np.ndarray, " m"]
    pose_m: Float[np.ndarray, "m 17 3"]
    """Relative to the pelvis, camera axes (x right, y down, z forward), H36M17 order."""
    root_m: Float[np.ndarray, "m 3"]
    """Pelvis in camera axes."""
    score: Float[np.ndarray, "m 17"]
    """Of the 2D joint under each 3D joint; 0 = the lifter put it in.

    All 17 are 0 in a row that fills a short gap of the person's track: nobody was seen, the pose lies between those
    before and after it.
    """

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def joints_m(self) -> Float[np.ndarray, "m 17 3"]:
        """All joints in camera axes, absolute."""
        return self.pose_m + self.root_m[:, None]

    def save(self, path: Path) -> None:
        """Write NAME.poses.npz."""
        with write_aside(path) as aside:
            np.savez_compressed(
                aside,
                frame=self.frame,
                person=self.person,
                time_s=self.time_s,
                pose=self.pose_m,
                root=self.root_m,
                score=self.score,
                skeleton=np.array("h36m17"),
                units=np.array("m"),
                axes=np.array("camera: x right, y down, z forward; pose relative to root"),
            )

    def save_jsonl(self, path: Path) -> None:
        """Write NAME.poses.jsonl, one row a line."""
        with write_aside(path) as aside, aside.open("w", encoding="utf-8") as stream:
            stream.writelines(self.lines())

    def lines(self) -> Iterator[str]:
        """Each row as one line of JSON."""
        for i in range(len(self)):
            own = person_fields(self.person[i], self.pose_m[i], self.root_m[i], self.score[i])
            row = {"frame": int(self.frame[i]), "time_s": round(float(self.time_s[i]), 6), **own}
            yield f"{json.dumps(row, allow_nan=False)}\n"


@dataclass(frozen=True)
class PosedFrame:
    """The people of one frame, as sinks and the Python API get them; rows in order of person."""

    index: int
    time_s: float
    person: Int[np.ndarray, " n"]
    """Identities, stable through a run."""
    pose_m: Float[np.ndarray, "n 17 3"]
    """As in Poses3D."""
    root_m: Float[np.ndarray, "n 3"]
    score: Float[np.ndarray, "n 17"]
    """As in Poses3D; all 0 in a row that fills a gap, where nobody was seen."""
    xy_px: Float[np.ndarray, "n 17 2"]
    """Where the joints were seen, in pixels of the picture, H36M17 order; means nothing where score is 0."""

    def __len__(self) -> int:
        return len(self.person)

    @property
    def table(self) -> Poses3D:
        """The same as rows of a table."""
        frame, time_s = np.full(len(self), self.index), np.full(len(self), self.time_s)
        return Poses3D(frame, self.person, time_s, self.pose_m, self.root_m, self.score)


def person_fields(
    person: Any, pose_m: Float[np.ndarray, "17 3"], root_m: Float[np.ndarray, "3"], score: Float[np.ndarray, "17"]
) -> dict[str, Any]:
    """One person in one frame as files and streams of JSON have it; null where a number is not finite.

    Metres to 0.01 mm: then a joint, the sum of two, holds to 0.02.
    """
    return {"person": int(person), "pose": _plain(pose_m, 5), "root": _plain(root_m, 5), "score": _plain(score, 3)}


def _plain(values: np.ndarray, digits: int) -> list[Any]:
    rounded = np.round(values.astype(float), digits)
    if np.isfinite(rounded).all():
        return rounded.tolist()
    plain = rounded.astype(object)  # JSON has no such numbers
    plain[~np.isfinite(rounded)] = None
    return plain.tolist()


def load_poses(path: str | Path, max_bytes: int = MAX_BYTES) -> Poses3D:
    """Read NAME.poses.npz; more than max_bytes of arrays are refused."""
    data = load_npz(Path(path), ("frame", "person", "time_s", *_ROW), max_bytes)
    try:
        frame = whole_numbers(data, "frame", (None,))
        rows = len(frame)
        person, time_s = whole_numbers(data, "person", (rows,)), numbers(data, "time_s", (rows,), np.float64)
        if not np.isfinite(time_s).all():
            raise InputError("time_s must be finite")
        return Poses3D(frame, person, time_s, *(numbers(data, key, (rows, *_ROW[key])) for key in _ROW))
    except InputError as error:
        raise InputError(f"{path}: {error}", hint="docs/outputs.md shows the arrays of poses") from error


def load_poses_jsonl(path: str | Path) -> tuple[Poses3D, str]:
    """Read NAME.poses.jsonl: its whole rows, and the half line that a killed run may leave at the end ("" = none).

    Anything else that is not a row is an InputError that names the line.
    """
    columns = [BytesIO() for _ in _COLUMNS]
    rows, cut = _spooled(path, [column.write for column in columns])
    kinds = zip(columns, _COLUMNS.values(), strict=True)
    return Poses3D(*(np.frombuffer(c.getbuffer(), kind).reshape(rows, *shape) for c, (kind, shape) in kinds)), cut


@contextmanager
def mapped_poses_jsonl(path: Path) -> Iterator[tuple[Poses3D, str]]:
    """As load_poses_jsonl, but in temporary files beside it, 308 bytes a row, mapped into memory and gone afterwards.

    A table of any length: what reads it part by part holds no more than the part. The files have no names, so that
    none is left where the process is killed.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(TemporaryFile(dir=path.parent)) for _ in _COLUMNS]
        rows, cut = _spooled(path, [file.write for file in files])
        yield Poses3D(*map(_mapped, files, _COLUMNS.values(), [rows] * len(files))), cut


def _mapped(file: IO[bytes], column: tuple[np.dtype[Any], tuple[int, ...]], rows: int) -> np.ndarray:
    kind, shape = column
    file.flush()
    return np.memmap(file, kind, "r", shape=(rows, *shape)) if rows else np.zeros((0, *shape), kind)


def _spooled(path: str | Path, columns: Sequence[Callable[[bytes], object]]) -> tuple[int, str]:
    """Hand the log's rows to the columns as bytes; how many rows there were, and the half line at the end."""
    count = 0
    with require_file(Path(path), "poses").open("rb") as stream:
        for line in stream:
            try:
                own, arrays = _row(line)
            except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
                if line.endswith(b"\n"):
                    raise _no_row(path, count + 1, error) from error
                return count, line.decode("utf-8", errors="replace")
            count += 1
            for write, value, (kind, _) in zip(columns, (*own, *arrays.values()), _COLUMNS.values(), strict=True):
                write(np.asarray(value, kind).tobytes())
    return count, ""


def _row(line: bytes) -> tuple[tuple[int, int, float], dict[str, np.ndarray]]:
    """Frame, person and time of a line, and its arrays; null is NaN. Any error where it is no row."""
    row = json.loads(line)
    arrays = {key: np.asarray(row[key], np.float64).reshape(shape) for key, shape in _ROW.items()}
    frame, person, time_s = int(row["frame"]), int(row["person"]), float(row["time_s"])
    if max(abs(frame), abs(person)) > 1 << 53 or not math.isfinite(time_s):
        raise ValueError("frame, person or time_s is no such number")
    if any((np.abs(array) > 1e30).any() for array in arrays.values()):
        raise ValueError("a number beyond any metre")
    return (frame, person, time_s), {key: array.astype(np.float32) for key, array in arrays.items()}


def _no_row(path: str | Path, number: int, error: Exception) -> InputError:
    return InputError(
        f"{path} line {number}: expected a row of poses as JSON, got something else ({str(error)[:100]})",
        hint="docs/outputs.md shows a row",
    )
