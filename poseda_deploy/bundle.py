"""The bundle: one folder that training writes and everything else reads.

    manifest.json        schema, skeleton, units, versions, config, calibration, sha256 of every other file
    lifter.onnx          the whole lifter
    lifter.safetensors   its weights
    golden.npz           inputs and outputs, replayed on first use on a machine
    lifter.fp16.onnx     the same with the network in half precision, by poseda-export
    *.engine             TensorRT engines, by poseda-export; each runs on one TensorRT version and kind of GPU

Hashes are checked before anything is parsed, and what is parsed is what was hashed: a bundle is read into memory once,
so that one which is replaced while a run starts is the old one or the new one, and never a mix.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from poseda_deploy.calibrate import Known
from poseda_deploy.camera import Camera
from poseda_deploy.errors import BundleError
from poseda_deploy.files import sha256, write_aside
from poseda_deploy.onnx_file import require_whole
from poseda_deploy.swap import MANIFEST as MANIFEST
from poseda_deploy.swap import is_plain, put_away, replaced, settle

SCHEMA = 1
ONNX, WEIGHTS, GOLDEN = "lifter.onnx", "lifter.safetensors", "golden.npz"
_PACKAGES = ("poseda-deploy", "torch", "onnx", "numpy")

Precision = Literal["fp32", "fp16", "bf16"]
"""Of the network; geometry, inputs and outputs are always fp32."""


def onnx_name(precision: Precision) -> str:
    """File of the whole lifter with its network in that precision."""
    return ONNX if precision == "fp32" else f"lifter.{precision}.onnx"


@dataclass(frozen=True)
class Engine:
    """What a TensorRT engine was built for and what it holds."""

    precision: Precision
    flavour: str
    """Its Python package: tensorrt or tensorrt_rtx."""
    tensorrt: str
    """Version; an engine runs on no other."""
    gpus: tuple[str, ...]
    """Compute capabilities ("sm89"); none = whatever this version knows."""
    gpu_name: str
    """The card it was tuned on; empty = built without a GPU."""
    batch: tuple[int, int, int]
    """Least, usual and most people in one call."""
    layers: int
    half_share: float
    """Part of the network's layers that computes in half precision, as read from the engine."""
    proof: str
    """How that was read."""


@dataclass(frozen=True)
class Manifest:
    """What the bundle says of itself."""

    files: Mapping[str, str]
    """File name -> sha256."""
    name: str = "lifter"
    schema: int = SCHEMA
    skeleton: str = "h36m17"
    units: str = (
        "keypoints and camera in pixels; pose, root and bones in metres; camera axes x right, y down, z forward"
    )
    licence: str = "Apache-2.0"
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that made it."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Everything training was told."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """Figures measured when it was made."""
    engines: Mapping[str, Engine] = field(default_factory=dict)
    """File name -> what that engine is."""
    up: tuple[float, float, float] | None = None
    """Up in camera axes, of the camera it is adapted to."""
    bones_m: tuple[float, ...] | None = None
    """Bone lengths to expect, in the order of BONE_GROUPS: mean of the people it is adapted to, else of its source."""
    person_height_m: float | None = None
    """Of the people before that camera, where that was said."""
    camera_height_m: float | None = None
    """Above their floor, where that was said."""
    camera: Mapping[str, Any] | None = None
    """That camera, where it was calibrated: fields of Camera."""
    assumed_camera: Mapping[str, Any] | None = None
    """Where it was not: what was assumed, under which its tilt was found."""

    @property
    def known(self) -> Known:
        """Of the camera and its people, before anything is seen."""
        up, bones_m = (
            None if numbers is None else np.array(numbers, np.float32) for numbers in (self.up, self.bones_m)
        )
        return Known(up, bones_m, self.person_height_m, self.camera_height_m, "bundle")

    @property
    def known_camera(self) -> Camera | None:
        """The camera it is adapted to, where it was calibrated."""
        return None if self.camera is None else Camera(**_tuples(self.camera))

    @property
    def tilt_camera(self) -> Camera | None:
        """The camera of which `up` is, as far as that is known: calibrated, or assumed."""
        fields = self.camera or self.assumed_camera
        return None if fields is None else Camera(**_tuples(fields))


