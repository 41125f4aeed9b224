"""poseda-eval: measure a lifter where the true 3D is known, in mm, by the protocols that papers use."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from poseda_deploy.errors import InputError
from poseda_deploy.flags import require_seed
from poseda_deploy.terminal import ReadOptions, progress, run_command

if TYPE_CHECKING:
    from .truth import Truth


@dataclass(frozen=True)
class EvalOptions(ReadOptions):
    """Flags of poseda-eval. One of --target and --mpi-inf-3dhp says what is true."""

    target: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None
    """Calibrated target: positions_world (T,17,3) m, K, R, T, image_size of each camera, and points (T,C,J,2) px."""
    mpi_inf_3dhp: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """MPI-INF-3DHP test set as distributed, TS1 to TS6 inside."""
    protocol: Literal["h36m17", "h36m16", "limbs12", "3dhp-2929", "3dhp-official"] = "h36m16"
    """Joints and frames that count; h36m16 is all but the neck, which every data set puts elsewhere."""
    points: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Which 2D of the target; default: the exact one where it has one, else the detector's."""
    reference: Annotated[str, tyro.conf.arg(metavar="NAME")] = "positions_world"
    """Which 3D of the target is true."""
    camera: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = ()
    """Cameras to take (of MPI-INF-3DHP: parts), counting from 1; default: all."""
    every: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Take every Nth frame only, for calibrating as well."""
    noise: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """Add noise to the 2D: sigma as a share of the longer side of the person's box; detectors have 0.02."""
    seed: int = 0
    """Of the noise."""
    bundle: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Bundle to measure; default: models/adapted here if there is one, else the one that ships."""
    peer_onnx: Annotated[Path | None, tyro.conf.arg(metavar="FILE.onnx")] = None
    """Measure a foreign 16-joint lifter instead: (N,16,2) screen coordinates in, (N,16,3) metres out."""
    peer_flip: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Average the foreign lifter with its mirror image (ours does so inside)."""
    calibrate: bool = True
    """Read up and bone lengths off each view's own 2D first, as poseda-run does; --no-calibrate leaves them unknown."""
    poses: Annotated[Path | None, tyro.conf.arg(metavar="FILE.poses.npz")] = None
    """Measure poses that poseda-run wrote for one camera of the target; the first person of a frame counts."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """What needs noise."""
        yield from super().idle()
        if not self.noise:
            yield "seed", "--noise"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-eval."""

    def work(options: EvalOptions) -> Mapping[str, Any]:
        report = evaluate_command(options)
        return report if options.json else _brief(report)

    return run_command(EvalOptions, work, argv, "poseda-eval", __doc__ or "")


_BRIEF = ("frames", "mpjpe_mm", "p_mpjpe_mm", "root_error_mm", "up_from", "bones_from", "from")


def _brief(report: Mapping[str, Any]) -> dict[str, Any]:
    """What fits a screen: of each camera and sequence the figures that are looked at first."""
    short = {
        key: {name: {k: rows[k] for k in _BRIEF if k in rows} for name, rows in report[key].items()}
        for key in ("cameras", "sequences", "calibration")
    }
    return {**report, **short}


def evaluate_command(options: EvalOptions) -> Mapping[str, Any]:
    """Read the truth, lift, score; returns the report."""
    _check(options)
    truth = _truth(options)
    if options.poses is not None:
        return _evaluate_poses(options, options.poses, truth)
    if options.peer_onnx is not None:
        from .evaluate import open_peer

        return _evaluate(options, truth, open_peer(options.peer_onnx, flip=options.peer_flip))
    return _evaluate_bundle(options, truth)


def _check(options: EvalOptions) -> None:
    """Flags that contradict each other, before anything is read."""
    if (options.target is None) == (options.mpi_inf_3dhp is None):
        raise InputError("expected exactly one of --target, --mpi-inf-3dhp")
    if sum(flag is not None for flag in (options.bundle, options.peer_onnx, options.poses)) > 1:
        raise InputError("expected at most one of --bundle, --peer-onnx, --poses")
    if options.peer_flip and options.peer_onnx is None:
        raise InputError("--peer-flip belongs to --peer-onnx", hint="our own lifter averages inside")
    require_seed(options.seed)
    if options.every < 1:
        raise InputError(f"--every must be 1 or more, got {options.every}")
    if not 0 <= options.noise < 1:
        raise InputError(f"--noise must lie in 0..1, got {options.noise:g}", hint="0.02 is 2 % of the person's box")
    if options.poses is not None and (options.noise or options.points is not None):
        raise InputError("--poses were lifted already; --noise and --points have nothing to act on")
    if options.mpi_inf_3dhp is None and options.protocol.startswith("3dhp"):
        raise InputError(f"{options.protocol} is defined on --mpi-inf-3dhp", hint="--protocol h36m16")
    if options.mpi_inf_3dhp is not None and (options.points is not None or options.reference != "positions_world"):
        raise InputError("--points and --reference belong to --target", hint="--protocol chooses the annotation")


def _truth(options: EvalOptions) -> "Truth":
    from .evaluate import PROTOCOLS
    from .truth import read_mpi_inf_3dhp, read_target, with_noise

    if options.mpi_inf_3dhp is not None:
        rules = PROTOCOLS[options.protocol]
        annotation = rules.annotation or "annot3"
        truth = read_mpi_inf_3dhp(
            options.mpi_inf_3dhp, annotation, options.camera, options.every, inside_only=rules.inside_only
        )
    else:
        path = options.target or Path()
        truth = read_target(path, options.points, options.reference, options.camera, options.every, options.max_bytes)
    return with_noise(truth, options.noise, options.seed) if options.noise else truth


def _evaluate(options: EvalOptions, truth: "Truth", lifter: Any) -> Mapping[str, Any]:
    from .evaluate import evaluate

    with progress("evaluating", truth.frames, quiet=options.quiet) as advance:
        return evaluate(truth, lifter, options.protocol, advance)


def _evaluate_poses(options: EvalOptions, path: Path, truth: "Truth") -> Mapping[str, Any]:
    from poseda_deploy.poses import load_poses

    from .evaluate import PosesFile

    if len(truth.views) != 1:
        raise InputError(f"--poses are of one camera, {truth.name} has {len(truth.views)}", hint="add --camera N")
    return _evaluate(options, truth, PosesFile(path, load_poses(path, options.max_bytes)))


def _evaluate_bundle(options: EvalOptions, truth: "Truth") -> Mapping[str, Any]:
    from poseda_deploy.backend import open_backend, replay_golden
    from poseda_deploy.bundle import default_bundle_path, load_bundle

    from .evaluate import BundleLifter

    bundle = load_bundle(options.bundle or default_bundle_path())
    with open_backend(bundle, "ort-cpu") as backend:
        replay_golden(backend, bundle)
        return _evaluate(options, truth, BundleLifter(bundle, backend, options.calibrate))
