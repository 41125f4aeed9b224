"""2D detection: MediaPipe's pose landmarker behind one small class, and a whole video through it."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.files import require_file
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.opencv import cv2
from poseda_deploy.skeleton import MEDIAPIPE33, Skeleton
from poseda_deploy.terminal import progress, say

from .feed import read_ahead
from .native_log import native_log_dropped
from .pose_task import PoseModel, pose_task
from .sources import Source
from .timing import StageClock
from .video import Frame, VideoReader


@runtime_checkable  # so that shape checks in tests can look at it
class Detector(Protocol):
    """Finds people in one frame after the other."""

    skeleton: Skeleton
    persons: int

    def detect(self, frame: Frame) -> tuple[Float[np.ndarray, "p j 2"], Float[np.ndarray, "p j"]]:
        """(xy_px, score) of the people in any order, `persons` rows; score 0 where nobody or nothing is seen."""
        ...


class MediaPipeDetector:
    """MediaPipe Tasks' PoseLandmarker in VIDEO mode; one context manager, one video."""

    skeleton = MEDIAPIPE33

    def __init__(self, model: str = "full", persons: int = 1, *, quiet: bool = False) -> None:
        self.persons = persons
        self._landmarker = _create_landmarker(_model_file(model, quiet=quiet), persons)
        self._last_ms = -1
        self._met = False
        self.own_m: Float[np.ndarray, "p j 3"] = np.full((persons, len(MEDIAPIPE33.joints), 3), np.nan, np.float32)
        """MediaPipe's own 3D of the latest frame: metres about the hips; NaN where nobody is."""

    def detect(self, frame: Frame) -> tuple[Float[np.ndarray, "p j 2"], Float[np.ndarray, "p j"]]:
        """(xy_px, score); score is MediaPipe's visibility, 0 outside the image, where landmarks are guesses."""
        import mediapipe

        rgb = np.asarray(cv2.cvtColor(frame.bgr, cv2.COLOR_BGR2RGB), np.uint8)  # 0.2 ms; numpy's reversed copy: 5
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
        self._last_ms = max(self._last_ms + 1, round(frame.time_s * 1000))  # it must strictly increase
        with nullcontext() if self._met else native_log_dropped():
            result = self._landmarker.detect_for_video(image, self._last_ms)
        found = result.pose_landmarks
        self._met = self._met or bool(found)
        people = np.zeros((self.persons, len(MEDIAPIPE33.joints), 3), np.float32)
        for row, person in zip(people, found, strict=False):
            row[:] = [(p.x, p.y, p.visibility) for p in person]
        self.own_m = np.full((self.persons, len(MEDIAPIPE33.joints), 3), np.nan, np.float32)
        for row, person in zip(self.own_m, result.pose_world_landmarks, strict=False):
            row[:] = [(p.x, p.y, p.z) for p in person]
        normalised, score = people[..., :2], people[..., 2].clip(0, 1)
        inside = ((normalised >= 0) & (normalised <= 1)).all(-1)
        height, width = frame.bgr.shape[:2]
        return normalised * np.array([width, height], np.float32), np.where(inside, score, 0).astype(np.float32)

    def __enter__(self) -> "MediaPipeDetector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._landmarker.close()


def detect_source(source: Source, detector: Detector, clock: StageClock, *, quiet: bool) -> tuple[Keypoints2D, int]:
    """Detections of a whole recording; also how many frames it promises but does not hold, which is said.

    In order, every frame, decoding ahead on a second thread.
    """
    xy_px, score, time_s = [], [], []
    with progress("detecting", source.frame_count_hint or None, quiet=quiet) as advance:
        for frame in read_ahead(_timed(source, clock)):
            with clock.stage("detect"):
                person_xy_px, person_score = detector.detect(frame)
            xy_px.append(person_xy_px)
            score.append(person_score)
            time_s.append(frame.time_s)
            advance(1)
    lost = source.lost_frames if isinstance(source, VideoReader) else 0
    if lost and isinstance(source, VideoReader):
        say(f"{source.path}: {lost} frames could not be decoded; the other {len(time_s)} are processed")
    return Keypoints2D(np.stack(xy_px), np.stack(score), source.size_wh, detector.skeleton, np.array(time_s)), lost


def _timed(source: Source, clock: StageClock) -> Iterator[Frame]:
    frames = iter(source)
    while True:
        with clock.stage("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _model_file(model: str, *, quiet: bool) -> Path:
    """lite, full and heavy are built from packages; anything else is a .task file."""
    for built in get_args(PoseModel):
        if model == built:
            return pose_task(built, quiet=quiet)
    if not model.endswith(".task"):
        raise InputError(f"unknown pose model {model!r}", hint="lite, full, heavy, or the path of a .task file")
    return require_file(Path(model), "pose model")


def _create_landmarker(model: Path, persons: int) -> Any:
    try:
        from mediapipe.tasks.python import BaseOptions, vision
    except ImportError as error:
        raise MissingDependency("mediapipe is not installed", hint="pip install 'poseda-deploy[video]'") from error
    options = vision.PoseLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=model.read_bytes()),
        running_mode=vision.RunningMode.VIDEO,
        num_poses=persons,
    )
    with native_log_dropped():
        try:
            return vision.PoseLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"{model}: MediaPipe cannot load this pose model", hint="--pose-model full builds the official one"
            ) from error
