"""Human3.6M in VideoPose3D's layout, turned into a plain source file once and without running what a pickle says.

`data_3d_h36m.npz` holds one pickled dictionary {subject: {action: (F,32,3) float32, metres, z up}}. A pickle is a
program, run by plain_pickle. Every name that it may call is a stand-in of this module, so that not even NumPy sees its
words before they are checked: a forged dtype can make NumPy read addresses.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import InputError
from poseda_deploy.files import require_file, write_aside
from poseda_deploy.npz import check_packing, read_npy_header
from poseda_deploy.skeleton import DERIVED, H36M17

from .bvh_source import source_arrays
from .plain_pickle import run_pickle
from .units import FARTHEST_M, check_metres

MEMBER = "positions_3d"
LIMIT_BYTES = 1 << 30
"""Of the unpacked array; the real one has 0.2 GB."""
CAPTURED_FPS = 50
LICENSE = "Human3.6M: free for academic use only, not to be passed on"
RAW32 = {
    **{"right_hip": 1, "right_knee": 2, "right_ankle": 3, "left_hip": 6, "left_knee": 7, "left_ankle": 8},
    **{"spine": 12, "neck": 14, "head": 15, "left_shoulder": 17, "left_elbow": 18, "left_wrist": 19},
    **{"right_shoulder": 25, "right_elbow": 26, "right_wrist": 27},
}
"""Place among Human3.6M's 32. Pelvis and thorax follow `DERIVED`: its own thorax (13) is not between the shoulders."""


