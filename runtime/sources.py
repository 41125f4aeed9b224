"""Where pictures come from: a video file, a folder of images, a camera, an address on the network."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from threading import Event, Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np

from poseda_deploy.errors import InputError
from poseda_deploy.files import require_file
from poseda_deploy.opencv import Image, cv2
from poseda_deploy.terminal import say

from .feed import read_ahead
from .network import Address, may_hold_password, why_no_picture
from .rates import exact_fps
from .video import SILENT_S, Frame, VideoReader, open_stream, quiet

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
DEFAULT_FPS = Fraction(30)
MAX_LIVE_FPS = 240  # streams without a rate report their tick
FIRST_TRIES = 4
MOST_DIGITS = 9  # of the number of a camera
FIRST_WAIT_S, LONGEST_WAIT_S, GIVE_UP_S = 0.5, 8.0, 300.0
BLACK_LEVEL, BLANK_SPREAD = 24, 8
"""Nothing to see: 99 of 100 samples darker than the level, or as far apart as this, as where the signal is missing."""
BLACK_TOLD_S = 1.0
FROZEN_S = 3.0
"""The same picture to the last bit for so long: a sensor has noise, and encoders send a whole picture every second or
two, which rounds differently."""

Tell = Callable[[str], None]


@runtime_checkable
class Source(Protocol):
    """Gives frames, once, in order."""

    live: bool
    """Whether frames come when they come; else each waits until it is asked for."""
    size_wh: tuple[int, int]
    """Of every frame."""
    fps: Fraction
    """Of a live source: what it says of itself, 30 if nothing."""
    frame_count_hint: int
    """0 = unknown or endless."""

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Let go; an iteration under way ends, on whichever thread it runs."""
        ...

    def __enter__(self) -> "Source": ...

    def __exit__(self, *error: object) -> None: ...


def open_source(spec: str, image_fps: Fraction = DEFAULT_FPS, *, tell: Tell = say) -> Source:
    """FILE, DIR of images (at `image_fps`), INDEX of a camera, rtsp:// or http(s)://; InputError says what is wrong.

    A file that is an image is a recording of one frame.

    `tell` hears what happens to a live source: connection lost and back, black, frozen, another size.
    """
    if spec.isdecimal():
        if len(spec) > MOST_DIGITS:
            raise InputError(f"no camera has a number of {len(spec)} digits", hint="--video 0 is the first camera")
        return LiveSource(int(spec), tell)
    if "://" in spec:
        address = Address(spec)
        stream = LiveSource(address, tell)
        if address.parts.scheme.startswith("rtsp") or not stream.frame_count_hint:
            return stream
        stream.close()  # it has an end: a file on a web server
        return VideoReader(address)
    path = Path(spec)
    if may_hold_password(spec) and not _is_there(path):
        hint = "rtsp://USER:PASSWORD@HOST/PATH; or check the path of the file"
        raise InputError("video not found, and its name, which may hold a password, is not repeated", hint=hint)
    return ImageFolder(path, image_fps) if path.is_dir() or _is_image(path) else VideoReader(path)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name
        return False


def source_stem(spec: str) -> str:
    """What to call outputs after: a file's or folder's name, camera0, or host and path of an address."""
    if spec.isdecimal():
        return f"camera{spec}"
    if "://" not in spec:
        return Path(spec).resolve().stem
    return re.sub(r"\W+", "-", Address(spec).place).strip("-")


class ImageFolder:
    """One image, or those of a folder in natural order (2.jpg before 10.jpg), all of one size, at a stated rate."""

    live = False

    def __init__(self, place: Path, fps: Fraction) -> None:
        images = filter(_is_image, place.iterdir()) if place.is_dir() else [require_file(place, "video")]
        self._files = sorted(images, key=_natural)
        if not self._files:
            raise InputError(
                f"{place}: expected images in this folder, got none", hint=f"known endings: {' '.join(IMAGE_ENDINGS)}"
            )
        self.fps, self.frame_count_hint = fps, len(self._files)
        first = _read_image(self._files[0])
        self.size_wh: tuple[int, int] = (first.shape[1], first.shape[0])
        self._delivered = 0

    def __iter__(self) -> Iterator[Frame]:
        while self._delivered < len(self._files):
            index, path = self._delivered, self._files[self._delivered]
            bgr = _read_image(path)
            if bgr.shape[1::-1] != self.size_wh:
                raise InputError(
                    "{}: expected {}x{} as the images before, got {}x{}".format(path, *self.size_wh, *bgr.shape[1::-1]),
                    hint="put images of one camera into the folder, and nothing else",
                )
            self._delivered += 1
            yield Frame(index, float(index / self.fps), bgr)

    def close(self) -> None:
        """Nothing more comes."""
        self._delivered = len(self._files)

    def __enter__(self) -> "ImageFolder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _is_image(path: Path) -> bool:
    """By its name; macOS leaves ._1.jpg beside 1.jpg on foreign disks, which is none."""
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith("._")