@dataclass(frozen=True)
class Bundle:
    """A folder whose hashes have been checked."""

    path: Path
    manifest: Manifest
    content: Mapping[str, bytes] = field(repr=False)
    """File name -> what the hash was checked on."""

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists."""
        self.read(name)
        return self.path / name

    def read(self, name: str) -> bytes:
        """Content of a file that the manifest lists, as of when the bundle was loaded."""
        if name not in self.content:
            raise BundleError(f"bundle {self.path} has no {name}", hint="make it again with poseda-train")
        return self.content[name]

    def golden(self) -> dict[str, Float[np.ndarray, "n ..."]]:
        """Recorded inputs (keypoints, camera, up, bones) and outputs (pose, root)."""
        with np.load(BytesIO(self.read(GOLDEN)), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}


def load_bundle(path: Path) -> Bundle:
    """Read the manifest and check every file against its hash, before parsing any of them."""
    while True:
        before = _state(path)
        try:
            return read_bundle(path)
        except BundleError:
            settle(path)
            if _state(path) == before:
                raise


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes with every publication."""
    try:
        found = (path / MANIFEST).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def read_bundle(path: Path) -> Bundle:
    """As load_bundle, of a folder that nobody replaces meanwhile."""
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        cut_short = put_away(path)
        hint = f"mv {cut_short} {path}" if cut_short else "poseda-train --out DIR makes one"
        raise BundleError(f"no bundle at {path}: {MANIFEST} is missing", hint=hint)
    manifest = _parse(manifest_path)
    return Bundle(path, manifest, {name: _checked(path, name, digest) for name, digest in manifest.files.items()})


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})", hint="copy the whole folder") from error


def _checked(path: Path, name: str, expected: str) -> bytes:
    if not is_plain(name) or not (path / name).is_file():
        raise BundleError(f"bundle {path}: {name} is missing", hint="copy the whole folder")
    content = _bytes(path / name)
    got = hashlib.sha256(content).hexdigest()
    if got != expected:
        raise BundleError(
            f"bundle {path}: {name} is damaged or was changed: sha256 {got[:16]}, expected {expected[:16]}",
            hint="copy the folder again, or make it again",
        )
    if name.endswith(".onnx"):
        require_whole(content, path / name)
    return content


def _parse(path: Path) -> Manifest:
    try:
        data = json.loads(_bytes(path).decode())
        known = {f.name for f in fields(Manifest)}
        if data["schema"] > SCHEMA:
            raise BundleError(
                f"{path}: schema {data['schema']} is newer than {SCHEMA}, which this version reads",
                hint="pip install --upgrade poseda-deploy",
            )
        dict(data["files"])
        engines = {name: Engine(**_tuples(engine)) for name, engine in data.get("engines", {}).items()}
        return Manifest(**_tuples({key: data[key] for key in data if key in known}) | {"engines": engines})
    except BundleError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: not a bundle manifest ({error})", hint="copy the folder again") from error


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists only."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def write_manifest(path: Path, names: tuple[str, ...], **content: Any) -> Bundle:
    """Hash the files of a finished folder and write its manifest last, so that a half-made bundle is none."""
    save_manifest(path, Manifest({name: sha256(path / name) for name in names}, versions=made_with(), **content))
    return load_bundle(path)


def add_to_bundle(
    place: Path,
    folder: Path,
    engines: Mapping[str, Engine],
    names: Sequence[str],
    report: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Bundle:
    """Files of a folder join the bundle at `place`, which is replaced in one step by a copy that has them too.

    `report` makes the new report of the old.
    """
    with replaced(place, overwrite=True) as new:
        there = read_bundle(place)
        kept = {name: content for name, content in there.content.items() if name not in names}
        for name, content in kept.items():
            (new / name).write_bytes(content)
        for name in names:
            (folder / name).rename(new / name)
        old_engines = {name: engine for name, engine in there.manifest.engines.items() if name in kept}
        files = {name: sha256(new / name) for name in (*kept, *names)}
        told: dict[str, Any] = {"engines": {**old_engines, **engines}, "report": report(there.manifest.report)}
        save_manifest(new, replace(there.manifest, files=files, **told))
    return load_bundle(place)


def save_manifest(path: Path, manifest: Manifest) -> None:
    """Write aside, then rename."""
    with write_aside(path / MANIFEST) as aside:
        aside.write_text(json.dumps(asdict(manifest), indent=1, default=str) + "\n", encoding="utf-8")


def made_with() -> dict[str, str]:
    """Versions of the packages that shape the result."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def default_bundle_path() -> Path:
    """`models/adapted` under the current folder if there is one, whole or not, else the default that ships."""
    adapted = Path("models/adapted")
    settle(adapted)
    return adapted if os.path.lexists(adapted) or put_away(adapted) else shipped_bundle_path()


def shipped_bundle_path() -> Path:
    """The bundle inside the package: read, never written to."""
    return Path(str(files("poseda_deploy.models"))) / "default"
