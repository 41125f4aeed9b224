"""Camera files that users already have: OpenCV YAML or JSON, ROS YAML, Pose2Sim TOML."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from poseda_deploy.camera import LARGEST_SIDE_PX, Camera
from poseda_deploy.errors import CameraError, PosedaError
from poseda_deploy.files import require_file
from poseda_deploy.lens import LensModel, lens_named
from poseda_deploy.opencv_text import parse_xml, parse_yaml
from poseda_deploy.parsing import parse_json, parse_toml, read_text

_MATRIX_KEYS = ("camera_matrix", "cameraMatrix", "intrinsic_matrix", "K", "M", "mtx", "matrix")
_DISTORTION_KEYS = (
    *("distortion_coefficients", "distCoeffs", "dist_coeffs", "distortion", "distortions", "dist", "D", "d"),
    "distortion_coeffs",
)
_LENS_KEYS = ("distortion_model", "lens_model", "lens", "camera_model")
_FISHEYE_KEYS = ("fisheye", "fisheye_model")
_WIDTH_KEYS, _HEIGHT_KEYS = ("image_width", "width"), ("image_height", "height")
_SIZE_KEYS = ("image_size", "size", "resolution")
_MAX_BYTES = 1 << 20


def load_intrinsics(path: Path, size_wh: tuple[int, int], name: str | None = None) -> Camera:
    """Read one camera and scale it to the image size; `name` picks one where the file has several."""
    require_file(path, "camera file")
    try:
        fields = _pick(_read(path), path, name)
        camera = _camera(fields, size_wh)
    except PosedaError as error:
        raise CameraError(f"{path}: {error}", hint=error.hint) from error
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise CameraError(
            f"{path}: not a camera file that can be read ({' '.join(str(error).split())[:200]})",
            hint="OpenCV YAML or JSON with camera_matrix and distortion_coefficients, or Pose2Sim TOML",
        ) from error
    return replace(camera.resized(size_wh), origin=f"{path.name}" + (f" [{name}]" if name else ""))


def _read(path: Path) -> Mapping[str, Any]:
    text, kind = read_text(path, _MAX_BYTES), path.suffix.lower()
    if kind == ".toml":
        return parse_toml(text)
    if kind == ".json":
        loaded = parse_json(text)
        if not isinstance(loaded, dict):
            raise CameraError("expected one JSON object")
        return loaded
    if kind in (".yml", ".yaml"):
        return parse_yaml(text)
    if kind == ".xml":
        return parse_xml(text)
    raise CameraError(f"unknown kind of camera file {path.suffix!r}", hint="use .yml, .yaml, .xml, .json or .toml")


def _pick(fields: Mapping[str, Any], path: Path, name: str | None) -> Mapping[str, Any]:
    """The section that holds the camera: the file itself or one of its tables."""
    if any(key in fields for key in _MATRIX_KEYS):
        return fields
    cameras = {
        str(value.get("name", key)): value
        for key, value in fields.items()
        if isinstance(value, dict) and any(k in value for k in _MATRIX_KEYS)
    }
    if not cameras:
        raise CameraError(
            f"no camera matrix; it has {', '.join(map(str, fields))[:300] or 'nothing'}",
            hint=f"expected {_MATRIX_KEYS[0]}",
        )
    if name is None and len(cameras) == 1:
        return next(iter(cameras.values()))
    if name not in cameras:
        raise CameraError(
            f"holds {len(cameras)} cameras", hint=f"choose with --camera-name: {', '.join(cameras)[:300]}"
        )
    return cameras[name]


def _camera(fields: Mapping[str, Any], size_wh: tuple[int, int]) -> Camera:
    matrix = _array(_first(fields, _MATRIX_KEYS))
    distortion = _first(fields, _DISTORTION_KEYS)
    own_size = _first(fields, _SIZE_KEYS)
    if own_size is None and _first(fields, _WIDTH_KEYS) is not None:
        own_size = (_first(fields, _WIDTH_KEYS), _first(fields, _HEIGHT_KEYS))
    size = size_wh if own_size is None else _size(own_size)
    if matrix.size != 9:
        raise CameraError(f"camera matrix must have 9 numbers, got {matrix.size}")
    numbers = None if distortion is None else _array(distortion)
    return Camera.from_matrix(matrix.reshape(3, 3), size, numbers, lens=_lens(fields))


def _lens(fields: Mapping[str, Any]) -> LensModel:
    """As the file says, by name or by a switch; `camera_model: pinhole` says nothing of the distortion."""
    named = [fields[key] for key in _LENS_KEYS if key in fields]
    said = {lens_named(str(name)[:60]) for name in named if name != "pinhole"}
    for switch in (fields[key] for key in _FISHEYE_KEYS if key in fields):
        if switch not in (0, 1):  # true and false are 1 and 0 in OpenCV's YAML
            raise CameraError(f"fisheye must be true or false, got {str(switch)[:60]!r}")
        said.add("fisheye" if switch else "brown-conrady")
    if len(said) > 1:
        raise CameraError(f"names two lens models: {' and '.join(sorted(said))}", hint="leave the right one")
    return said.pop() if said else "brown-conrady"


def _size(value: Any) -> tuple[int, int]:
    size_wh = np.asarray(value, np.float64)
    if size_wh.shape != (2,) or not ((size_wh >= 2) & (size_wh <= LARGEST_SIDE_PX)).all():
        raise CameraError(f"image size must be width and height in pixels, got {str(value)[:60]}")
    return int(size_wh[0]), int(size_wh[1])


def _first(fields: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((fields[key] for key in keys if key in fields), None)


def _array(value: Any) -> np.ndarray:
    """Nested lists, an OpenCV matrix, or {rows, cols, data}."""
    return np.asarray(value["data"] if isinstance(value, dict) else value, np.float64)