def _natural(path: Path) -> list[str | int]:
    """Key of an order in which numbers count as numbers."""
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", path.name)]


def _read_image(path: Path) -> Image:
    with quiet():
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise InputError(f"{path}: not an image that can be read", hint="copy it again, or take it out of the folder")
    return np.asarray(bgr, np.uint8)


class LiveSource:
    """A camera (by index) or a stream (by address): frames as they arrive, their time that of arrival, from 0.

    What is lost after the first picture is asked for again, at growing intervals, until `give_up_s` have passed without
    one. Black and frozen pictures are told of and withheld: they are no frames without people. Pictures of another size
    than the first are scaled to it.
    """

    live = True

    def __init__(self, place: int | Address, tell: Tell = say, give_up_s: float = GIVE_UP_S) -> None:
        self.place, self._name = place, f"camera {place}" if isinstance(place, int) else str(place)
        self._tell: Tell = lambda event: tell(f"{self._name}: {event}")
        self._give_up_s = give_up_s
        self._stop, self._lock = Event(), Lock()
        self._capture = self._connect()
        first = self._first()
        if first is None:
            self._capture.release()
            reason, hint = self._why()
            raise InputError(f"{self._name}: no picture ({reason})", hint=hint)
        self._pending: tuple[float, Image] | None = first
        self._start_s = first[0]
        self.size_wh: tuple[int, int] = (first[1].shape[1], first[1].shape[0])
        self._came_wh = self.size_wh
        self.fps = _live_fps(self._capture.get(cv2.CAP_PROP_FPS))
        self.frame_count_hint = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.reconnects = 0
        self.watch = PictureWatch(self._tell)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while (arrived := self._pending or self._next()) is not None:
            self._pending = None
            captured_s, bgr = arrived
            if self.watch.is_usable(bgr, captured_s):
                yield Frame(index, captured_s - self._start_s, self._fitted(bgr), captured_s)
                index += 1

    def close(self) -> None:
        """Let go of the camera; waits for a picture under way."""
        self._stop.set()
        with self._lock:
            self._capture.release()

    def summary(self) -> dict[str, object]:
        """For --json: how often it was lost, and how many pictures showed nothing."""
        return {"reconnects": self.reconnects, "withheld": self.watch.withheld}

    def __enter__(self) -> "LiveSource":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _next(self) -> tuple[float, Image] | None:
        """The next picture, from a new connection if need be; None once closed."""
        asked_s = time.monotonic()
        arrived = self._grab()
        waited_s = time.monotonic() - asked_s
        # When nothing comes any more, FFmpeg gives the last picture, which its decoder held back, as if it were new.
        silent = waited_s > 0.9 * SILENT_S
        if self._stop.is_set() or (arrived is not None and not silent):
            return arrived
        why = f"silent for {waited_s:.0f} s" if silent else "it ended"
        self._tell(f"connection lost ({why}); trying again")
        return self._picture_again(asked_s)

    def _picture_again(self, lost_s: float) -> tuple[float, Image] | None:
        """Connect until there is a picture; None once closed, InputError after `give_up_s`."""
        told, wait_s = "", FIRST_WAIT_S
        while not self._stop.wait(wait_s * random.uniform(0.5, 1)):  # jitter: not all clients of a server at once
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            if (arrived := self._first_of_new()) is not None:
                self.reconnects += 1
                self._tell(f"back after {time.monotonic() - lost_s:.1f} s")
                return arrived
            if self._stop.is_set():
                break
            reason, hint = self._why()
            if reason != told:
                self._tell(f"still no picture ({reason})")
                told = reason
            if time.monotonic() - lost_s > self._give_up_s:
                raise InputError(f"{self._name}: lost, and not back in {self._give_up_s:g} s ({reason})", hint=hint)
        return None

    def _first_of_new(self) -> tuple[float, Image] | None:
        capture = self._connect()
        with self._lock:
            self._capture.release()
            self._capture = capture
            if self._stop.is_set():
                capture.release()
        return self._first()

    def _first(self) -> tuple[float, Image] | None:
        """The first picture: a decoder waits for a whole one, which some cameras send every ten seconds only."""
        tries = (self._grab() for _ in range(FIRST_TRIES))
        return next((arrived for arrived in tries if arrived is not None), None)

    def _connect(self) -> Any:  # a cv2.VideoCapture, or a test's, which cannot be derived from it
        if isinstance(self.place, Address):
            # On 8 threads FFmpeg's H.264 decoder held back 8 frames, a quarter of a second; on one, 1.
            return open_stream(self.place, cv2.CAP_PROP_N_THREADS, 1)
        with quiet():
            capture = cv2.VideoCapture(self.place)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # else four old pictures wait in the driver
        return capture

    def _grab(self) -> tuple[float, Image] | None:
        with self._lock, quiet():
            if not self._capture.grab():
                return None
            arrived_s = time.perf_counter()
            decoded, bgr = self._capture.retrieve()
        return (arrived_s, np.asarray(bgr, np.uint8)) if decoded else None

    def _why(self) -> tuple[str, str]:
        """Reason and hint."""
        if isinstance(self.place, Address):
            reason = why_no_picture(self.place)
            return str(reason), reason.hint
        return "not connected, used by another program, or not permitted", "ls /dev/video*; on Linux join group video"

    def _fitted(self, bgr: Image) -> Image:
        came_wh = (bgr.shape[1], bgr.shape[0])
        if came_wh != self._came_wh:
            self._came_wh = came_wh
            self._tell("the picture is now {}x{}; it is scaled to {}x{}".format(*came_wh, *self.size_wh))
        return bgr if came_wh == self.size_wh else np.asarray(cv2.resize(bgr, self.size_wh), np.uint8)


