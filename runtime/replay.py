"""Detections made before, as a detector: for tests, benchmarks, and a video whose keypoints are already known."""

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import InputError
from poseda_deploy.keypoints import Keypoints2D

from .sources import Source
from .video import Frame, VideoReader


def require_same_recording(known: Keypoints2D, recording: Source) -> None:
    """InputError unless the keypoints have the recording's size and length.

    Where a file's container promises another length, or none, its frames are counted: keypoints of a file that was cut
    are of those that are left. One frame more or less is tolerated: containers miscount.
    """
    hint = "poseda-detect --video makes keypoints of this video"
    if recording.size_wh != known.size_wh:
        sizes = "{}x{} picture, and the video is {}x{}".format(*known.size_wh, *recording.size_wh)
        raise InputError(f"the keypoints are of a {sizes}", hint=hint)
    frames = recording.frame_count_hint
    if isinstance(recording, VideoReader) and abs(frames - len(known)) > 1:
        frames = recording.held_frames()
    if frames and abs(frames - len(known)) > 1:
        raise InputError(f"the keypoints have {len(known)} frames, and the video has {frames}", hint=hint)


class ReplayDetector:
    """Row i of a Keypoints2D is what is seen in frame i."""

    def __init__(self, keypoints: Keypoints2D) -> None:
        self.skeleton, self.persons = keypoints.skeleton, keypoints.people
        self._keypoints = keypoints

    def detect(self, frame: Frame) -> tuple[Float[np.ndarray, "p j 2"], Float[np.ndarray, "p j"]]:
        """(xy_px, score) as recorded; InputError where the video has other frames than the keypoints are of."""
        known = self._keypoints
        if frame.index >= len(known):
            raise InputError(
                f"the keypoints have {len(known)} frames, and the video has a frame {frame.index}",
                hint="poseda-detect --video makes keypoints of this video",
            )
        size_wh = (frame.bgr.shape[1], frame.bgr.shape[0])
        if size_wh != known.size_wh:
            raise InputError(
                "the keypoints are of a {}x{} picture, frame {} is {}x{}".format(*known.size_wh, frame.index, *size_wh),
                hint="poseda-detect --video makes keypoints of this video",
            )
        return known.xy_px[frame.index], known.score[frame.index]

    def __enter__(self) -> "ReplayDetector":
        return self

    def __exit__(self, *error: object) -> None:
        pass
