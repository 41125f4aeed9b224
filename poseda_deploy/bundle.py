"""The bundle: one folder that training writes and everything else reads.

    manifest.json        schema, skeleton, units, versions, config, calibration, sha256 of every other file
    lifter.onnx          the whole lifter
    lifter.safetensors   its weights
    golden.npz           inputs and outputs, replayed on first use on a machine

Hashes are checked before anything is parsed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import BundleError
from poseda_deploy.files import sha256, write_aside

SCHEMA = 1
MANIFEST, ONNX, WEIGHTS, GOLDEN = "manifest.json", "lifter.onnx", "lifter.safetensors", "golden.npz"
_PACKAGES = ("poseda-deploy", "torch", "onnx", "numpy")


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
    up: tuple[float, float, float] | None = None
    """Up in camera axes, of the camera it is adapted to."""
    bones_m: tuple[float, ...] | None = None
    """Bone lengths of the people it is adapted to, in the order of BONE_GROUPS."""

    @property
    def known_up(self) -> Float[np.ndarray, "3"] | None:
        """`up` as the lifter takes it."""
        return None if self.up is None else np.array(self.up, np.float32)

    @property
    def known_bones_m(self) -> Float[np.ndarray, "9"] | None:
        """`bones_m` as the lifter takes it."""
        return None if self.bones_m is None else np.array(self.bones_m, np.float32)


@dataclass(frozen=True)
class Bundle:
    """A folder whose hashes have been checked."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists."""
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.path} has no {name}", hint="make it again with poseda-train")
        return self.path / name

    def golden(self) -> dict[str, Float[np.ndarray, "n ..."]]:
        """Recorded inputs (keypoints, camera, up, bones) and outputs (pose, root)."""
        with np.load(self.file(GOLDEN), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}


def load_bundle(path: Path) -> Bundle:
    """Read the manifest and check every file against its hash, before parsing any of them."""
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise BundleError(f"no bundle at {path}: {MANIFEST} is missing", hint="poseda-train --out DIR makes one")
    manifest = _parse(manifest_path)
    for name, expected in manifest.files.items():
        if Path(name).name != name or not (path / name).is_file():
            raise BundleError(f"bundle {path}: {name} is missing", hint="copy the whole folder")
        got = sha256(path / name)
        if got != expected:
            raise BundleError(
                f"bundle {path}: {name} is damaged or was changed: sha256 {got[:16]}, expected {expected[:16]}",
                hint="copy the folder again, or make it again",
            )
    return Bundle(path, manifest)


def _parse(path: Path) -> Manifest:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(Manifest)}
        if data["schema"] > SCHEMA:
            raise BundleError(
                f"{path}: schema {data['schema']} is newer than {SCHEMA}, which this version reads",
                hint="pip install --upgrade poseda-deploy",
            )
        dict(data["files"])
        return Manifest(**{key: value for key, value in data.items() if key in known})
    except BundleError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: not a bundle manifest ({error})", hint="copy the folder again") from error


def write_manifest(path: Path, names: tuple[str, ...], **content: Any) -> Bundle:
    """Hash the files of a finished folder and write its manifest last, so that a half-made bundle is none."""
    manifest = Manifest({name: sha256(path / name) for name in names}, versions=made_with(), **content)
    with write_aside(path / MANIFEST) as aside:
        aside.write_text(json.dumps(asdict(manifest), indent=1, default=str) + "\n", encoding="utf-8")
    return load_bundle(path)


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
    """`models/adapted` under the current folder if there is one, else the default that ships with the package."""
    adapted = Path("models/adapted")
    if (adapted / MANIFEST).is_file():
        return adapted
    return Path(str(files("poseda_deploy.models"))) / "default"
