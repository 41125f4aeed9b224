"""poseda-train: source poses in, a bundle with a ready lifter.onnx out."""

import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from poseda_deploy.errors import InputError
from poseda_deploy.flags import require_npz_name, require_seed
from poseda_deploy.outputs import require_file_place, require_folder_place
from poseda_deploy.terminal import CommonOptions, ReadOptions, progress_to, run_command

if TYPE_CHECKING:
    from poseda_deploy.model import Lifter

    from .config import TrainConfig


@dataclass(frozen=True)
class TrainOptions(ReadOptions):
    """Flags of poseda-train; what has no flag keeps the defaults of TrainConfig, LifterConfig and ViewConfig."""

    source: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE.npz|DIR")] = ()
    """Source poses: positions (N,17,3) in metres, y up, with seq_id, seq_subject and valid; folders of .bvh; or of a
    pose prior. Default: the prior that ships."""
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
    lifter: Literal["conditioned", "mlp", "vpose", "semgcn", "stgcn"] = "conditioned"
    """Ours, conditioned on up and bone lengths; or one of the paper's, which know neither and have the paper's size."""
    width: int = 0
    """Hidden units of the conditioned lifter; 0: 512."""
    blocks: int = 0
    """Residual blocks of the conditioned lifter; 0: 2."""
    seed: int = 0
    """Same seed, same weights, on one machine."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """What is for folders of BVH."""
        yield from super().idle()
        yield from _idle_without_bvh(self.source)


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


@dataclass(frozen=True)
class PriorOptions(ReadOptions):
    """Flags of poseda-train fit-prior."""

    source: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE.npz|DIR")] = ()
    """Source poses, as of poseda-train."""
    bvh_scale: float = 1.0
    """Metres a unit of the BVH files."""
    without: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SUBJECT")] = ()
    """Subjects to leave out, compared for equality."""
    components: int = 1000
    """Gaussians of the mixture; 400 to 2,500 give the same lifter."""
    rank: int = 12
    """Main directions of each."""
    seed: int = 0
    """Same seed, same prior, on one machine."""
    out: Path = Path("models/prior")
    """Folder to write."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an existing prior."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """What is for folders of BVH."""
        yield from super().idle()
        yield from _idle_without_bvh(self.source)


def _idle_without_bvh(source: Sequence[Path]) -> Iterator[tuple[str, str]]:
    if not any(path.is_dir() for path in source):
        yield "bvh_scale", "--source DIR, a folder of BVH"


def learn_prior(options: PriorOptions) -> Mapping[str, Any]:
    """Fit the prior and write it; returns what can be said of it."""
    require_seed(options.seed)
    if not options.source:
        raise InputError("no source poses", hint="--source FILE.npz ...")
    require_folder_place(options.out, overwrite=options.overwrite)
    from .fit_prior import fit_prior, prior_report
    from .picture import pose_picture
    from .prior import save_prior
    from .source import load_source

    source = load_source(options.source, options.without, options.bvh_scale, options.max_bytes)
    prior = fit_prior(source, options.components, options.rank, options.seed)
    config = asdict(options) | {"source": [path.name for path in options.source]}
    told = {key: config[key] for key in ("source", "bvh_scale", "without", "components", "rank", "seed")}
    picture = pose_picture(prior.sample(24, seed=options.seed))
    said: dict[str, Any] = {"config": told, "report": prior_report(prior, source), "picture": picture}
    bundle = save_prior(prior, options.out, overwrite=options.overwrite, **said)
    return {"prior": str(bundle.path), **bundle.manifest.report}


def convert(options: ImportOptions) -> Mapping[str, Any]:
    """Write the source file; returns its summary."""
    require_npz_name(options.out)
    require_file_place(options.out, overwrite=options.overwrite)
    from .import_h36m import import_h36m

    return import_h36m(options.file, options.out, options.fps)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-train."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["import-h36m"]:
        return run_command(ImportOptions, convert, argv[1:], "poseda-train import-h36m", "Human3.6M to a source file.")
    if argv[:1] == ["fit-prior"]:
        return run_command(PriorOptions, learn_prior, argv[1:], "poseda-train fit-prior", "Poses to a pose prior.")
    return run_command(TrainOptions, train, argv, "poseda-train", __doc__ or "")


def train(options: TrainOptions) -> Mapping[str, Any]:
    """Train and write the bundle; returns the summary."""
    require_seed(options.seed)
    require_folder_place(options.out, overwrite=options.overwrite)
    from .config import require_device
    from .publish import publish, require_exporters

    require_exporters()
    require_device(options.device)
    import torch

    from poseda_deploy.bundle import WEIGHTS, load_bundle

    from .loop import DRAW, fit
    from .picture import loss_picture
    from .source import load_source, sampler_of

    torch.set_num_threads(1)  # two threads are five times slower than one wherever anything else runs
    config = train_config(options)
    source = load_source(config.source, config.without, config.bvh_scale, options.max_bytes)
    started = time.monotonic()
    unfinished = options.out.with_name(f".{options.out.name}.unfinished.safetensors")
    with progress_to("training", config.steps, quiet=options.quiet) as advance_to:
        lifter, errors_mm = fit(config, lifter_to_train(config), sampler_of(source, config), advance_to, unfinished)
    report = {
        "source_poses": len(source.pose_m),
        "training_error_mm": round(statistics.median(errors_mm[-200:]), 1),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    told = asdict(config) | {"source": [path.name for path in config.source]}
    if config.start:
        told["start"] = {"bundle": config.start.name, "weights": load_bundle(config.start).manifest.files[WEIGHTS]}
    picture = loss_picture(errors_mm, DRAW, f"{options.out.name}: {len(source.pose_m):,} source poses")
    extras = {"training.png": picture}
    lengths = {"bones_m": tuple(map(float, source.bones_m))}
    said: dict[str, Any] = {"name": options.out.name, "config": told, "report": report, "extras": extras, **lengths}
    bundle = publish(lifter, options.out, overwrite=options.overwrite, **said)
    unfinished.unlink(missing_ok=True)
    return {"bundle": str(bundle.path), **bundle.manifest.report}


def train_config(options: TrainOptions) -> "TrainConfig":
    """Flags to knobs; refuses nonsense before anything is read."""
    from poseda_deploy.model import LifterConfig

    from .config import TrainConfig
    from .prior import default_prior_path

    lifter = LifterConfig(options.width, options.blocks, kind=options.lifter)
    given = ("without", "bvh_scale", "start", "learning_rate", "steps", "batch", "seed", "device")
    source = options.source or (default_prior_path(),)
    return TrainConfig(source=source, lifter=lifter, **{name: getattr(options, name) for name in given})


def lifter_to_train(config: "TrainConfig") -> "Lifter":
    """With random weights, or those of the bundle to start from, which must hold the same kind and size."""
    from poseda_deploy.bundle import load_bundle
    from poseda_deploy.model import Lifter, load_lifter

    if not config.start:
        import torch

        torch.manual_seed(config.seed)
        return Lifter(config.lifter)
    lifter = load_lifter(load_bundle(config.start))
    if lifter.config != config.lifter:
        raise InputError(
            f"{config.start} holds a lifter of another size or kind: {asdict(lifter.config)}",
            hint="the same --lifter, --width and --blocks",
        )
    return lifter
