"""The overlay video: the painter's canvas for every frame of a video whose people are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.poses import Poses3D
from poseda_deploy.skeleton import to_h36m17

from .draw import DrawnPerson, OverlayPainter
from .timing import StageClock
from .video import VideoReader, VideoWriter, read_ahead


def write_overlay(
    video: Path,
    path: Path,
    keypoints: Keypoints2D,
    poses: Poses3D,
    up: Float[np.ndarray, "3"],
    clock: StageClock,
    on_frame: Callable[[int], None],
) -> None:
    """Paint poses and keypoints over the video; row i of keypoints is frame i of the video."""
    xy_px, score = to_h36m17(keypoints.xy_px, keypoints.score, keypoints.skeleton)
    first_row = np.searchsorted(poses.frame, np.arange(len(keypoints) + 1))
    painter = OverlayPainter(keypoints.size_wh, up)
    with VideoReader(video) as reader, VideoWriter(path, painter.canvas_size_wh, reader.fps) as writer:
        for frame in read_ahead(reader):
            if frame.index >= len(keypoints):
                break
            rows = range(first_row[frame.index], first_row[frame.index + 1])
            people = [
                DrawnPerson(p, xy_px[frame.index, p], score[frame.index, p], poses.pose_m[row], poses.root_m[row])
                for row, p in ((row, int(poses.person[row])) for row in rows)
            ]
            with clock.stage("draw"):
                writer.write(painter.paint(frame.bgr, people, frame.time_s))
            on_frame(1)
