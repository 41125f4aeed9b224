"""The flags of poseda-run, and what follows from them before any work is done."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from os.path import isdir
from pathlib import Path
from typing import Annotated, Literal

import tyro

from poseda_deploy.camera_flags import SceneOptions
from poseda_deploy.errors import InputError
from poseda_deploy.outputs import require_file_place, require_name

from .detector_flags import DETECTING, DetectorFlags
from .rates import exact_rate

Format = Literal["npz", "jsonl", "csv", "trc", "c3d", "bvh", "rrd"]


@dataclass(frozen=True)
class RunOptions(SceneOptions, DetectorFlags):
    """Flags of poseda-run. One of --video, --keypoints or --demo says what to lift."""

    video: Annotated[str | None, tyro.conf.arg(metavar="FILE|DIR|INDEX|URL")] = field(default=None, repr=False)
    """A video file, a folder of images, a camera's number, or rtsp:// or http(s)://."""
    keypoints: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None
    """Keypoints2D file to lift instead (poseda-detect writes one); with --video, instead of detecting."""
    demo: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Lift the demo video, taken once from the package index."""
    image_fps: str = "30"
    """Rate of a folder of images, exact: 30, 29.97 or 30000/1001."""
    bundle: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Bundle to run; default: models/adapted here if there is one, else the one that ships."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="STEM")] = None
    """Stem of the outputs: STEM.poses.npz, STEM.overlay.mp4, ...; default: the input's name, in this folder."""
    formats: tuple[Format, ...] = ("npz", "jsonl")
    """Files of poses to write."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace existing outputs."""
    overlay: bool = True
    """Write the overlay video of a recording: 2D skeleton on the picture beside a 3D panel."""
    record: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write the overlay video of a live run too."""
    compare: Literal["mediapipe"] | None = None
    """Record MediaPipe's own 3D too (STEM.mediapipe.npz), and draw it as a thin figure beside ours."""
    show: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Show the overlay in a window as it comes; q or Esc ends the run."""
    web: Annotated[int | None, tyro.conf.arg(metavar="PORT")] = None
    """Show a live page there: the picture, and a 3D view to turn."""
    web_host: str = "127.0.0.1"
    """Address on which the page is served; the default is this machine alone."""
    stream: Annotated[str | None, tyro.conf.arg(metavar="udp|tcp|ws://HOST:PORT")] = field(default=None, repr=False)
    """Send every frame's people as JSON there (udp), or to whoever connects there (tcp, ws)."""
    bones: bool = True
    """Estimate each person's bone lengths and lift with them."""
    smooth: bool = True
    """Steady poses: recordings without lag and with short gaps filled, live by a One Euro filter."""
    backend: Literal["ort-cpu", "ort-cuda", "trt", "auto"] = "ort-cpu"
    """What runs the lifter, never silently another; auto times what runs here and says what it chose."""

    def check(self) -> None:
        """One source, and pictures where they are needed."""
        super().check()
        if (self.video is not None) + self.demo + (self.keypoints is not None and self.video is None) != 1:
            raise InputError("expected exactly one of --video, --keypoints, --demo", hint="poseda-run --demo")
        if self.compare and (self.keypoints is not None or self.detector != "mediapipe" or self.as_it_comes):
            raise InputError(
                "--compare mediapipe needs MediaPipe on a recording", hint="--video FILE, without --detector and --web"
            )
        if self.as_it_comes and self.video is None:
            raise InputError("--show, --web and --stream need pictures", hint="--video FILE|INDEX|URL")

    def idle(self) -> Iterator[tuple[str, str]]:
        """What needs pictures, a folder of them, a page, or a live run."""
        yield from super().idle()
        if self.keypoints is not None:
            yield from ((name, "pictures to detect people in, without --keypoints") for name in DETECTING)
        if self.video is None and not self.demo:
            yield from ((name, "--video") for name in ("overlay", "record", "image_fps"))
        elif self.demo or not isdir(self.video or ""):
            yield "image_fps", "a folder of images"
        if self.web is None:
            yield "web_host", "--web PORT"
        if self.as_it_comes:
            yield "overlay", "a recording that is lifted whole; --record records as it comes"
        elif self.demo or not may_be_live(self.video or ""):
            yield "record", "a live run; of a recording --overlay is written anyway"

    @property
    def as_it_comes(self) -> bool:
        """Whether somebody watches: then frames are lifted one by one, knowing the past only."""
        return self.show or self.web is not None or self.stream is not None

    @property
    def images_per_s(self) -> Fraction:
        """Of a folder of images."""
        return exact_rate("--image-fps", self.image_fps)


def may_be_live(spec: str) -> bool:
    """Whether --video names a camera or an address, as far as its form says it."""
    return spec.isdecimal() or "://" in spec


def output_paths(options: RunOptions, stem: Path, *, live: bool) -> dict[str, Path]:
    """Where results go, by kind; before any work, refuses to replace anything and places where nothing can be."""
    from .write import written_before

    require_name(stem)
    endings: dict[str, str] = {name: f".poses.{name}" for name in options.formats}
    if options.compare:
        endings["mediapipe"] = ".mediapipe.npz"
    if options.video or options.demo:
        endings |= {"overlay": ".overlay.mp4"} if (options.record if live else options.overlay) else {}
    if live:
        endings["jsonl"] = ".poses.jsonl"  # the log from which the others are made
    outputs = {kind: stem.with_name(stem.name + ending) for kind, ending in endings.items()}
    existing = [str(file) for path in outputs.values() for file in written_before(path)]
    if existing and not options.overwrite:
        raise InputError(f"{', '.join(existing)} exists", hint="--overwrite replaces it, --out STEM writes elsewhere")
    for path in outputs.values():
        require_file_place(path, overwrite=True)
    return outputs
