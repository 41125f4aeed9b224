"""poseda-export: one verified lifter for every runtime, proven in millimetres before anything is written."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from poseda_deploy.bundle import ONNX, WEIGHTS, Bundle, default_bundle_path, load_bundle, shipped_bundle_path
from poseda_deploy.errors import InputError
from poseda_deploy.outputs import require_folder_place
from poseda_deploy.scratch import scratch_beside
from poseda_deploy.terminal import ReadOptions, progress, run_command, say

OUT = Path("models/exported")
"""Where the shipped lifter is copied to before anything is added: the package itself is not written to."""


@dataclass(frozen=True)
class ExportOptions(ReadOptions):
    """Flags of poseda-export. With neither --onnx, --trt nor --triton it only checks the bundle's lifter.onnx."""

    bundle: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Bundle to export; default: models/adapted here if there is one, else the one that ships."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Bundle to write into, begun as a copy; default: the bundle itself, of the shipped one models/exported."""
    onnx: Literal["fp32", "fp16"] | None = None
    """Write lifter.onnx anew, or lifter.fp16.onnx with the network in half."""
    trt: Literal["fp32", "fp16", "bf16"] | None = None
    """Build a TensorRT engine in that precision; fp16 brings its ONNX too."""
    batch: Annotated[str, tyro.conf.arg(metavar="MIN,OPT,MAX")] = "1,1,1024"
    """People in one call that the engine serves, and is fastest for."""
    gpu: Annotated[str, tyro.conf.arg(metavar="sm86,sm89")] = ""
    """Build for those GPUs (TensorRT-RTX); default: the one here, or where there is none any that it knows."""
    keypoints: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None
    """Compare on these keypoints; default: drawn people."""
    triton: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write a model repository for NVIDIA Triton Inference Server."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace existing files."""

    def __post_init__(self) -> None:
        parse_batch(self.batch)

    def idle(self) -> Iterator[tuple[str, str]]:
        """What is for engines, and what for writing anything."""
        yield from super().idle()
        if self.trt is None:
            yield from ((name, "--trt") for name in ("batch", "gpu"))
            if self.onnx is None:
                yield "out", "--onnx or --trt"
                if self.triton is None:
                    yield "overwrite", "--onnx, --trt or --triton"


def parse_batch(text: str) -> tuple[int, int, int]:
    """(least, usual, most) of "1,64,1024"."""
    try:
        least, usual, most = (int(part) for part in text.split(","))
    except ValueError:
        least, usual, most = 0, 0, 0
    if not 1 <= least <= usual <= most:
        raise InputError(f"--batch {text}: expected MIN,OPT,MAX with 1 <= MIN <= OPT <= MAX", hint="--batch 1,64,1024")
    return least, usual, most


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-export."""
    return run_command(ExportOptions, export, argv, "poseda-export", __doc__ or "")


def export(options: ExportOptions) -> Mapping[str, Any]:
    """Make, check, write; returns the summary."""
    bundle = load_bundle(options.bundle or default_bundle_path())
    writes = options.onnx is not None or options.trt is not None
    out = _target(options, bundle) if writes else bundle.path
    if writes:
        _refuse_existing(options, out)
    # beside its place, so that moving it in is a rename; the package's own folder may be read-only
    beside = Path(os.path.realpath(out)) if writes else Path(tempfile.gettempdir()) / "poseda-export"
    with scratch_beside(beside) as scratch:
        result, summary = _make(options, bundle, out if writes else None, scratch)
    if options.triton is not None:
        from .triton import write_repository

        summary["triton"] = [str(path) for path in write_repository(result, options.triton, options.overwrite)]
    return {"bundle": str(result.path), **summary}


def _make(options: ExportOptions, bundle: Bundle, out: Path | None, scratch: Path) -> tuple[Bundle, dict[str, Any]]:
    """The bundle with what was added (itself where nothing was), and the figures."""
    from .stage import Stage

    with progress("exporting", 4, quiet=options.quiet) as advance:
        stage = Stage(bundle, scratch)
        advance(1)
        if options.onnx is not None:
            stage.add_onnx(options.onnx)
        advance(1)
        if options.trt is not None:
            stage.add_engine(options.trt, parse_batch(options.batch), _gpus(options.gpu))
        advance(1)
        stage.verify(options.keypoints, options.max_bytes)
        advance(1)
    figures = {"files": stage.names, **stage.summary()}
    return bundle if out is None else stage.publish(out, overwrite=options.overwrite), figures


def _target(options: ExportOptions, bundle: Bundle) -> Path:
    """The folder to write into: a bundle of the same weights, or one yet to be."""
    shipped = bundle.path.resolve() == shipped_bundle_path().resolve()
    out = options.out or (OUT if shipped else bundle.path)
    if options.out is None and shipped:
        say(f"poseda-export: the shipped lifter is copied to {OUT}; run it with poseda-run --bundle {OUT}")
    require_folder_place(out, overwrite=True)  # to a bundle that is there, files are added
    if out.resolve() == bundle.path.resolve() or not out.exists() or not any(out.iterdir()):
        return out
    there = load_bundle(out)
    if there.manifest.files.get(WEIGHTS) != bundle.manifest.files.get(WEIGHTS):
        raise InputError(f"{out} holds another lifter than {bundle.path}", hint="--out DIR writes elsewhere")
    return out


def _refuse_existing(options: ExportOptions, out: Path) -> None:
    """Before any work: files that are there already need --overwrite. Engines are named later, and checked then."""
    name = {"fp32": ONNX, "fp16": "lifter.fp16.onnx"}.get(options.onnx or "")
    if name and (out / name).exists() and not options.overwrite:
        raise InputError(f"{out / name} exists", hint="--overwrite replaces it, --out DIR writes elsewhere")


def _gpus(text: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())
