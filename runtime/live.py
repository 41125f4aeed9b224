"""The live run: frames of a source in, people into every sink, how old they were, and everything closed at the end."""

import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from poseda_deploy.poses import PosedFrame
from poseda_deploy.terminal import say

from .detect import Detector
from .feed import newest, read_ahead
from .sinks import Sink
from .sources import Source
from .timing import Recent, StageClock
from .video import Frame

RATE_FRAMES = 30  # over which the rate on the status line is taken


@runtime_checkable
class People(Protocol):
    """Turns what a detector saw in one frame after the other into people; LivePeople does."""

    def step(self, frame: Frame, xy_px: Float[np.ndarray, "p j 2"], score: Float[np.ndarray, "p j"]) -> PosedFrame:
        """The people of this frame."""
        ...


class Meter:
    """How a live run goes; one thread runs, any may read."""

    def __init__(self, clock: StageClock) -> None:
        self.clock = clock
        self.frames = self.people = self.met = self.dropped = 0
        """Frames delivered, people in the newest and met so far, frames of a live source that nobody was ready for."""
        self.age_s = 0.0
        """Of the newest frame, from its capture to when every sink had its people."""
        self._ages, self._delivered_s = Recent(), deque[float](maxlen=RATE_FRAMES)
        self._first_s = 0.0

    def on_drop(self) -> None:
        """One more frame was dropped."""
        self.dropped += 1

    def on_delivery(self, frame: Frame, people: PosedFrame) -> None:
        """The sinks have this frame's people."""
        now_s = time.perf_counter()
        self._first_s = self._first_s if self.frames else now_s
        self.age_s, self.people = now_s - frame.captured_s, len(people)
        self.met = max(self.met, 1 + int(people.person.max(initial=-1)))  # identities count up from 0
        self._ages.add(self.age_s)
        self._delivered_s.append(now_s)
        self.frames += 1

    @property
    def fps(self) -> float:
        """Frames delivered per second, over the last ones."""
        times_s = list(self._delivered_s)
        return (len(times_s) - 1) / (times_s[-1] - times_s[0]) if len(times_s) > 1 else 0.0

    def line(self) -> str:
        """For somebody who watches."""
        seen = f"{self.people} {'person' if self.people == 1 else 'people'}"
        silent_s = time.perf_counter() - self._delivered_s[-1] if self._delivered_s else 0.0
        if silent_s > 1:
            return f"waiting for a picture for {silent_s:.0f} s, {self.dropped} dropped"
        return f"{self.fps:.1f} fps, {self.age_s * 1000:.0f} ms old, {self.dropped} dropped, {seen}"

    def summary(self) -> dict[str, Any]:
        """For --json."""
        span_s = self._delivered_s[-1] - self._first_s if self._delivered_s else 0.0
        return {
            "frames": self.frames,
            "dropped": self.dropped,
            "fps": round((self.frames - 1) / span_s, 2) if span_s > 0 else 0.0,
            "age": self._ages.percentiles_ms() if self.frames else {},
            "stages": self.clock.percentiles_ms(),
        }


def never() -> bool:
    """A run that nobody asks to stop."""
    return False


def run_live(
    source: Source,
    detector: Detector,
    people: People,
    sinks: Sequence[Sink],
    meter: Meter,
    *,
    stop: Callable[[], bool] = never,
    quiet: bool = False,
) -> None:
    """Every frame (of a live source: the newest) through detector and people to all sinks, until its end or `stop`.

    However it ends, the source and all sinks are closed and threads joined. The first error is raised; those that it
    causes while closing are said.
    """
    with ExitStack() as stack:
        for sink in sinks:
            sink.__enter__()
            stack.push(_after_the_first_error(sink))
        stack.enter_context(_status(meter, quiet=quiet or not source.live))
        for frame, posed in stack.enter_context(closing(live_frames(source, detector, people, meter, stop=stop))):
            with meter.clock.stage("deliver"):
                for sink in sinks:
                    sink.put(frame, posed)
            meter.on_delivery(frame, posed)


def live_frames(
    source: Source, detector: Detector, people: People, meter: Meter, *, stop: Callable[[], bool] = never
) -> Generator[tuple[Frame, PosedFrame], None, None]:
    """Each frame with its people: all of them in order, or of a live source the newest whenever there is time.

    The source is closed at the end; `meter.on_delivery` is the caller's to call.
    """
    frames = newest(source, source.close, meter.on_drop, stop) if source.live else read_ahead(source)
    with closing(source), closing(frames):
        for frame in frames:
            if stop():
                return
            with meter.clock.stage("detect"):
                xy_px, score = detector.detect(frame)
            with meter.clock.stage("people"):
                posed = people.step(frame, xy_px, score)
            yield frame, posed


def _after_the_first_error(sink: Sink) -> Callable[..., None]:
    """The sink's exit; should it fail after something else did, that is said, and what was first goes on."""

    def leave(kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            sink.__exit__(kind, error, trace)
        except Exception as later:
            if error is None:
                raise
            say(f"{type(sink).__name__} could not finish: {later}")

    return leave


@contextmanager
def _status(meter: Meter, *, quiet: bool) -> Iterator[None]:
    """A line on stderr, new every second; where stderr is no terminal, the last one only."""
    if quiet:
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stderr)
    with Live(get_renderable=lambda: Text(meter.line()), console=console, refresh_per_second=1):
        yield
