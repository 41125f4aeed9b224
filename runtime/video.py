"""Video files in and out, with exact time: frames carry the container's own time stamps, rates are fractions."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np

from poseda_deploy.errors import InputError
from poseda_deploy.files import require_file, write_aside
from poseda_deploy.opencv import Image, cv2

from .network import Address, why_no_picture
from .rates import exact_fps

MAX_FPS = 1000  # containers without a rate report their tick, 1000 (webm) or 90000 (transport streams)
PROBED_FRAMES = 30
RESTART_FRAMES = 4
"""Stamps that were only swapped or rounded fall by less."""
LONGEST_GAP_S = 1.0
"""What a film shows of an outage; the rest of it is cut out."""
CONNECT_S, SILENT_S = 5.0, 3.0
"""How long a server may take to answer, and then be silent."""
_FFMPEG_LOG = "OPENCV_FFMPEG_LOGLEVEL"


@dataclass(frozen=True)
class Frame:
    """One decoded picture."""

    index: int
    """Count from 0 of the frames delivered."""
    time_s: float
    """Presentation time from the container, 0 at the start; strictly increasing."""
    bgr: Image
    """Pixels as displayed, that is, after the file's rotation."""
    captured_s: float = field(default_factory=time.perf_counter)
    """When the picture arrived, on this machine's `time.perf_counter()`; of a file: when it was decoded."""


class VideoReader:
    """The frames of a video file, here or on a web server, once, in order; a second loop goes on where the first left.

    OpenCV turns the pictures by the file's rotation metadata, and scales them should the size change midway; `size_wh`
    is the size of the pictures that come.
    """

    live = False

    def __init__(self, path: Path | Address) -> None:
        self.path = path
        self._lock = Lock()  # close() may come while another thread decodes; OpenCV would crash
        self._capture = open_capture(path)
        first = self._decode()
        if first is None:
            self.close()
            raise _no_video(path)
        self._pending: tuple[float, Image] | None = first
        self.size_wh: tuple[int, int] = (first[1].shape[1], first[1].shape[0])
        self.fps: Fraction = _frame_rate(path, self._capture.get(cv2.CAP_PROP_FPS))
        self.frame_count_hint: int = _count(self._capture)
        """Frames that the container promises; 0 if it does not say."""
        self._clock = _Clock(self.fps)
        self._delivered = 0
        self._ended = False

    def __iter__(self) -> Iterator[Frame]:
        while (decoded := self._pending or self._decode()) is not None:
            self._pending = None
            stamp_ms, bgr = decoded
            frame = Frame(self._delivered, self._clock.time_s(self._delivered, stamp_ms), bgr)
            self._delivered += 1
            yield frame
        self._ended = self._capture.isOpened()

    @property
    def lost_frames(self) -> int:
        """Frames promised but not readable, once all have been asked for. One is tolerated: containers miscount."""
        lost = self.frame_count_hint - self._delivered if self._ended else 0
        return lost if lost > 1 else 0

    def held_frames(self) -> int:
        """How many frames there are to decode, whatever the container promises: a pass over the whole file."""
        capture, held = open_capture(self.path), 0
        with quiet():
            while capture.grab():
                held += 1
        capture.release()
        return held

    def _decode(self) -> tuple[float, Image] | None:
        with self._lock, quiet():
            if not self._capture.grab():
                return None
            stamp_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            decoded, bgr = self._capture.retrieve()
        return (stamp_ms, np.asarray(bgr, np.uint8)) if decoded else None

    def close(self) -> None:
        """Let go of the file; an iteration under way ends."""
        with self._lock:
            self._capture.release()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Clock:
    """Strictly increasing seconds from the container's stamps, or from the rate where it has none.

    Stamps that fall by more than RESTART_FRAMES begin anew, as in recordings joined to one file: time goes on there.
    """

    def __init__(self, fps: Fraction) -> None:
        self._period_s = float(1 / fps)
        self._last_s = -1.0
        self._begun_s = 0.0  # where in our time the container's zero is

    def time_s(self, index: int, stamp_ms: float) -> float:
        """Of the frame delivered as that one, with that stamp; 0 and NaN are none."""
        stamped = stamp_ms > 0
        time_s = self._begun_s + stamp_ms / 1000 if stamped else index * self._period_s
        if stamped and time_s < self._last_s - RESTART_FRAMES * self._period_s:
            self._begun_s += self._last_s + self._period_s - time_s
            time_s = self._last_s + self._period_s
        if time_s <= self._last_s:
            # Half a period: far enough for speeds to stay finite, and the next true stamp still comes later.
            time_s = self._last_s + self._period_s / 2
        self._last_s = time_s
        return time_s