def import_h36m(path: Path, out: Path, fps: Literal[25, 50] = 25) -> dict[str, Any]:
    """Write the source file `out` from `data_3d_h36m.npz`; returns what it holds."""
    subjects = _subjects(_read_positions(path), path)
    poses, names, owners = [], [], []
    for subject, action, raw in _actions(subjects, path):
        poses.append(_to_h36m17(raw[:: CAPTURED_FPS // fps]))
        names.append(f"{subject}/{action}")
        owners.append(subject)
    arrays = source_arrays(poses, names, owners, Fraction(fps)) | {"license": np.array([LICENSE])}
    check_metres(path, arrays["positions"])
    with write_aside(out) as aside, aside.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    return {
        "source": str(out),
        "subjects": sorted(set(owners)),
        "sequences": len(names),
        "frames": len(arrays["positions"]),
        "fps": fps,
        "license": LICENSE,
    }


def _to_h36m17(raw_m: Float[np.ndarray, "frames 32 3"]) -> Float[np.ndarray, "frames 17 3"]:
    """Model order, y up: the world's z becomes y, and its y becomes -z."""
    y_up = np.stack([raw_m[..., 0], raw_m[..., 2], -raw_m[..., 1]], -1)
    out = np.zeros((len(raw_m), 17, 3), np.float32)
    for joint, index in RAW32.items():
        out[:, H36M17.index(joint)] = y_up[:, index]
    for joint in ("pelvis", "thorax"):
        out[:, H36M17.index(joint)] = out[:, [H36M17.index(part) for part in DERIVED[joint]]].mean(1)
    return out


def _subjects(found: object, path: Path) -> Mapping[str, Mapping[str, object]]:
    """The dictionary of dictionaries, if that is what it is."""
    if isinstance(found, dict) and found and all(isinstance(actions, dict) and actions for actions in found.values()):
        return found
    raise _foreign(path, f"{MEMBER} must hold {{subject: {{action: array}}}}")


def _actions(subjects: Mapping[str, Mapping[str, object]], path: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """(subject, action, positions), each checked."""
    used = 0
    for subject, actions in subjects.items():
        for action, stored in actions.items():
            try:
                raw = _positions(stored)
            except (ValueError, TypeError) as error:
                raise _foreign(path, f"{subject}, {action}: {error}") from error
            used += raw.nbytes
            if used > LIMIT_BYTES:  # one array under many names: small in the file, not in memory
                raise _foreign(path, f"{subject}, {action}: more poses than Human3.6M has")
            yield str(subject), str(action), raw


def _positions(stored: object) -> np.ndarray:
    """The array behind a stand-in, or a ValueError that says what it is instead."""
    if not isinstance(stored, _Array):
        raise ValueError(f"expected an array, got {type(stored).__name__}")
    raw = stored.decoded()
    if raw.dtype.kind != "f" or raw.ndim != 3 or raw.shape[1:] != (32, 3) or not len(raw):
        raise ValueError(f"expected (F,32,3) of floats, got {raw.shape} of {raw.dtype}")
    wrong = ~np.isfinite(raw).all((1, 2))
    if wrong.any():
        raise ValueError(f"frame {wrong.argmax()} is not finite")
    far = (np.abs(raw) > FARTHEST_M).any((1, 2))
    if far.any():
        raise ValueError(f"frame {far.argmax()} is not within {FARTHEST_M / 1000:g} km")
    return raw


def _foreign(path: Path, what: str) -> InputError:
    """The words may come from the file: one line, nothing that moves a terminal's cursor."""
    line = "".join(c if c.isprintable() else " " for c in what)
    return InputError(
        f"{path}: {line[:300]}",
        hint="give data_3d_h36m.npz as VideoPose3D's prepare_data_h36m.py writes it",
    )


def _read_positions(path: Path) -> object:
    """The one object in the archive, with stand-ins for its arrays."""
    require_file(path, "file")
    try:
        with ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if f"{MEMBER}.npy" not in members:
                raise _foreign(path, f"lacks {MEMBER}")
            member = members[f"{MEMBER}.npy"]
            if member.file_size > LIMIT_BYTES:
                raise _foreign(path, f"{MEMBER} unpacks to {member.file_size / 1e9:.1f} GB, more than Human3.6M has")
            check_packing(MEMBER, member)
            stream = BytesIO(archive.read(member))
        header = read_npy_header(stream.read)
        if header.shape != () or not header.descr.endswith("O"):
            raise _foreign(path, f"{MEMBER} must be one dictionary, got {header.shape} of {header.descr}")
        return _only_item(run_pickle(stream.read(), partial(_stand_in, path)), path)
    except InputError:
        raise
    except BadZipFile as error:
        raise _foreign(path, f"not a whole .npz ({error})") from error
    except Exception as error:  # damage can show in any way
        raise _foreign(path, f"{MEMBER} is damaged ({error})") from error


def _only_item(stored: object, path: Path) -> object:
    if isinstance(stored, _Array) and stored.shape == () and isinstance(stored.content, list):
        return stored.content[0]
    raise _foreign(path, f"{MEMBER} must be one dictionary")


class _Dtype:
    """Stands in for numpy.dtype: plain numbers, booleans and text, or object."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufSU]\d{1,4}|O8?", code):
            raise ValueError("a dtype that is neither a plain number nor text")
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">"}.get(state[1], "|")

    @property
    def numpy(self) -> np.dtype[Any]:
        """The real one."""
        return np.dtype(self.order + self.code)


@dataclass
class _Array:
    """Stands in for numpy.ndarray: bytes, or a list where it holds objects."""

    shape: tuple[int, ...] = ()
    dtype: _Dtype | None = None
    fortran: bool = False
    content: object = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state

    def decoded(self) -> np.ndarray:
        """The array; a ValueError or TypeError where it holds objects, or bytes and shape disagree."""
        content = self.content.encode("latin1") if isinstance(self.content, str) else self.content  # Python 2 wrote str
        if not isinstance(self.dtype, _Dtype) or not isinstance(content, bytes | bytearray):
            raise ValueError("expected an array of numbers, got one of objects")
        if not isinstance(self.shape, tuple) or not all(
            type(size) is int and 0 <= size <= LIMIT_BYTES for size in self.shape
        ):
            raise ValueError("a shape that is none")
        return np.frombuffer(content, self.dtype.numpy).reshape(self.shape, order="F" if self.fortran else "C")


def _empty(*_: object) -> _Array:
    return _Array()


def _from_buffer(content: object, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    return _Array(shape, dtype, order == "F", content)


def _scalar(dtype: _Dtype, content: object) -> _Array:
    return _Array((), dtype, False, content)


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise ValueError("an encoding other than latin1")
    return text.encode("latin1")


STAND_INS: Mapping[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}
"""Everything that a pickle may name."""


def _stand_in(path: Path, module: str, name: str) -> Callable[..., object]:
    """The stand-in of that name, or an error that says what was refused."""
    if (module, name) not in STAND_INS:
        raise InputError(
            f"{path}: asks for {ascii(f'{module}.{name}')[:100]}, which no array needs; refused",
            hint="do not use this file: loading it elsewhere may run code",
        )
    return STAND_INS[module, name]
