"""Reading .npz archives that others wrote: what they unpack to is checked first, and no pickle is ever loaded.

NumPy's own reader trusts the zip directory and the headers in it, and lets out whatever zlib, ast and zipfile raise.
"""

import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from jaxtyping import Int, Shaped

from poseda_deploy.errors import InputError
from poseda_deploy.files import require_file

MAX_BYTES = 2_000_000_000
"""Of all arrays of a file: 45 h of one person at 60 fps. Working on them takes up to three times as much, so that
8 GB of memory are enough."""
_DEFLATE_AT_BEST = 1032
"""No deflated byte unpacks to more (zlib's technical details)."""
_HEADER_BYTES = 10_000  # NumPy's own limit
_HEADER = {
    "descr": re.compile(r"'descr':\s*'([^']{1,20})'"),
    "order": re.compile(r"'fortran_order':\s*(True|False)"),
    "shape": re.compile(r"'shape':\s*\(([\dL, ]{0,200})\)"),
}
_PLAIN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU][1-9]\d{0,5})")
Read = Callable[[int], bytes]
_BROKEN = (BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, OverflowError)


@dataclass(frozen=True)
class NpyHeader:
    """What stands before the numbers of an .npy."""

    descr: str
    """NumPy's code of the type: "<f4"; "|O" is a pickle."""
    fortran: bool
    shape: tuple[int, ...]


def load_npz(path: Path, required: Sequence[str], max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """All arrays of an .npz, numbers and text; refuses pickled objects, missing keys and more than max_bytes."""
    require_file(path, "file")
    try:
        with ZipFile(path) as archive:
            infos = archive.infolist()
            arrays = {i.filename.removesuffix(".npy"): i for i in infos if i.filename.endswith(".npy")}
            _check_members(path, arrays, required, max_bytes)
            return {key: _array(archive, info) for key, info in arrays.items()}
    except InputError:
        raise
    except _BROKEN as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable .npz ({said})", hint="write it with numpy.savez") from error


def _check_members(path: Path, arrays: Mapping[str, ZipInfo], required: Sequence[str], max_bytes: int) -> None:
    """All keys are there, and together they unpack to what memory can take."""
    missing = [key for key in required if key not in arrays]
    if missing:
        held = "".join(letter if letter.isprintable() else "?" for letter in ", ".join(arrays))
        raise InputError(
            f"{path}: lacks {', '.join(missing)}; it holds {held[:300] or 'nothing'}",
            hint="see docs/conventions.md for the keys of each file",
        )
    unpacked = sum(info.file_size for info in arrays.values())
    if unpacked > max_bytes:
        raise InputError(
            f"{path}: unpacks to {unpacked / 1e9:.3g} GB, more than {max_bytes / 1e9:.3g} GB",
            hint=f"split it, or --max-memory {math.ceil(unpacked / 1e9)} where there is three times as much memory",
        )
    for key, info in arrays.items():
        check_packing(key, info)


def check_packing(key: str, info: ZipInfo) -> None:
    """NumPy stores or deflates; the others' own headers can ask for gigabytes."""
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{key} is packed by method {info.compress_type}, expected stored or deflated")
    most = 1 if info.compress_type == ZIP_STORED else _DEFLATE_AT_BEST
    if info.file_size > most * info.compress_size:
        raise ValueError(f"{key} claims more bytes than its packing can hold")


def _array(archive: ZipFile, info: ZipInfo) -> Shaped[np.ndarray, "..."]:
    with archive.open(info) as stream:
        header = read_npy_header(stream.read)
        if header.descr.endswith("O"):
            raise InputError(
                f"{archive.filename}: holds Python objects, which are not loaded (they can run code)",
                hint="save plain numeric or string arrays",
            )
        if not _PLAIN.fullmatch(header.descr):
            raise ValueError(f"{info.filename} holds {header.descr!r}, neither numbers nor text")
        dtype, count = np.dtype(header.descr), math.prod(header.shape)
        if count * dtype.itemsize != info.file_size - stream.tell():
            raise ValueError(f"{info.filename} is no longer or shorter than its header says")
        flat = np.empty(count, dtype)
        _fill(stream.read, flat.view(np.uint8).data, info.filename)
    if dtype.kind == "U":
        _check_letters(flat.view(dtype.str[0] + "u4"), info.filename)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _check_letters(code: Shaped[np.ndarray, " n"], name: str) -> None:
    """Python ends in a SystemError where a letter is none."""
    if ((code > 0x10FFFF) | ((code >= 0xD800) & (code < 0xE000))).any():
        raise ValueError(f"{name} holds text that is no Unicode")


def _fill(read: Read, into: memoryview, name: str) -> None:
    """In pieces, as zipfile makes a copy of each; the last one checks the sum."""
    while len(into):
        piece = read(min(len(into), 1 << 22))
        if not piece:
            raise EOFError(f"{name} is cut short")
        into[: len(piece)] = piece
        into = into[len(piece) :]


def read_npy_header(read: Read) -> NpyHeader:
    """The header of an .npy from its first byte, its keys in any order; a ValueError where it is none."""
    magic = read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:7] not in (b"\1", b"\2", b"\3"):
        raise ValueError("a member is no .npy of version 1 to 3")
    length = int.from_bytes(read(2 if magic[6] == 1 else 4), "little")
    if length > _HEADER_BYTES:
        raise ValueError(f"an .npy header has {length} bytes")
    text = read(length).decode("latin1")
    found = {name: pattern.search(text) for name, pattern in _HEADER.items()}
    descr, order, shape = (match and match[1] for match in found.values())
    if descr is None or order is None or shape is None:
        raise ValueError("an .npy header names no plain type, order and shape")
    sizes = tuple(int(size) for size in re.findall(r"\d+", shape))
    if len(sizes) > 32 or any(size >= 1 << 62 for size in sizes):
        raise ValueError(f"an array of shape ({shape[:60]})")
    return NpyHeader(descr, order == "True", sizes)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Complaints of the block name the file."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{path}: {error}", hint=error.hint) from error