class VideoWriter:
    """An mp4 (codec mp4v: OpenCV's wheels have no H.264) that appears under its name only if the block succeeds.

    Odd sizes lose their last column or row, because the codec has none.
    """

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: Fraction) -> None:
        if path.suffix.lower() != ".mp4":
            raise InputError(f"video to write: expected a name ending in .mp4, got {path}", hint="rename the output")
        self.path = path
        self.size_wh = size_wh
        self.fps = fps
        self.written = 0
        """Frames of the film so far."""
        self._film_s = 0.0  # where in the film the last picture belongs
        self._last_s: float | None = None

    def __enter__(self) -> "VideoWriter":
        with ExitStack() as stack:
            self._aside = stack.enter_context(_aside(self.path))
            with quiet():
                fourcc = cv2.VideoWriter.fourcc(*"mp4v")
                self._out = cv2.VideoWriter(str(self._aside), fourcc, float(self.fps), self.size_wh)
            if not self._out.isOpened():
                raise _cannot_write(self.path, f"{self.size_wh[0]}x{self.size_wh[1]} at {float(self.fps):g} fps")
            stack.push(self._finish)  # before the rename; if it raises there is none
            self._stack = stack.pop_all()
        return self

    def write(self, bgr: Image) -> None:
        """Append a frame of exactly `size_wh`."""
        if bgr.shape != (self.size_wh[1], self.size_wh[0], 3):  # OpenCV would drop it and only log
            raise ValueError(f"frame to write: expected {self.size_wh[0]}x{self.size_wh[1]}x3, got shape {bgr.shape}")
        with quiet():
            self._out.write(bgr)
        self.written += 1

    def write_at(self, bgr: Image, time_s: float) -> None:
        """Append what was filmed at that time, later than any before: never, once or often, so that the film runs as it
        did. Gaps are cut to `LONGEST_GAP_S`."""
        self._film_s += 0.0 if self._last_s is None else min(time_s - self._last_s, LONGEST_GAP_S)
        self._last_s = time_s
        due = int(self._film_s * self.fps + Fraction(1, 2)) + 1  # frames of the film up to this one
        for _ in range(due - self.written):
            self.write(bgr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; OpenCV does not say when the disk is full, so the file is asked what it holds."""
        with quiet():
            self._out.release()
            if error is not None:
                return
            capture = cv2.VideoCapture(str(self._aside))
        held = _count(capture) if capture.isOpened() else 0
        capture.release()
        if held != self.written or not held:
            raise _cannot_write(self.path, f"{held} of {self.written} frames arrived")


class _Quiet:
    """Keeps OpenCV and its FFmpeg from printing on stderr what an error of ours says better.

    Threads may be inside together: the first one in switches off, the last one out restores. FFmpeg's level is read
    once, when the process opens its first video.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._level, self._ours = cv2.utils.logging.getLogLevel(), _FFMPEG_LOG not in os.environ
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
                os.environ.setdefault(_FFMPEG_LOG, "-8")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                cv2.utils.logging.setLogLevel(self._level)
                if self._ours:
                    del os.environ[_FFMPEG_LOG]


_QUIET = _Quiet()


def quiet() -> _Quiet:
    """For a block: what OpenCV would print on stderr is not printed."""
    return _QUIET


def open_stream(address: Address, *settings: int) -> "cv2.VideoCapture":
    """Connect; not opened where there is nothing to be had."""
    connect = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(CONNECT_S * 1000))
    read = (cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(SILENT_S * 1000))
    with quiet():
        return cv2.VideoCapture(address.url, cv2.CAP_FFMPEG, (*connect, *read, *settings))


