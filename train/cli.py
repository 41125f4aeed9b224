"""poseda-train: source poses in, a bundle with a ready lifter.onnx out."""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from poseda_deploy.errors import InputError
from poseda_deploy.terminal import CommonOptions, progress, run_command


@dataclass(frozen=True)
class TrainOptions(CommonOptions):
    """Flags of poseda-train; what has no flag keeps the defaults of TrainConfig, LifterConfig and ViewConfig."""

    source: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE.npz|DIR")] = ()
    """Source poses: positions (N,17,3) in metres, y up, with seq_id, seq_subject and valid; or folders of .bvh."""
    bvh_scale: float = 1.0
    """Metres a unit of the BVH files: 0.01 for centimetres, 0.05644 for cgspeed's of CMU."""
    without: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SUBJECT")] = ()
    """Subjects to leave out, compared for equality."""
    out: Path = Path("models/trained")
    """Bundle folder to write."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an existing bundle."""
    start: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Bundle whose weights to go on from."""
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule; 3e-4 suits --start."""
    steps: int = 60_000
    """Optimiser steps; 60,000 take about half an hour on one core."""
    batch: int = 512
    """Views a step."""
    width: int = 512
    """Hidden units of the network."""
    blocks: int = 2
    """Residual blocks of the network."""
    seed: int = 0
    """Same seed, same weights, on one machine."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train."""


@dataclass(frozen=True)
class ImportOptions(CommonOptions):
    """Flags of poseda-train import-h36m."""

    file: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="data_3d_h36m.npz")]] = Path("data_3d_h36m.npz")
    """Human3.6M as VideoPose3D's prepare_data_h36m.py writes it."""
    out: Path = Path("h36m.npz")
    """Source file to write."""
    fps: Literal[25, 50] = 25
    """50 keeps every frame, 25 every second."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an existing file."""


def convert(options: ImportOptions) -> Mapping[str, Any]:
    """Write the source file; returns its summary."""
    if options.out.exists() and not options.overwrite:
        raise InputError(f"{options.out} exists", hint="--overwrite replaces it, --out FILE writes elsewhere")
    from .import_h36m import import_h36m

    return import_h36m(options.file, options.out, options.fps)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-train."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["import-h36m"]:
        return run_command(ImportOptions, convert, argv[1:], "poseda-train import-h36m", "Human3.6M to a source file.")
    return run_command(TrainOptions, train, argv, "poseda-train", __doc__ or "")


def train(options: TrainOptions) -> Mapping[str, Any]:
    """Train and write the bundle; returns the summary."""
    if options.out.exists() and not options.overwrite:
        raise InputError(f"{options.out} exists", hint="--overwrite replaces it, --out DIR writes elsewhere")
    from .publish import publish, require_exporters

    require_exporters()
    import torch

    from poseda_deploy.bundle import WEIGHTS, load_bundle
    from poseda_deploy.model import LifterConfig

    from .config import TrainConfig
    from .loop import fit
    from .source import load_source

    torch.set_num_threads(1)  # two threads are five times slower than one wherever anything else runs
    lifter_config = LifterConfig(width=options.width, blocks=options.blocks)
    given = ("source", "without", "bvh_scale", "start", "learning_rate", "steps", "batch", "seed", "device")
    config = TrainConfig(lifter=lifter_config, **{name: getattr(options, name) for name in given})
    source = load_source(config.source, config.without, config.bvh_scale)
    started = time.monotonic()
    errors_mm: dict[int, float] = {0: float("inf")}
    unfinished = options.out.with_name(f".{options.out.name}.unfinished.safetensors")
    with progress("training", config.steps, quiet=options.quiet) as advance:

        def on_steps(step: int, error_mm: float) -> None:
            advance(step - max(errors_mm))
            errors_mm[step] = error_mm

        lifter = fit(config, source, on_steps, unfinished)
    report = {
        "source_poses": len(source.pose_m),
        "training_error_mm": round(statistics.median(list(errors_mm.values())[-200:]), 1),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    told = asdict(config) | {"source": [path.name for path in config.source]}
    if config.start:
        told["start"] = {"bundle": config.start.name, "weights": load_bundle(config.start).manifest.files[WEIGHTS]}
    bundle = publish(lifter, options.out, name=options.out.name, config=told, report=report)
    unfinished.unlink(missing_ok=True)
    return {"bundle": str(bundle.path), **bundle.manifest.report}
