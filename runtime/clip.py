"""A recording, whole: detect in every frame, then lift knowing all of them, then draw."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from poseda_deploy.backend import Backend
from poseda_deploy.calibrate import Known, RunningSample
from poseda_deploy.camera import Camera
from poseda_deploy.camera_flags import known_scene
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.plausible import PoseCheck, lens_doubts, pixel_doubts, time_doubts, why_nobody
from poseda_deploy.poses import Poses3D
from poseda_deploy.terminal import progress

from .compare import WithOwn3D
from .detect import detect_source
from .detector_flags import open_detector
from .lift import SceneCalibration, lift_tracked
from .options import RunOptions
from .overlay import write_overlay
from .sources import Source, open_source
from .timing import StageClock
from .track import MAX_GAP_S, TrackedClip, track_clip


@dataclass(frozen=True)
class Detections:
    """What was seen in every frame, and of whom."""

    clip: TrackedClip
    lost_frames: int = 0
    """That the container promises and does not hold."""
    rival: WithOwn3D | None = None
    """MediaPipe's own 3D, where it is to be compared."""


@dataclass(frozen=True)
class LiftedClip:
    """Everybody in a recording, in metres."""

    clip: TrackedClip
    poses: Poses3D
    scene: SceneCalibration
    own: Poses3D | None
    """MediaPipe's poses of the same rows."""
    warnings: tuple[str, ...] = ()
    """What the user should know of 2D and poses."""


def detections_of(options: RunOptions, seen: Source | Keypoints2D, clock: StageClock) -> Detections:
    """Run the detector over a recording, which is closed then, unless what is in it is known already."""
    if isinstance(seen, Keypoints2D):
        keypoints, lost_frames, rival = seen, 0, None
    else:
        keypoints, lost_frames, rival = _detected(options, seen, clock)
    with clock.stage("track"):
        return Detections(track_clip(keypoints), lost_frames, rival)


def _detected(options: RunOptions, source: Source, clock: StageClock) -> tuple[Keypoints2D, int, WithOwn3D | None]:
    with open_detector(options, quiet=options.quiet) as detector, closing(source):
        rival = WithOwn3D(detector) if options.compare else None
        return *detect_source(source, rival or detector, clock, quiet=options.quiet), rival


def lift_clip(
    options: RunOptions,
    detections: Detections,
    camera: Camera,
    backend: Backend,
    known: Known,
    clock: StageClock,
) -> LiftedClip:
    """Poses of everybody, with what the recording says of camera and people."""
    clip, rival, known = detections.clip, detections.rival, known_scene(options, known)
    with progress("lifting", len(clip.keypoints), quiet=options.quiet) as advance:
        poses, scene = lift_tracked(
            backend, clip, camera, known, clock, advance, bones=options.bones, smooth=options.smooth
        )
    return LiftedClip(
        clip, poses, scene, rival.beside(poses, clip) if rival else None, warnings_of(clip.keypoints, poses, camera)
    )


def warnings_of(keypoints: Keypoints2D, poses: Poses3D, camera: Camera) -> tuple[str, ...]:
    """What people's 2D and poses hardly are, what they cannot show, and why nobody is there."""
    check = PoseCheck()
    check.add(poses.pose_m, poses.root_m)
    nobody = () if len(poses) else (str(why_nobody(keypoints)),)
    of_time = () if nobody else time_doubts(keypoints.time_s)
    of_input = map(str, (*pixel_doubts(keypoints), *of_time))
    return (*of_input, *_unknown(keypoints.time_s), *lens_doubts(keypoints, camera), *check.warnings(), *nobody)


def _unknown(time_s: Float[np.ndarray, " t"]) -> tuple[str, ...]:
    """What too few frames, or frames too far apart, do not show."""
    if len(time_s) < RunningSample.FIRST:
        what = "1 frame" if len(time_s) == 1 else f"{len(time_s)} frames"
        return (f"only {what}: tilt and bone lengths are guesses from them, and nothing can be steadied",)
    step_s = float(np.median(np.diff(time_s)))
    if step_s > MAX_GAP_S:
        return (f"frames are {step_s:.3g} s apart: people are matched by place, and nothing is steadied",)
    return ()


def draw_clip(options: RunOptions, video: str, path: Path, lifted: LiftedClip, clock: StageClock) -> None:
    """Second pass over the recording: paint every frame."""
    with (
        progress("drawing", len(lifted.clip.keypoints), quiet=options.quiet) as advance,
        closing(open_source(video, options.images_per_s)) as source,
    ):
        write_overlay(source, path, lifted.clip, lifted.poses, lifted.own, lifted.scene.up, clock, advance)
