"""The overlay video: the painter's canvas for every frame of a video whose people are known."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float

from poseda_deploy.opencv import Image
from poseda_deploy.poses import Poses3D

from .compare import drawn_beside
from .draw import OverlayPainter, drawn, world_axes
from .feed import read_ahead
from .lift import posed_frames
from .sources import Source
from .timing import StageClock
from .track import TrackedClip
from .video import Frame, VideoWriter


def write_overlay(
    source: Source,
    path: Path,
    clip: TrackedClip,
    poses: Poses3D,
    own: Poses3D | None,
    up: Float[np.ndarray, "3"],
    clock: StageClock,
    on_frame: Callable[[int], None],
) -> None:
    """Paint poses and keypoints over the video; frame i of the clip is frame i of the video.

    `own` are another lifter's poses of the same rows, drawn beside.
    """
    people = list(posed_frames(clip, poses))
    right, _, _ = world_axes(up)
    first_row = np.searchsorted(poses.frame, np.arange(len(people) + 1))
    painter = OverlayPainter(clip.keypoints.size_wh, up)

    def painted(frames: Iterator[Frame]) -> Iterator[tuple[Image, float]]:
        for frame in islice(frames, len(people)):
            figures = drawn(people[frame.index])
            if own:
                rows = range(*first_row[frame.index : frame.index + 2])
                figures += [drawn_beside(own, poses, row, right) for row in rows]
            with clock.stage("draw"):
                canvas = painter.paint(frame.bgr, figures, frame.time_s)
            yield canvas, frame.time_s

    with VideoWriter(path, painter.canvas_size_wh, source.fps) as writer, closing(read_ahead(source)) as frames:
        for canvas, time_s in read_ahead(painted(frames)):  # decoding, painting and encoding on a thread each
            with clock.stage("encode"):
                writer.write_at(canvas, time_s)
            on_frame(1)