def open_capture(path: Path | Address) -> "cv2.VideoCapture":
    """The file's decoder; InputError, which says why, if there is none."""
    if isinstance(path, Address):
        capture = open_stream(path)
    elif path.is_dir():
        raise InputError(f"{path}: expected a video file, got a folder", hint="name one file in it")
    else:
        with quiet():
            capture = cv2.VideoCapture(str(require_file(path, "video")))
    if not capture.isOpened():
        raise _no_video(path)
    return capture


def _no_video(path: Path | Address) -> InputError:
    if isinstance(path, Address):
        reason = why_no_picture(path)
        return InputError(f"{path}: no picture ({reason})", hint=reason.hint)
    boxes = _mp4_boxes(path)
    if path.stat().st_size == 0:
        return InputError(f"{path}: expected a video, got an empty file", hint="copy or record it again")
    if "ftyp" in boxes and "moov" not in boxes:
        return InputError(
            f"{path}: the video looks truncated: the index at the end of an mp4 (its moov box) is missing",
            hint="copy it again; for a recording that was cut off, try a repair tool such as untrunc",
        )
    if "moov" in boxes:
        return InputError(f"{path}: expected at least one frame, got none", hint="record or export it again")
    return InputError(
        f"{path}: expected a video, got something that no decoder knows",
        hint="use a common format (mp4, mov, avi, mkv, webm), or convert it with ffmpeg -i IN out.mp4",
    )


def _mp4_boxes(path: Path) -> list[str]:
    """Names of the top-level boxes that begin in the file, if it is an mp4."""
    names: list[str] = []
    with path.open("rb") as stream:
        while len(head := stream.read(16)) >= 8 and (names or head[4:8] == b"ftyp"):
            names.append(head[4:8].decode("latin-1"))
            size = int.from_bytes(head[:4], "big")
            size = int.from_bytes(head[8:16], "big") if size == 1 else size
            if size < 8:  # 0: to the end of the file
                break
            stream.seek(size - len(head), os.SEEK_CUR)
    return names


def _frame_rate(path: Path | Address, reported: float) -> Fraction:
    if 0 < reported < MAX_FPS:
        return exact_fps(reported)
    with_stamps = _stamps_ms(path)
    if len(with_stamps) < 2 or with_stamps[-1] <= with_stamps[0]:
        raise InputError(
            f"{path}: expected a frame rate or time stamps, got a rate of {reported:g} and no stamps",
            hint="convert it with ffmpeg -i IN -r 30 out.mp4",
        )
    return exact_fps(1000 / float(np.median(np.diff(with_stamps))))


def _stamps_ms(path: Path | Address) -> list[float]:
    capture = open_capture(path)
    stamps = [capture.get(cv2.CAP_PROP_POS_MSEC) for _ in range(PROBED_FRAMES) if capture.grab()]
    capture.release()
    return stamps


def _count(capture: "cv2.VideoCapture") -> int:
    return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)


def _aside(path: Path) -> AbstractContextManager[Path]:
    """As write_aside, but a place where no file can be is an input error, told before the work and not after."""
    if path.is_dir():
        raise _cannot_write(path, "a folder of that name exists")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, str(error)) from error
    return write_aside(path)


def _cannot_write(path: Path, got: str) -> InputError:
    return InputError(f"{path}: the video cannot be written ({got})", hint="check the folder and the free disk space")
