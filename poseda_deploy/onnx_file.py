"""Whether an ONNX file is whole: its tensors can lie in other files, which no hash of a manifest covers.

Read as protobuf's wire format (https://protobuf.dev/programming-guides/encoding), as the runtime has no onnx package.
ONNX Runtime itself follows such references: beside the model, and for a model in memory below the current folder.
"""

from collections.abc import Iterator
from pathlib import Path

from poseda_deploy.errors import BundleError

_INSIDE = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Training": {1: "Graph", 2: "Graph"},
}
"""Message of onnx.proto -> its fields that can hold a tensor."""
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_DEEPEST = 100
"""Graphs within graphs; protobuf's own limit on messages within messages."""


def require_whole(model: bytes, path: Path) -> None:
    """BundleError where a tensor of that ONNX file lies in another file, or where it is no ONNX file."""
    try:
        whole = not _reaches_out(memoryview(model), "Model", _DEEPEST)
    except ValueError as error:
        raise BundleError(f"{path}: not an ONNX file ({error})", hint="make it again, or copy it again") from error
    if not whole:
        raise BundleError(
            f"{path}: its weights lie in another file (external data), which is not read",
            hint="onnx.save(onnx.load(PATH), PATH) makes one file of it",
        )


def _reaches_out(message: memoryview, kind: str, deepest: int) -> bool:
    if not deepest:
        raise ValueError("nested too deeply")
    if kind == "Tensor":
        return any(field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value) for field, value in _fields(message))
    inside = _INSIDE[kind]
    return any(
        _reaches_out(value, inside[field], deepest - 1)
        for field, value in _fields(message)
        if field in inside and isinstance(value, memoryview)
    )


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """(field, value) of a message; fixed numbers are passed over as 0."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        value: memoryview | int = 0
        if wire == 0:
            value, at = _varint(message, at)
        elif wire == 2:
            size, at = _varint(message, at)
            value = message[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at > len(message) or not field:
            raise ValueError("cut short")
        yield field, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number there, and where the next thing begins."""
    number = 0
    for index, byte in enumerate(message[at : at + 10]):
        number |= (byte & 127) << (7 * index)
        if byte < 128:
            return number, at + index + 1
    raise ValueError("cut short")
