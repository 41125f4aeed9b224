"""A trained lifter becomes a bundle: weights, ONNX, golden vectors, manifest; all of it or nothing."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import save

from poseda_deploy.backend import open_backend, replay_golden
from poseda_deploy.bundle import GOLDEN, ONNX, WEIGHTS, Bundle, load_bundle, write_manifest
from poseda_deploy.errors import MissingDependency
from poseda_deploy.files import sha256
from poseda_deploy.model import Lifter
from poseda_deploy.onnx_graph import write_golden, write_onnx
from poseda_deploy.scratch import scratch_beside
from poseda_deploy.swap import replaced


def require_exporters() -> None:
    """Say now, and not after half an hour of training, that a package for writing the bundle is missing."""
    for module, extra in (("onnx", "export"), ("onnxscript", "export"), ("onnxruntime", "cpu")):
        if find_spec(module) is None:
            raise MissingDependency(f"{module} is not installed", hint=f"pip install 'poseda-deploy[{extra}]'")


def publish(
    lifter: Lifter,
    out: Path,
    *,
    overwrite: bool = False,
    name: str,
    config: Mapping[str, Any],
    report: Mapping[str, Any],
    extras: Mapping[str, bytes],
    **scene: Any,
) -> Bundle:
    """Write the bundle beside `out`, prove that ONNX Runtime gives what torch gives, then put it in place in one step.

    `extras` are further files by name; `scene` what the manifest knows of camera and people.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_beside(Path(os.path.realpath(out))) as scratch:
        folder = scratch / "bundle"
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(save(lifter.state_dict()))
        write_onnx(lifter, folder / ONNX, {"precision": "fp32", "weights_sha256": sha256(folder / WEIGHTS)})
        write_golden(lifter, folder / GOLDEN)
        for extra, content in extras.items():
            (folder / extra).write_bytes(content)
        files = (WEIGHTS, ONNX, GOLDEN, *extras)
        bundle = write_manifest(folder, files, name=name, config=config, report=report, **scene)
        with open_backend(bundle, "ort-cpu") as backend:
            parity_mm = replay_golden(backend, bundle)
        report = {**report, "onnx_parity_mm": round(parity_mm, 4)}
        write_manifest(folder, files, name=name, config=config, report=report, **scene)
        with replaced(out, overwrite=overwrite) as new:
            for path in folder.iterdir():
                path.rename(new / path.name)
    return load_bundle(out)
