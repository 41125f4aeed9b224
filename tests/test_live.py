"""The live run: newest first, bounded, counted; whatever fails, everything is closed and what was written is whole."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_video import write_video
from waiting import PATIENCE_S, wait_until

from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.poses import PosedFrame
from poseda_deploy.runtime import timing, window
from poseda_deploy.runtime.feed import newest
from poseda_deploy.runtime.live import Meter, live_frames, never, run_live
from poseda_deploy.runtime.sources import Rehearsal, Source
from poseda_deploy.runtime.timing import Recent, StageClock
from poseda_deploy.runtime.video import LONGEST_GAP_S, Frame, VideoReader
from poseda_deploy.runtime.window import LivePainter, OverlayRecorder, Window
from poseda_deploy.skeleton import H36M17

WH = (96, 64)
UP = np.array([0, -1, 0], np.float32)


class Ticking:
    """A source: a frame every `period_s`, `count` of them, then `error`. A live one's frames may be dropped."""

    size_wh, fps, frame_count_hint = WH, Fraction(100), 0

    def __init__(
        self, count: int, period_s: float = 0.01, error: Exception | None = None, *, live: bool = True
    ) -> None:
        self.live = live
        self._count, self._period_s, self._error = count, period_s, error
        self._stop, self.closed = threading.Event(), False

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            if self._stop.wait(self._period_s):
                return
            yield Frame(index, index * self._period_s, np.full((64, 96, 3), index % 200, np.uint8))
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.closed = True
        self._stop.set()

    def __enter__(self) -> "Ticking":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Handed(Ticking):
    """A live source whose next frame comes when the one before was delivered: as slow as the machine needs."""

    def __init__(self, count: int, notes: "Notes") -> None:
        super().__init__(count, period_s=0.0)
        self._notes = notes

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            wait_until(lambda index=frame.index: self._stop.is_set() or len(self._notes.frames) >= index)  # type: ignore[misc]
            yield frame


class Counted(Ticking):
    """A live source that says how many frames it has made."""

    made = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            self.made += 1
            yield frame


