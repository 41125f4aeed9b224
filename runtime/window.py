"""The live picture, skeletons on it and 3D beside: in a window, or recorded; painted on a thread of its own."""

import os
import sys
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from threading import Condition, Event, Thread

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import MissingDependency
from poseda_deploy.opencv import Image, cv2
from poseda_deploy.poses import PosedFrame

from .draw import OverlayPainter, drawn, world_axes
from .video import Frame, VideoWriter

QUEUE_FRAMES = 4
Up = Callable[[], Float[np.ndarray, "3"]]


class LivePainter(OverlayPainter):
    """An overlay painter for which the direction up may become known, or better known, as it goes."""

    def __init__(self, size_wh: tuple[int, int], up: Up) -> None:
        super().__init__(size_wh, up())
        self._up = up

    def paint_people(self, frame: Frame, people: PosedFrame) -> Image:
        """The canvas for the next frame."""
        self._axes = world_axes(np.asarray(self._up(), float))
        return self.paint(frame.bgr, drawn(people), frame.time_s)


class _Behind:
    """Work on frames behind the run's back: the newest `depth` wait, older ones are dropped and counted."""

    def __init__(self, work: Callable[[Frame, PosedFrame], None], depth: int, name: str) -> None:
        self._work = work
        self._waiting: deque[tuple[Frame, PosedFrame]] = deque()
        self._depth, self._changed = depth, Condition()
        self._over, self.dropped = False, 0
        self._error: Exception | None = None
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Add one; raises what the work failed of."""
        with self._changed:
            if self._error is not None:
                raise self._error
            if len(self._waiting) == self._depth:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append((frame, people))
            self._changed.notify()

    def finish(self) -> Exception | None:
        """Work off what waits, and end; what the work failed of."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()
        return self._error

    def _run(self) -> None:
        while (item := self._next()) is not None:
            try:
                self._work(*item)
            except Exception as error:
                self._error = error
                return

    def _next(self) -> tuple[Frame, PosedFrame] | None:
        with self._changed:
            while not self._waiting and not self._over:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None


class OverlayRecorder:
    """A sink: the overlay video of a live run, at a constant rate.

    Frames are repeated or left out so that the film runs as the run did; gaps are cut to `LONGEST_GAP_S`. However the
    run ends, what was recorded is a whole file; there is none if no frame came.
    """

    def __init__(self, path: Path, size_wh: tuple[int, int], fps: Fraction, up: Up) -> None:
        self._painter = LivePainter(size_wh, up)
        self._writer = VideoWriter(path, self._painter.canvas_size_wh, fps)

    @property
    def dropped(self) -> int:
        """Frames that were not painted because painting is too slow."""
        return self._behind.dropped

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Queue one frame."""
        self._behind.put(frame, people)

    def _record(self, frame: Frame, people: PosedFrame) -> None:
        self._writer.write_at(self._painter.paint_people(frame, people), frame.time_s)

    def __enter__(self) -> "OverlayRecorder":
        self._writer.__enter__()
        self._behind = _Behind(self._record, QUEUE_FRAMES, "overlay-recorder")
        return self

    def __exit__(self, *error: object) -> None:
        failure = self._behind.finish()
        if failure is not None or not self._writer.written:
            nothing = failure or EOFError()  # makes the writer leave no file
            self._writer.__exit__(type(nothing), nothing, None)
        else:
            self._writer.__exit__(None, None, None)
        if failure is not None:
            raise failure


class Window:
    """A sink: the overlay in a window, always the newest frame. `is_closed` says that the user closed it, or hit q.

    Painted on a thread; shown from the thread that puts, for macOS allows windows to the main thread only.
    """

    def __init__(self, title: str, size_wh: tuple[int, int], up: Up) -> None:
        self._title, self._painter = title, LivePainter(size_wh, up)
        self._painted: Image | None = None
        self._closed = Event()

    @property
    def is_closed(self) -> bool:
        """Whether the user wants no more."""
        return self._closed.is_set()

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Show what is painted, and have this frame painted next."""
        self._behind.put(frame, people)
        if self.is_closed:
            return
        canvas, self._painted = self._painted, None
        if canvas is not None:
            cv2.imshow(self._title, canvas)
        pressed = cv2.pollKey() & 0xFF
        if pressed in (ord("q"), 27) or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            self._closed.set()

    def _paint(self, frame: Frame, people: PosedFrame) -> None:
        self._painted = self._painter.paint_people(frame, people)

    def __enter__(self) -> "Window":
        _open_window(self._title, self._painter.canvas_size_wh)
        self._behind = _Behind(self._paint, 1, "window")
        return self

    def __exit__(self, *error: object) -> None:
        failure = self._behind.finish()
        cv2.destroyAllWindows()
        if failure is not None:
            raise failure


def _open_window(title: str, size_wh: tuple[int, int]) -> None:
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        # asked first, because Qt inside OpenCV ends the whole process
        raise MissingDependency("--show: there is no display here (DISPLAY is not set)", hint="--web PORT shows a page")
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    except cv2.error as error:
        raise MissingDependency(
            "--show: this OpenCV cannot open windows (it is the headless one)",
            hint="pip uninstall -y opencv-python-headless && pip install --force-reinstall opencv-python",
        ) from error
    cv2.resizeWindow(title, *size_wh)
