"""poseda-detect: a video, or another detector's JSON, in; my_keypoints.npz out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import isdir
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from poseda_deploy.errors import InputError
from poseda_deploy.flags import require_npz_name
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.outputs import require_file_place
from poseda_deploy.skeleton import skeleton_named
from poseda_deploy.terminal import ReadOptions, run_command

from .detector_flags import DETECTING, DetectorFlags, open_detector
from .rates import exact_rate
from .timing import StageClock


@dataclass(frozen=True)
class DetectOptions(DetectorFlags, ReadOptions):
    """Flags of poseda-detect. One of --video, --from-openpose or --from-coco says what to read."""

    video: Annotated[str | None, tyro.conf.arg(metavar="FILE|DIR|URL")] = field(default=None, repr=False)
    """Recording to detect people in: a video file, here or on a web server, or a folder of images."""
    from_openpose: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of OpenPose JSON files to convert."""
    from_coco: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """COCO-style JSON file to convert."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.npz")] = Path("my_keypoints.npz")
    """Keypoints2D file to write."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace an existing file."""
    skeleton: Literal["openpose25", "coco17", "halpe26", "mediapipe33", "h36m17"] | None = None
    """Joint order of the JSON; default: openpose25 or coco17."""
    image_size: tuple[int, int] | None = None
    """Width and height in pixels of the images behind the JSON."""
    fps: str = "30"
    """Frame rate behind the JSON or the images, exact: 30, 29.97 or 30000/1001."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """What is for pictures, and what for JSON."""
        if self.video is None:
            yield from ((name, "--video") for name in DETECTING if name != "persons")
        else:
            yield from ((name, "--from-openpose or --from-coco") for name in ("skeleton", "image_size"))
            if not isdir(self.video):
                yield "fps", "a folder of images, or JSON"
        yield from super().idle()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-detect."""
    return run_command(DetectOptions, detect, argv, "poseda-detect", __doc__ or "")


def detect(options: DetectOptions) -> Mapping[str, Any]:
    """Read or detect, then write the file; returns the summary."""
    if sum(source is not None for source in (options.video, options.from_openpose, options.from_coco)) != 1:
        raise InputError("expected exactly one of --video, --from-openpose, --from-coco")
    require_npz_name(options.out)
    require_file_place(options.out, overwrite=options.overwrite)
    clock = StageClock()
    if options.video is not None:
        keypoints, lost_frames = _detect(options, options.video, clock)
    else:
        keypoints, lost_frames = _convert(options), 0
    keypoints.save(options.out)
    return {
        "frames": len(keypoints),
        "lost_frames": lost_frames,
        "frames_with_people": int((keypoints.score > 0).any((1, 2)).sum()),
        "skeleton": keypoints.skeleton.name,
        "fps": round(len(keypoints) / clock.elapsed_s, 2),
        "stages": clock.percentiles_ms(),
        "outputs": [str(options.out)],
    }


def _detect(options: DetectOptions, video: str, clock: StageClock) -> tuple[Keypoints2D, int]:
    from .detect import detect_source
    from .sources import open_source
    from .track import in_steady_slots, track_clip

    with open_source(video, exact_rate("--fps", options.fps)) as source:
        if source.live:
            raise InputError(f"--video {video} has no end", hint="poseda-run --video takes cameras and streams")
        with open_detector(options, quiet=options.quiet) as detector:
            keypoints, lost_frames = detect_source(source, detector, clock, quiet=options.quiet)
    with clock.stage("track"):
        return in_steady_slots(track_clip(keypoints)), lost_frames


def _convert(options: DetectOptions) -> Keypoints2D:
    from .importers import from_coco, from_openpose

    if options.image_size is None:
        raise InputError("JSON keypoints do not carry the image size", hint="--image-size WIDTH HEIGHT")
    fps = exact_rate("--fps", options.fps)
    rest = options.image_size, fps, options.persons, options.max_bytes
    if options.from_openpose is not None:
        skeleton = skeleton_named(options.skeleton or "openpose25")
        return from_openpose(options.from_openpose, skeleton, *rest)
    assert options.from_coco is not None
    skeleton = skeleton_named(options.skeleton or "coco17")
    return from_coco(options.from_coco, skeleton, *rest)
