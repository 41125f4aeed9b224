"""poseda-adapt: unlabelled 2D of your camera in; a bundle adapted to it, and whether that helped, out."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from poseda_deploy.bundle import WEIGHTS, Bundle, load_bundle, shipped_bundle_path
from poseda_deploy.calibrate import Known
from poseda_deploy.camera import default_camera
from poseda_deploy.camera_flags import SceneOptions, choose_camera, known_scene
from poseda_deploy.errors import InputError
from poseda_deploy.flags import require_seed
from poseda_deploy.keypoints import load_keypoints
from poseda_deploy.outputs import require_folder_place
from poseda_deploy.skeleton import BONE_GROUPS
from poseda_deploy.terminal import progress_to, run_command, say, stop_asked

if TYPE_CHECKING:
    from poseda_deploy.model import Lifter

    from .adapt import AdaptConfig, Adapted
    from .target2d import Target2D

PROG = "poseda-adapt"


@dataclass(frozen=True)
class AdaptOptions(SceneOptions):
    """Flags of poseda-adapt; what has no flag keeps the defaults of AdaptConfig and TargetViewConfig."""

    target_2d: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE.npz ...")] = ()
    """Keypoints2D files of the target, one a camera (poseda-detect writes them); several give one lifter for all."""
    bundle: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Bundle to start from; default: the one that ships."""
    source: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE.npz|DIR")] = ()
    """Source poses, as of poseda-train; default: the prior that ships."""
    without: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SUBJECT")] = ()
    """Subjects of the source to leave out."""
    out: Path = Path("models/adapted")
    """Bundle folder to write; poseda-run takes models/adapted by itself."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an existing bundle."""
    lpa: Literal["random", "adversarial", "both", "none"] = "random"
    """Local pose augmentation: random turns, a generator that learns them, both and the verdict picks; or calibrate
    only."""
    gpa: Literal["plus", "paper"] = "plus"
    """Global position alignment: ours, or PoseDA's closed form."""
    steps: int = 600
    """Optimiser steps of each try."""
    learning_rate: float = 2e-4
    """Peak of the one-cycle schedule."""
    seed: int = 0
    """Same seed, same result, on one machine."""
    minutes: float | None = None
    """Stop training after that long, or at Ctrl-C or SIGTERM: the best so far is judged and written."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE.toml")] = None
    """Flags by name, without the dashes; those of the command line win."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-adapt."""
    return run_command(AdaptOptions, run, argv, PROG, __doc__ or "")


def run(options: AdaptOptions) -> Mapping[str, Any]:
    """Calibrate, adapt, judge, write the bundle with its report; returns the summary."""
    require_seed(options.seed)
    if not options.target_2d:
        raise InputError("no target", hint="--target-2d my_keypoints.npz (poseda-detect --video FILE writes one)")
    require_folder_place(options.out, overwrite=options.overwrite)
    from .config import require_device
    from .publish import publish, require_exporters

    require_exporters()
    require_device(options.device)
    import torch

    from poseda_deploy.model import load_lifter

    from .report import report_html

    torch.set_num_threads(1)
    started = time.monotonic()
    start = load_bundle(options.bundle or shipped_bundle_path())
    lifter = load_lifter(start)
    known = known_scene(options, Known(bones_m=start.manifest.known.bones_m))
    targets = [calibrated(target, lifter, known) for target in read_targets(options)]
    config = adapt_config(options, targets)
    with stop_asked(PROG, options.minutes) as stop:  # until it is written: what was learnt is not to be lost
        adapted = adapted_to(targets, lifter, config, options, stop)
        if adapted.chosen:  # its own poses are better to read lengths off: 87.8 instead of 89.2 mm on the real target
            targets = [calibrated(target, adapted.lifter, known) for target in targets]
        summary = summarise(targets, adapted, started)
        told = told_config(options, config, start)
        bundle = publish(
            adapted.lifter,
            options.out,
            overwrite=options.overwrite,
            name=options.out.name,
            config=told,
            report=summary,
            extras={"report.html": report_html(targets, adapted, summary)},
            **scene_of(targets, known),
        )
    return {"bundle": str(bundle.path), "report": str(bundle.file("report.html")), **bundle.manifest.report}


def scene_of(targets: "Sequence[Target2D]", known: Known) -> dict[str, Any]:
    """What the manifest keeps for runs: of the people their mean, of a single camera its tilt and intrinsics."""
    heights = {"person_height_m": known.person_height_m, "camera_height_m": known.camera_height_m}
    bones_m = np.concatenate([target.bones_m for target in targets]).mean(0)
    people = {"bones_m": tuple(map(float, bones_m)), **heights}
    if len(targets) > 1:
        return people
    camera = targets[0].camera
    calibrated = camera != default_camera(camera.size_wh)
    kept = {"camera" if calibrated else "assumed_camera": asdict(camera)}
    return {**people, "up": tuple(map(float, targets[0].up)), **kept}


