"""poseda-run from Python: frames with their people, one after the other."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from poseda_deploy.errors import InputError
from poseda_deploy.poses import PosedFrame

from .cli import camera_of, known_of_bundle, live_people, opened_lifter, told
from .clip import detections_of, lift_clip
from .detector_flags import open_detector
from .lift import posed_frames
from .live import Meter, live_frames
from .options import RunOptions
from .sources import Source, open_source
from .timing import StageClock


def run(video: str | Path | int, **flags: Any) -> Generator[PosedFrame, None, None]:
    """As `poseda_deploy.run`."""
    if written := [name for name in ("record", "compare", "show", "web", "stream") if flags.get(name)]:
        raise InputError(f"{written[0]} is for poseda-run", hint="in Python the frames are yours: loop over them")
    options = RunOptions(video=str(video), **{"quiet": True, **flags})
    options.check()
    source = open_source(str(video), options.images_per_s)
    if source.live:
        yield from _as_it_comes(options, source)
        return
    with opened_lifter(options) as (backend, bundle):
        camera = camera_of(options, None, source.size_wh, bundle)
        detections = detections_of(options, source, StageClock())
        lifted = lift_clip(options, detections, camera, backend, known_of_bundle(bundle, camera), StageClock())
    told(lifted.warnings)
    yield from posed_frames(lifted.clip, lifted.poses)


def _as_it_comes(options: RunOptions, source: Source) -> Generator[PosedFrame, None, None]:
    with opened_lifter(options) as (backend, bundle), open_detector(options, quiet=True) as detector:
        camera = camera_of(options, None, source.size_wh, bundle)
        people = live_people(options, backend, bundle, camera, detector.skeleton)
        with closing(live_frames(source, detector, people, Meter(StageClock()))) as frames:
            for _, posed in frames:
                yield posed
