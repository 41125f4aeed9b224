"""The overlay video: the painter's canvas for every frame of a video whose people are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.poses import Poses3D

from .draw import DrawnPerson, OverlayPainter
from .lift import posed_frames
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
    """Paint poses and keypoints over the video; frame i of the keypoints is frame i of the video."""
    people = list(posed_frames(keypoints, poses))
    painter = OverlayPainter(keypoints.size_wh, up)
    with VideoReader(video) as reader, VideoWriter(path, painter.canvas_size_wh, reader.fps) as writer:
        for frame in read_ahead(reader):
            if frame.index >= len(keypoints):
                break
            here = people[frame.index]
            drawn = [
                DrawnPerson(int(who), *row)
                for who, *row in zip(here.person, here.xy_px, here.score, here.pose_m, here.root_m, strict=True)
            ]
            with clock.stage("draw"):
                writer.write(painter.paint(frame.bgr, drawn, frame.time_s))
            on_frame(1)
