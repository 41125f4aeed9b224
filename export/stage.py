"""An export in the making: a copy of the bundle beside its place, files added and proven there, then moved in whole."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from poseda_deploy.backend import open_backend, open_foreign_onnx
from poseda_deploy.bundle import (
    MANIFEST,
    WEIGHTS,
    Bundle,
    Engine,
    Precision,
    add_to_bundle,
    load_bundle,
    onnx_name,
    save_manifest,
)
from poseda_deploy.cuda import find_gpu
from poseda_deploy.engines import load_tensorrt, refusal
from poseda_deploy.errors import InputError
from poseda_deploy.files import sha256
from poseda_deploy.keypoints import load_keypoints
from poseda_deploy.model import Lifter, load_lifter
from poseda_deploy.npz import MAX_BYTES
from poseda_deploy.onnx_graph import read_onnx, write_onnx
from poseda_deploy.swap import listed, replaced

from .parity import Inputs, Parity, Reference, compare, fault, probe, reference, require, torch_poses
from .precision import in_precision
from .to_tensorrt import build


@dataclass
class Stage:
    """What is being added to a bundle; nothing of it is in place before `publish`."""

    bundle: Bundle
    scratch: Path
    names: list[str] = field(default_factory=list)
    engines: dict[str, Engine] = field(default_factory=dict)
    results: list[Parity] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.scratch / "bundle"
        self.folder.mkdir()
        for name in self.bundle.manifest.files:
            if name not in self.bundle.manifest.engines:
                (self.folder / name).write_bytes(self.bundle.read(name))
        self.lifter: Lifter = load_lifter(self.bundle)
        self.gpu = find_gpu()

    def add_onnx(self, precision: Precision) -> Path:
        """The whole lifter anew from the weights; bf16 only as what an engine is built from."""
        path = self.folder / onnx_name(precision)
        facts = {"precision": precision, "weights_sha256": self.bundle.manifest.files[WEIGHTS]}
        write_onnx(in_precision(self.lifter, precision), path, facts)
        if precision != "bf16":
            self.names.append(path.name)
        return path

    def add_engine(self, precision: Precision, batch: tuple[int, int, int], gpus: tuple[str, ...]) -> str:
        """Build from the staged ONNX; returns the engine's name."""
        tensorrt = load_tensorrt()
        path = self.folder / onnx_name(precision)
        if path.name not in self.names and precision != "fp32":
            self.add_onnx(precision)
        targets = gpus or ((self.gpu.capability,) if self.gpu and tensorrt.__name__ == "tensorrt" else ())
        plan = build(path, precision, batch, targets, tensorrt, self.gpu)
        (self.folder / plan.name).write_bytes(plan.data)
        self.names.append(plan.name)
        self.engines[plan.name] = plan.engine
        self.seconds[plan.name] = round(plan.seconds, 2)
        return plan.name

    def verify(self, keypoints: Path | None, max_bytes: int = MAX_BYTES) -> None:
        """Compare everything that can run here with torch; CheckFailed at the first file over its limit."""
        people = probe(self.bundle, None if keypoints is None else load_keypoints(keypoints, max_bytes))
        truth = {name: reference(self.lifter, inputs) for name, inputs in people.items()}
        precisions: tuple[Precision, ...] = ("fp32", "fp16")
        wanted = {onnx_name(p): p for p in precisions if onnx_name(p) in self.names or p == "fp32"}
        for name, precision in wanted.items():
            self._verify_onnx(name, precision, people, truth)
        for name, engine in self.engines.items():
            self._verify_engine(name, engine, people, truth)

    def _verify_onnx(
        self, name: str, precision: Precision, people: dict[str, Inputs], truth: dict[str, Reference]
    ) -> None:
        path = self.folder / name
        read_onnx(path)
        session = open_foreign_onnx(path)
        got = {kind: tuple(session.run(["pose", "root"], dict(inputs))) for kind, inputs in people.items()}
        found = [compare(name, precision, kind, truth[kind], got[kind]) for kind in people]
        if not all(result.passed for result in found):
            require(found, fault(path, self.lifter, precision, people["golden"], self.scratch))
        self.results += found

    def _verify_engine(self, name: str, engine: Engine, people: dict[str, Inputs], truth: dict[str, Reference]) -> None:
        """On the GPU where there is one that it is for; else bf16 in torch, and the ONNX has spoken for fp16, fp32."""
        why = "there is no GPU here" if self.gpu is None else refusal(engine, load_tensorrt(), self.gpu)
        if not why:
            with open_backend(self.staged(), "trt", engine.precision) as backend:
                got = {kind: backend.lift(*inputs.values()) for kind, inputs in people.items()}
            candidate, cause = name, "its ONNX agrees with torch, so TensorRT computes it otherwise"
        elif engine.precision == "bf16":  # ONNX Runtime has no bf16 on the CPU
            reduced = in_precision(self.lifter, "bf16")
            got = {kind: torch_poses(reduced, inputs) for kind, inputs in people.items()}
            candidate, cause = "torch with a bf16 network", "bf16 is too coarse for this lifter"
        if why:
            self.not_run[name] = f"built, not run: {why}"
        if not why or engine.precision == "bf16":
            found = [compare(candidate, engine.precision, kind, truth[kind], got[kind]) for kind in people]
            require(found, cause)
            self.results += found

    def staged(self) -> Bundle:
        """The copy, as the bundle it will be."""
        old = self.bundle.manifest
        names = {name for name in old.files if name not in old.engines} | set(self.names)
        files = {name: sha256(self.folder / name) for name in sorted(names)}
        save_manifest(self.folder, replace(old, files=files, engines=self.engines, report=self._report(old.report)))
        return load_bundle(self.folder)

    def _report(self, old: Any) -> dict[str, Any]:
        parity = {**old.get("parity", {}), **{r.candidate: {} for r in self.results}}
        for r in self.results:
            parity[r.candidate][r.people] = r.summary()
        return {**old, "parity": parity}

    def publish(self, out: Path, *, overwrite: bool) -> Bundle:
        """Into a bundle that is there, or as a new one; in one step."""
        taken = [name for name in self.names if (out / name).exists()]
        if taken and not overwrite:
            raise InputError(f"{out / taken[0]} exists", hint="--overwrite replaces it, --out DIR writes elsewhere")
        if listed(out):
            return add_to_bundle(out, self.folder, self.engines, self.names, self._report)
        staged = self.staged()
        with replaced(out, overwrite=False) as new:
            for name in (*staged.manifest.files, MANIFEST):
                (self.folder / name).rename(new / name)
        return load_bundle(out)

    def summary(self) -> dict[str, Any]:
        """Figures for the table and --json."""
        rows = {f"{r.candidate} on {r.people}": _figures(r) for r in self.results}
        engines = {
            name: {
                "MB": round((self.folder / name).stat().st_size / 1e6, 2) if (self.folder / name).exists() else None,
                "layers": engine.layers,
                "network_in_half": engine.half_share,
                "build_s": self.seconds[name],
                "proof": engine.proof,
                "run": self.not_run.get(name, "yes"),
            }
            for name, engine in self.engines.items()
        }
        return {"parity_mm": rows, "engines": engines}


def _figures(result: Parity) -> dict[str, object]:
    kept = ("pose_p99_mm", "pose_max_mm", "root_p99_mm", "root_max_mm", "limit_mm")
    return {key.removesuffix("_mm"): value for key, value in result.summary().items() if key in kept}