def read_targets(options: AdaptOptions) -> "list[Target2D]":
    """Every target file with its camera."""
    from .target2d import target_2d

    targets = []
    for path in options.target_2d:
        keypoints = load_keypoints(path, options.max_bytes)
        camera = choose_camera(options, keypoints.camera, keypoints.size_wh, PROG)
        targets.append(target_2d(keypoints, camera, path.stem))
    return targets


def calibrated(target: "Target2D", lifter: "Lifter", known: Known) -> "Target2D":
    """With what its own 2D says of up and bones, by that lifter; warnings are said."""
    from .lifting import lift_of
    from .verdict import fit_warnings

    found = target.calibrated(lift_of(lifter, target.camera), known)
    found = replace(found, warnings=(*found.warnings, *fit_warnings(lifter, found)))
    for warning in set(found.warnings) - set(target.warnings):
        say(f"{PROG}: {target.name}: {warning}")
    return found


def adapt_config(options: AdaptOptions, targets: "Sequence[Target2D]") -> "AdaptConfig":
    """Flags and the targets' noise to knobs."""
    from .adapt import AdaptConfig, Lpa
    from .target_views import TargetViewConfig

    tries: dict[str, tuple[Lpa, ...]] = {"both": ("random", "adversarial"), "none": ()}
    tries |= {"random": ("random",), "adversarial": ("adversarial",)}
    noise = max(target.noise for target in targets)
    views = TargetViewConfig(gpa=options.gpa, noise=noise)
    given = {name: getattr(options, name) for name in ("steps", "learning_rate", "seed", "device")}
    return AdaptConfig(tries=tries[options.lpa], views=views, **given)


def adapted_to(
    targets: "Sequence[Target2D]",
    lifter: "Lifter",
    config: "AdaptConfig",
    options: AdaptOptions,
    stop: Callable[[], bool],
) -> "Adapted":
    """Load the source and run the tries under one progress bar."""
    from .adapt import adapt
    from .config import TrainConfig
    from .prior import default_prior_path
    from .source import load_source, sampler_of

    source = load_source(options.source or (default_prior_path(),), options.without, max_bytes=options.max_bytes)
    sampler = sampler_of(source, TrainConfig(source=(), seed=config.seed, device=config.device))
    with progress_to("adapting", config.steps * len(config.tries), quiet=options.quiet) as advance_to:
        return adapt(lifter, targets, sampler, config, advance_to, stop)


def told_config(options: AdaptOptions, config: "AdaptConfig", start: Bundle) -> dict[str, Any]:
    """Everything adaptation was told, for the manifest."""
    return {
        "lifter": start.manifest.config["lifter"],
        "adapt": asdict(config),
        "start": {"bundle": start.path.name, "weights": start.manifest.files[WEIGHTS]},
        "target_2d": [path.name for path in options.target_2d],
        "source": [path.name for path in options.source] or ["prior"],
        "without": options.without,
        "person_height_m": options.person_height,
        "camera_height_m": options.camera_height,
    }


def summarise(targets: "Sequence[Target2D]", adapted: "Adapted", started: float) -> dict[str, Any]:
    """What the user is told, and the manifest keeps."""
    chosen = adapted.chosen
    return {
        "verdict": chosen.verdict.says if chosen else verdict_of_none(adapted),
        "kept": f"adapted ({chosen.lpa} augmentation)" if chosen else "the lifter that went in, calibrated",
        "expected_change_mm": round(chosen.verdict.change_mm, 1) if chosen else 0.0,
        "tries": {
            one.lpa: {
                "verdict": f"collapsed: {one.collapsed}" if one.collapsed else one.verdict.says,
                "matched_mm": [round(adapted.before.matched_mm, 1), round(one.evidence.matched_mm, 1)],
                "residual_percent": [round(100 * e.residual, 2) for e in (adapted.before, one.evidence)],
            }
            for one in adapted.tries
        },
        "cameras": {target.name: camera_facts(target) for target in targets},
        "minutes": round((time.monotonic() - started) / 60, 1),
    }


def verdict_of_none(adapted: "Adapted") -> str:
    """Why nothing adapted was kept."""
    if not adapted.tries:
        return "calibrated only"
    return "cannot tell" if any(one.verdict.says == "cannot tell" for one in adapted.tries) else "worse"


def camera_facts(target: "Target2D") -> dict[str, Any]:
    """The calibration of one camera, with its uncertainty and where scale comes from."""
    bones_m = [dict(zip(BONE_GROUPS, np.round(b.astype(float), 3).tolist(), strict=True)) for b in target.bones_m]
    return {
        "camera": target.camera.summary(),
        "people_seen": len(target.keypoints),
        "up": np.round(target.up.astype(float), 4).tolist(),
        "pitch_deg": round(target.pitch_deg, 1),
        "roll_deg": round(target.roll_deg, 1),
        "up_uncertainty_deg": round(target.up_error_deg, 1),
        "bones_m": bones_m,
        "scale_from": target.scale_from,
        "detector_noise_percent": round(100 * target.noise, 2),
    }
