"""poseda-run from Python: frames with their people, one after the other."""

from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

from poseda_deploy.errors import InputError
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.poses import PosedFrame
from poseda_deploy.terminal import refuse_idle

from .cli import camera_of, keypoints_of, known_of_bundle, live_people, opened_lifter, told
from .clip import detections_of, lift_clip
from .detector_flags import open_detector
from .lift import posed_frames
from .live import Meter, live_frames
from .options import RunOptions
from .replay import require_same_recording
from .sources import Source, open_source
from .timing import StageClock

IDLE = (
    "record",
    "compare",
    "show",
    "web",
    "web_host",
    "stream",
    "out",
    "formats",
    "overwrite",
    "overlay",
    "json",
    "demo",
)
"""Flags of poseda-run about what it writes and shows."""


def run(video: str | Path | int | None = None, **flags: Any) -> Generator[PosedFrame, None, None]:
    """As `poseda_deploy.run`. What is wrong with the flags, the recording or the keypoints is raised here at once."""
    if idle := [name for name in IDLE if name in flags]:
        raise InputError(f"{idle[0]} is for poseda-run", hint="in Python the frames are yours: loop over them")
    options = RunOptions(video=None if video is None else str(video), **{"quiet": True, **flags})
    options.check()
    refuse_idle(options, flags)
    known = keypoints_of(options)
    if options.video is None:
        assert known is not None  # as checked
        return _of_a_recording(options, known, nullcontext())
    source = open_source(options.video, options.images_per_s)
    with ExitStack() as on_failure:
        on_failure.enter_context(source)
        if known is not None:
            require_same_recording(known, source)
        on_failure.pop_all()
    if source.live:
        return _as_it_comes(options, source)
    return _of_a_recording(options, known or source, source)


def _of_a_recording(
    options: RunOptions, seen: Source | Keypoints2D, source: AbstractContextManager[Any]
) -> Generator[PosedFrame, None, None]:
    with source, opened_lifter(options) as (backend, bundle):
        own = seen if isinstance(seen, Keypoints2D) else None
        camera = camera_of(options, own, seen.size_wh, bundle)
        detections = detections_of(options, seen, StageClock())
        lifted = lift_clip(options, detections, camera, backend, known_of_bundle(bundle, camera), StageClock())
    told(lifted.warnings)
    yield from posed_frames(lifted.clip, lifted.poses)


def _as_it_comes(options: RunOptions, source: Source) -> Generator[PosedFrame, None, None]:
    with source, opened_lifter(options) as (backend, bundle), open_detector(options, quiet=True) as detector:
        camera = camera_of(options, None, source.size_wh, bundle)
        people = live_people(options, backend, bundle, camera, detector)
        with closing(live_frames(source, detector, people, Meter(StageClock()))) as frames:
            for _, posed in frames:
                yield posed