class StubDetector:
    """Sees one person, in `cost_s`; fails at frame `fails_at`."""

    skeleton, persons = H36M17, 1

    def __init__(self, cost_s: float = 0.0, fails_at: int = -1) -> None:
        self._cost_s, self._fails_at = cost_s, fails_at

    def detect(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(self._cost_s)
        if frame.index >= self._fails_at >= 0:
            raise InputError("the detector failed")
        return np.full((1, 17, 2), 30, np.float32), np.ones((1, 17), np.float32)


class StubPeople:
    """Whoever was seen stands 3 m away."""

    def step(self, frame: Frame, xy_px: np.ndarray, score: np.ndarray) -> PosedFrame:
        pose_m = np.zeros((len(xy_px), 17, 3), np.float32)
        pose_m[..., 1] = np.linspace(-1, 1, 17)
        root_m = np.full((len(xy_px), 3), (0, 0, 3), np.float32)
        return PosedFrame(frame.index, frame.time_s, np.arange(len(xy_px)), pose_m, root_m, score, xy_px)


class Notes:
    """A sink that writes down which frames came; fails at one of them, or while closing."""

    def __init__(self, fails_at: int = -1, fails_to_close: bool = False, cost_s: float = 0.0) -> None:
        self.frames: list[int] = []
        self.ended_with: list[object] = []
        self._fails_at, self._fails_to_close, self._cost_s = fails_at, fails_to_close, cost_s

    def put(self, frame: Frame, people: PosedFrame) -> None:
        time.sleep(self._cost_s)
        if frame.index >= self._fails_at >= 0:
            raise OSError("disk full")
        assert people.index == frame.index
        self.frames.append(frame.index)

    def __enter__(self) -> "Notes":
        return self

    def __exit__(self, *error: object) -> None:
        self.ended_with.append(error[1])
        if self._fails_to_close:
            raise OSError("cannot close")


def run(
    source: Source, *sinks: Any, cost_s: float = 0.0, fails_at: int = -1, stop: Callable[[], bool] = never
) -> Meter:
    meter = Meter(StageClock())
    run_live(source, StubDetector(cost_s, fails_at), StubPeople(), sinks, meter, stop=stop, quiet=True)
    return meter


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_of_a_file_every_frame_comes_in_order(tmp_path: Path) -> None:
    notes = Notes()
    with VideoReader(write_video(tmp_path / "a.mp4")) as source:
        meter = run(source, notes, cost_s=0.002)
    assert notes.frames == list(range(40)) and (meter.frames, meter.dropped) == (40, 0)


def test_of_a_live_source_a_fast_consumer_misses_nothing() -> None:
    notes = Notes()
    meter = run(Handed(20, notes), notes)
    assert notes.frames == list(range(20)) and (meter.frames, meter.dropped, meter.people) == (20, 0, 1)
    summary = meter.summary()
    assert summary["fps"] > 0 and 0 <= summary["age"]["p50"] <= summary["age"]["p99"]
    assert set(summary["stages"]) == {"detect", "people", "deliver"}


def test_a_consumer_ten_times_too_slow_gets_the_newest() -> None:
    source, notes, behind = Counted(100, period_s=0.002), Notes(), []

    class Slow(StubDetector):
        def detect(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
            behind.append(source.made - 1 - frame.index)
            wait_until(lambda: source.made >= min(frame.index + 10, 100))
            return super().detect(frame)

    meter = Meter(StageClock())
    run_live(source, Slow(), StubPeople(), [notes], meter, quiet=True)
    assert meter.frames + meter.dropped == 100 and 2 <= meter.frames <= 12
    assert notes.frames == sorted(set(notes.frames)) and notes.frames[-1] == 99, "the last one is not lost"
    assert np.median(behind) <= 2, "the newest, not the queue of all"


def test_age_counts_slow_sinks() -> None:
    meter = run(Ticking(5), Notes(cost_s=0.05))
    assert meter.summary()["age"]["p50"] > 50


def test_a_failing_source_gives_its_good_frames_first() -> None:
    notes = Notes()
    with pytest.raises(InputError, match="cable gone"):
        run(Ticking(3, error=InputError("cable gone")), notes)
    assert notes.frames[-1] == 2 and isinstance(notes.ended_with[0], InputError)


def test_a_failing_detector_closes_everything() -> None:
    notes, source = Notes(), Ticking(10_000, live=False)
    with pytest.raises(InputError, match="the detector failed"):
        run(source, notes, fails_at=5)
    assert notes.frames == [0, 1, 2, 3, 4] and source.closed and len(notes.ended_with) == 1


def test_a_failing_sink_closes_the_others() -> None:
    before, failing, after, source = Notes(), Notes(fails_at=3), Notes(), Ticking(10_000, live=False)
    with pytest.raises(OSError, match="disk full"):
        run(source, before, failing, after)
    assert (before.frames, after.frames) == ([0, 1, 2, 3], [0, 1, 2]) and source.closed
    assert all(len(sink.ended_with) == 1 for sink in (before, failing, after))


def test_the_first_error_is_raised_and_later_ones_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    sinks = Notes(fails_to_close=True), Notes(), Notes(fails_at=3)
    with pytest.raises(OSError, match="disk full"):
        run(Ticking(100), *sinks)
    assert "Notes could not finish: cannot close" in capsys.readouterr().err
    assert all(len(sink.ended_with) == 1 for sink in sinks)
    with pytest.raises(OSError, match="cannot close"):
        run(Ticking(3), *sinks[:2])


def test_a_sink_that_cannot_start_closes_those_before() -> None:
    class Broken(Notes):
        def __enter__(self) -> "Broken":
            raise InputError("port taken")

    before, source = Notes(), Ticking(10)
    with pytest.raises(InputError, match="port taken"):
        run(source, before, Broken())
    assert len(before.ended_with) == 1 and before.frames == []


def test_stop_is_asked_even_while_nothing_comes() -> None:
    source, start_s = Ticking(10, period_s=60), time.monotonic()
    meter = run(source, Notes(), stop=lambda: time.monotonic() - start_s > 0.3)
    assert source.closed and meter.frames == 0
    assert meter.summary()["fps"] == 0 and meter.line().startswith("0.0 fps")


def test_a_loop_may_simply_be_left() -> None:
    source = Ticking(10_000)
    frames = live_frames(source, StubDetector(), StubPeople(), Meter(StageClock()))
    for frame, people in frames:
        assert frame.index == people.index
        if frame.index > 3:
            break
    frames.close()
    assert source.closed


def test_newest_passes_on_what_it_has_before_the_end() -> None:
    dropped: list[int] = []
    items = newest(iter(range(5)), lambda: None, lambda: dropped.append(1), never)
    first = next(items)
    wait_until(lambda: len(dropped) >= 2)
    assert [first, *items][-1] == 4


CTRL_C = """
import sys
from test_live import Ticking, StubDetector, StubPeople
from poseda_deploy.runtime.live import Meter, run_live
from poseda_deploy.runtime.timing import StageClock
from poseda_deploy.terminal import stop_asked

class Lines:
    def __enter__(self):
        self.stream = open(sys.argv[1], "w")
        return self
    def put(self, frame, people):
        self.stream.write('{"frame": %d, "pad": "%s"}\\n' % (frame.index, "x" * 5000))
        print("put", flush=True)
    def __exit__(self, *error):
        self.stream.write('{"error": "%s"}\\n' % error[1])
        self.stream.close()

with stop_asked("test", None) as stop:
    run_live(Ticking(10**6, 0.001), StubDetector(), StubPeople(), [Lines()], Meter(StageClock()), stop=stop)
"""


def test_ctrl_c_ends_a_run_as_its_end_does(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", CTRL_C, str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said.decode()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) >= 20 and lines[-1] == {"error": "None"}
    assert b"fps" in said and b"1 person" in said, "the last status line"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "KEPT", 100)
    recent = Recent()
    for index in range(1050):
        recent.add(index / 1000)
    assert recent.count == 1050 and recent._seconds.nbytes == 800
    assert recent.percentiles_ms()["p50"] == pytest.approx(999.5), "of the last 100"
    clock = StageClock()
    for _ in range(3):
        with clock.stage("a"):
            pass
    assert set(clock.percentiles_ms()) == {"a"}


@pytest.mark.slow
def test_two_minutes_of_a_consumer_ten_times_too_slow(tmp_path: Path) -> None:
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    class HD(Ticking):
        size_wh = (1280, 720)

        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                yield Frame(frame.index, frame.time_s, np.full((720, 1280, 3), frame.index % 200, np.uint8))
                sizes_mb.append(resident_mb())

    sizes_mb: list[float] = []
    recorder = OverlayRecorder(tmp_path / "a.mp4", (1280, 720), Fraction(30), lambda: UP)
    meter = run(HD(3600, 1 / 30), recorder, cost_s=1 / 3)
    assert meter.frames + meter.dropped == 3600 and meter.dropped > 1800
    early, late = (np.median(sizes_mb[start : start + 900]) for start in (900, 2700))
    assert late - early < 60, "a queue of all would hold 5 GB"


# The live picture.


def wide(seconds: float, period_s: float, walker: Keypoints2D) -> Iterator[tuple[Frame, PosedFrame]]:
    people = StubPeople()
    for index in range(round(seconds / period_s)):
        frame = Frame(index, index * period_s, np.full((720, 1280, 3), 90, np.uint8))
        yield frame, people.step(frame, walker.xy_px[index % 90], walker.score[index % 90])


def test_a_recording_runs_as_the_run_did(tmp_path: Path, walker: Keypoints2D) -> None:
    with OverlayRecorder(tmp_path / "a.mp4", walker.size_wh, Fraction(30), lambda: UP) as recorder:
        for frame, people in wide(2, 0.1, walker):  # 10 fps
            recorder.put(frame, people)
            wait_until(lambda: not recorder._behind._waiting)
        late = Frame(99, 60.0, frame.bgr)  # an outage of a minute
        recorder.put(late, people)
    with VideoReader(tmp_path / "a.mp4") as reader:
        frames = list(reader)
    assert recorder.dropped == 0 and len(frames) == round((1.9 + LONGEST_GAP_S) * 30) + 1
    picture = frames[20].bgr[:, :1280].astype(int)
    assert (np.abs(picture - 90).max(-1) > 60).sum() > 1000, "a skeleton is drawn on the grey picture"


def test_a_recording_that_cannot_follow_drops(
    tmp_path: Path, walker: Keypoints2D, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Painting the first frame takes longer than the whole run."""
    paint, begun, over = LivePainter.paint_people, threading.Event(), threading.Event()

    def slowly(painter: LivePainter, frame: Frame, people: PosedFrame) -> Any:
        begun.set()
        over.wait(PATIENCE_S)
        return paint(painter, frame, people)

    monkeypatch.setattr(LivePainter, "paint_people", slowly)
    with OverlayRecorder(tmp_path / "a.mp4", walker.size_wh, Fraction(30), lambda: UP) as recorder:
        for frame, people in wide(1, 1 / 60, walker):
            recorder.put(frame, people)
            assert begun.wait(PATIENCE_S)
        over.set()
    assert recorder.dropped == 60 - 1 - window.QUEUE_FRAMES
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert 29 <= len(list(reader)) <= 31, "from the first frame that was painted to the last"


def test_a_recording_is_whole_though_the_run_failed(tmp_path: Path, walker: Keypoints2D) -> None:
    with (
        pytest.raises(InputError, match="lost"),
        OverlayRecorder(tmp_path / "a.mp4", walker.size_wh, Fraction(30), lambda: UP) as recorder,
    ):
        for frame, people in wide(0.2, 0.1, walker):
            recorder.put(frame, people)
        raise InputError("lost")
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert len(list(reader)) == 4
    with OverlayRecorder(tmp_path / "none.mp4", walker.size_wh, Fraction(30), lambda: UP):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_recording_that_fails_says_so(tmp_path: Path, walker: Keypoints2D, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ValueError("cannot paint")

    frame, people = next(wide(1, 0.1, walker))
    with (
        pytest.raises(ValueError, match="cannot paint"),
        OverlayRecorder(tmp_path / "a.mp4", walker.size_wh, Fraction(30), lambda: UP) as recorder,
    ):
        recorder.put(frame, people)
        monkeypatch.setattr(window.LivePainter, "paint_people", broken)
        while True:
            recorder.put(frame, people)
            time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []


def test_no_display_and_no_windows_in_this_opencv(monkeypatch: pytest.MonkeyPatch, walker: Keypoints2D) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(MissingDependency, match="no display") as caught, Window("a", walker.size_wh, lambda: UP):
        pass
    assert "--web" in caught.value.hint
    monkeypatch.setenv("DISPLAY", ":0")

    def headless(*args: object) -> None:
        raise window.cv2.error("The function is not implemented")

    monkeypatch.setattr(window.cv2, "namedWindow", headless)
    with pytest.raises(MissingDependency, match="headless") as caught, Window("a", walker.size_wh, lambda: UP):
        pass
    assert "pip install --force-reinstall opencv-python" in caught.value.hint


def test_a_window_shows_the_newest_and_can_be_closed(monkeypatch: pytest.MonkeyPatch, walker: Keypoints2D) -> None:
    shown: list[np.ndarray] = []
    keys = [-1] * 5 + [ord("q")]
    monkeypatch.setenv("DISPLAY", ":0")
    for name, fake in {
        "namedWindow": lambda *args: None,
        "resizeWindow": lambda *args: None,
        "imshow": lambda title, canvas: shown.append(canvas),
        "pollKey": lambda: keys.pop(0) if keys else -1,
        "getWindowProperty": lambda *args: 1.0,
        "destroyAllWindows": lambda: None,
    }.items():
        monkeypatch.setattr(window.cv2, name, fake)
    with Window("a", walker.size_wh, lambda: UP) as view:
        for count, (frame, people) in enumerate(wide(1, 0.1, walker)):
            view.put(frame, people)
            assert view.is_closed == (count >= 5)
            wait_until(lambda: view.is_closed or view._painted is not None)
    assert len(shown) == 5 and shown[0].shape == (720, 2000, 3)


def test_a_rehearsal_through_the_live_path(tmp_path: Path) -> None:
    with Rehearsal(VideoReader(write_video(tmp_path / "a.mp4", frames=20, fps=Fraction(50)))) as source:
        meter = run(source, Notes())
    assert meter.frames + meter.dropped == 20 and meter.frames > 0
