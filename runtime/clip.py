"""A recording, whole: detect in every frame, then lift knowing all of them, then draw."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from poseda_deploy.backend import Backend
from poseda_deploy.bundle import Manifest
from poseda_deploy.camera import Camera
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.poses import Poses3D
from poseda_deploy.terminal import progress

from .compare import WithOwn3D
from .detect import detect_source
from .detector_flags import open_detector
from .lift import SceneCalibration, lift_keypoints
from .options import RunOptions
from .overlay import write_overlay
from .sources import open_source
from .timing import StageClock


@dataclass(frozen=True)
class Detections:
    """What was seen in every frame."""

    keypoints: Keypoints2D
    lost_frames: int = 0
    """That the container promises and does not hold."""
    rival: WithOwn3D | None = None
    """MediaPipe's own 3D, where it is to be compared."""


@dataclass(frozen=True)
class LiftedClip:
    """Everybody in a recording."""

    detections: Detections
    poses: Poses3D
    scene: SceneCalibration
    own: Poses3D | None
    """MediaPipe's poses of the same rows."""


def detections_of(options: RunOptions, video: str, clock: StageClock) -> Detections:
    """Run the detector over the recording."""
    with open_detector(options, quiet=options.quiet) as detector:
        rival = WithOwn3D(detector) if options.compare else None
        with closing(open_source(video, options.images_per_s)) as source:
            return Detections(*detect_source(source, rival or detector, clock, quiet=options.quiet), rival)


def lift_clip(
    options: RunOptions,
    detections: Detections,
    camera: Camera,
    backend: Backend,
    manifest: Manifest,
    clock: StageClock,
) -> LiftedClip:
    """Poses of everybody, with what the recording says of camera and people."""
    keypoints, rival = detections.keypoints, detections.rival
    with progress("lifting", len(keypoints), quiet=options.quiet) as advance:
        poses, scene = lift_keypoints(
            backend, keypoints, camera, manifest, clock, advance, bones=options.bones, smooth=options.smooth
        )
    return LiftedClip(detections, poses, scene, rival.beside(poses, keypoints) if rival else None)


def draw_clip(options: RunOptions, video: str, path: Path, clip: LiftedClip, clock: StageClock) -> None:
    """Second pass over the recording: paint every frame."""
    keypoints = clip.detections.keypoints
    with (
        progress("drawing", len(keypoints), quiet=options.quiet) as advance,
        closing(open_source(video, options.images_per_s)) as source,
    ):
        write_overlay(source, path, keypoints, clip.poses, clip.own, clip.scene.up, clock, advance)