def _live_fps(reported: float) -> Fraction:
    return exact_fps(reported) if 1 <= reported <= MAX_LIVE_FPS else DEFAULT_FPS


class PictureWatch:
    """Tells pictures from which nothing can be learned: black ones, and those that have not changed for too long."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._last: Image | None = None
        self._changed_s = self._since_s = 0.0
        self._fault, self._told = "", False
        self.withheld = {"black": 0, "frozen": 0}
        """How many pictures there were of each."""

    def is_usable(self, bgr: Image, now_s: float) -> bool:
        """Whether to pass this picture on; the first and the last of a series of useless ones are told of."""
        if self._last is None or _differ(bgr, self._last):
            self._changed_s = now_s
        self._last = bgr
        fault = "black" if is_black(bgr) else "frozen" if now_s - self._changed_s >= FROZEN_S else ""
        if fault != self._fault:
            if self._told:
                self._tell(f"source no longer {self._fault}, after {now_s - self._since_s:.1f} s")
            self._fault, self._since_s, self._told = fault, now_s, False
        if fault:
            self.withheld[fault] += 1
            if not self._told and (fault == "frozen" or now_s - self._since_s >= BLACK_TOLD_S):
                self._tell(f"source {fault}; waiting for a picture")
                self._told = True
        return not fault


def is_black(bgr: Image) -> bool:
    """Whether there is nothing in the picture: dark, or of one colour."""
    low, high = np.percentile(bgr[::16, ::16].reshape(-1, 3), (1, 99), axis=0)
    return bool(high.max() < BLACK_LEVEL or (high - low).max() < BLANK_SPREAD)


def _differ(one: Image, other: Image) -> bool:
    """A few samples first: 20 us instead of 1 ms for a picture that moves."""
    return not (np.array_equal(one[::16, ::16], other[::16, ::16]) and np.array_equal(one, other))


class Rehearsal:
    """Recorded frames as if from a camera: each comes at its time, whether or not somebody is ready for it."""

    live = True

    def __init__(self, recorded: Source) -> None:
        self._recorded, self._stop = recorded, Event()
        self.size_wh, self.fps = recorded.size_wh, recorded.fps
        self.frame_count_hint = recorded.frame_count_hint

    def __iter__(self) -> Iterator[Frame]:
        start_s = time.perf_counter()
        with closing(read_ahead(self._recorded, depth=2)) as frames:
            for frame in frames:
                if self._stop.wait(max(start_s + frame.time_s - time.perf_counter(), 0)):
                    return
                yield replace(frame, captured_s=time.perf_counter())

    def close(self) -> None:
        """No further frame comes."""
        self._stop.set()
        self._recorded.close()

    def __enter__(self) -> "Rehearsal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