# --- what an array must be --------------------------------------------------------------------------------------------


def numbers(
    data: Mapping[str, np.ndarray], key: str, shape: Sequence[int | None] | None = None, dtype: Any = None
) -> Shaped[np.ndarray, "..."]:
    """The array under `key`, if it holds real numbers and has that shape (None: any length; any shape).

    As `dtype`, where a number beyond its range becomes infinite; None: single or double precision, as it is stored.
    """
    if data[key].dtype.kind not in "fiu":
        raise InputError(f"{key} must hold numbers, got {data[key].dtype}")
    _check_shape(data[key], key, shape)
    own = np.promote_types(data[key].dtype, np.float32) if data[key].dtype.kind == "f" else np.dtype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        return data[key].astype(own if dtype is None else dtype, copy=False)


def whole_numbers(data: Mapping[str, np.ndarray], key: str, shape: Sequence[int | None]) -> Int[np.ndarray, "..."]:
    """The array under `key` as int64, if it holds whole numbers and has that shape (None: any length)."""
    _check_shape(data[key], key, shape)
    if data[key].dtype.kind not in "iu" or (data[key].size and data[key].max() >= 1 << 62):
        raise InputError(f"{key} must hold whole numbers, got {data[key].dtype}")
    return data[key].astype(np.int64, copy=False)


def texts(data: Mapping[str, np.ndarray], key: str, shape: Sequence[int | None]) -> Shaped[np.ndarray, "..."]:
    """The array under `key`, if it holds text and has that shape (None: any length)."""
    _check_shape(data[key], key, shape)
    if data[key].dtype.kind != "U":
        raise InputError(f"{key} must hold text, got {data[key].dtype}")
    return data[key]


def _check_shape(array: np.ndarray, key: str, shape: Sequence[int | None] | None) -> None:
    if shape is None:
        return
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        wanted = ",".join("N" if size is None else str(size) for size in shape)
        raise InputError(f"{key} must be ({wanted}), got {shape_text(array)}")


def shape_text(array: np.ndarray) -> str:
    """As docs/conventions.md writes shapes."""
    return f"({','.join(map(str, array.shape))})"
