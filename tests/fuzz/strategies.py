"""Hypothesis strategies: files of the right form with wrong content, for every reader."""

import json
import pickletools
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fuzz import seeds

_SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, max_side=4)
_ARRAYS = hnp.scalar_dtypes().flatmap(lambda dtype: hnp.arrays(dtype, _SHAPES))
_OBJECTS = st.sampled_from([np.array({"a": 1}, object), np.array([None] * 3, object)])
_EXTREMES = st.sampled_from([np.nan, np.inf, -1, 0, 1.005, 2, 1e30, 1e300, 2**62])
_TYPES = st.sampled_from(["f2", ">f4", "f8", "i1", "u8", "?", "U4", "c8"])
_NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**30, 10**400, 2**63, -1, 0.5, 1e300]))
_WORDS = (
    "image_id",
    "keypoints",
    "annotations",
    "people",
    "pose_keypoints_2d",
    "K",
    "dist",
    "size",
    "frame",
    "pose",
    "",
)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(_WORDS), inner, max_size=3)),
    max_leaves=8,
)


def files(reader: str) -> st.SearchStrategy[bytes]:
    """Files for that reader."""
    if reader in seeds.NPZ:
        return _npz(seeds.NPZ[reader]())
    if reader in seeds.JSON:
        return _json(seeds.JSON[reader])
    if reader in seeds.TEXT:
        return _lines(seeds.TEXT[reader].splitlines())
    return _programs()


@st.composite
def _npz(draw: st.DrawFn, arrays: dict[str, Any]) -> bytes:
    for key in draw(st.lists(st.sampled_from([*arrays, "time_s", "seq_id"]), min_size=1, max_size=3)):
        if key in arrays and draw(st.booleans()):
            arrays = {**arrays, key: _changed(draw, np.asarray(arrays[key]))}
        elif draw(st.integers(0, 9)):
            arrays = {**arrays, key: draw(st.one_of(_ARRAYS, _OBJECTS))}
        else:
            arrays = {other: value for other, value in arrays.items() if other != key}
    return seeds.npz(arrays)


def _changed(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """Another type, another shape, or one number that does not belong there."""
    kind = draw(st.integers(0, 2))
    if kind == 0 and array.dtype.kind in "fiub":
        with np.errstate(all="ignore"):
            return array.astype(draw(_TYPES))
    if not array.size:
        return array
    if kind == 1 and array.ndim:
        return np.delete(array, 0, draw(st.integers(0, array.ndim - 1)))
    if array.dtype.kind != "f":
        return array[..., None]
    out = array.copy()
    with np.errstate(all="ignore"):
        out[tuple(draw(st.integers(0, size - 1)) for size in out.shape)] = draw(_EXTREMES)
    return out


@st.composite
def _json(draw: st.DrawFn, whole: Any) -> bytes:
    """With one to three values anywhere in it replaced."""
    for _ in range(draw(st.integers(1, 3))):
        whole = _replaced(draw, whole)
    return json.dumps(whole).encode() + b"\n"


def _replaced(draw: st.DrawFn, value: Any) -> Any:
    keys: list[Any] = []
    if isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return draw(_VALUES)
    key = draw(st.sampled_from(keys))
    if isinstance(value, dict):
        return {**value, key: _replaced(draw, value[key])}
    return [*value[:key], _replaced(draw, value[key]), *value[key + 1 :]]


@st.composite
def _lines(draw: st.DrawFn, lines: list[str]) -> bytes:
    """Lines in another order, some left out or twice, with other indents and numbers."""
    changed = list(lines)
    for _ in range(draw(st.integers(1, 4))):
        at, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        match draw(st.integers(0, 4)):
            case 0:
                changed[at] = ""
            case 1:
                changed[at] += "\n" + lines[other]
            case 2:
                changed[at] = " " * draw(st.integers(0, 9)) + changed[at].lstrip()
            case 3:
                words = changed[at].split(" ")
                words[draw(st.integers(0, len(words) - 1))] = draw(st.one_of(st.text(max_size=6), _NUMBERS.map(str)))
                changed[at] = " ".join(words)
            case 4:
                changed[at], changed[other] = changed[other], changed[at]
    return "\n".join(changed).encode("utf-8", errors="surrogatepass")


_OPCODES = st.sampled_from([opcode.code.encode("latin1") for opcode in pickletools.opcodes])
_WHOLE_STEPS = st.sampled_from(
    [
        *(b"}", b"]", b")", b"(", b"u", b"s", b"a", b"e", b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"\x94", b"0"),
        *(b"h\x00", b"h\x01", b"q\x05", b"j\xff\xff\xff\x7f", b"K\x01", b"N", b"\x8c\x01a", b"C\x02ab", b"\x93", b"."),
        *(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n"),
    ]
)


@st.composite
def _programs(draw: st.DrawFn) -> bytes:
    """Steps of a pickle in any order, alone or in the middle of a real one."""
    steps = b"".join(draw(st.lists(st.one_of(_WHOLE_STEPS, _OPCODES), max_size=30)))
    real = seeds.h36m(draw(st.sampled_from(seeds.PICKLES)))
    at = draw(st.integers(0, len(real)))
    return seeds.pickled(real[:at] + steps + real[at:] if draw(st.booleans()) else b"\x80\x04" + steps + b".")
