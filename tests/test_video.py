"""Videos in and out: exact time, whole files or none, and a plain word about damaged ones."""

import importlib
import resource
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.opencv import cv2
from poseda_deploy.runtime.feed import read_ahead
from poseda_deploy.runtime.rates import exact_fps, exact_rate
from poseda_deploy.runtime.replay import require_same_recording
from poseda_deploy.runtime.video import (
    LONGEST_GAP_S,
    Frame,
    VideoReader,
    VideoWriter,
    _Clock,
    _frame_rate,
)
from poseda_deploy.skeleton import H36M17

NTSC = Fraction(30000, 1001)
WH = (96, 64)


def picture(index: int, size_wh: tuple[int, int] = WH) -> np.ndarray:
    """A grey level that tells the frame, brighter in the top left quarter."""
    bgr = np.full((size_wh[1], size_wh[0], 3), 20 + 4 * index, np.uint8)
    bgr[: size_wh[1] // 2, : size_wh[0] // 2] += 60
    return bgr


def write_video(path: Path, frames: int = 40, fps: Fraction = NTSC, size_wh: tuple[int, int] = WH) -> Path:
    with VideoWriter(path, size_wh, fps) as writer:
        for index in range(frames):
            writer.write(picture(index, size_wh))
    return path


def patched(path: Path, box: bytes, offset: int, new: bytes) -> Path:
    """The file with some bytes of one mp4 box replaced, counted from the end of the box's name."""
    old = path.read_bytes()
    start = old.index(box) + len(box) + offset
    path.write_bytes(old[:start] + new + old[start + len(new) :])
    return path


def moov_first(path: Path) -> Path:
    """The mp4 as a web server wants it: index before data, so that a cut loses frames and not the file."""
    old = path.read_bytes()
    moov = old.index(b"moov") - 4
    body = bytearray(old[moov:])
    stco = body.index(b"stco") + 8
    (chunks,) = struct.unpack_from(">I", body, stco)
    for at in range(stco + 4, stco + 4 + 4 * chunks, 4):
        struct.pack_into(">I", body, at, struct.unpack_from(">I", body, at)[0] + len(body))
    (ftyp,) = struct.unpack_from(">I", old)
    path.write_bytes(old[:ftyp] + body + old[ftyp:moov])
    return path


def test_frames_come_in_order_with_the_containers_time(tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "a.mp4")) as reader:
        assert (reader.size_wh, reader.fps, reader.frame_count_hint) == (WH, NTSC, 40)
        frames = [next(iter(reader)), *reader]  # a second loop goes on
        assert list(reader) == []
    assert [frame.index for frame in frames] == list(range(40))
    # OpenCV writes 29.97 for 30000/1001: a microsecond apart after a second
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(40) * 1001 / 30000, atol=2e-6)
    levels = [int(frame.bgr[-8, -8, 0]) for frame in frames]
    assert all(3 <= step <= 5 for step in np.diff(levels))
    assert reader.lost_frames == 0


def test_a_true_ntsc_file_is_exact(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    patched(path, b"mdhd", 12, struct.pack(">I", 30000))  # ticks per second
    patched(path, b"stts", 12, struct.pack(">I", 1001))  # ticks per frame
    with VideoReader(path) as reader:
        assert reader.fps == NTSC
        times_s = [frame.time_s for frame in reader]
    np.testing.assert_allclose(times_s, np.arange(40) * 1001 / 30000, rtol=1e-14)


@pytest.mark.parametrize(
    ("reported", "meant"),
    [
        (30000 / 1001, NTSC),
        (29.97, NTSC),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (30.0, Fraction(30)),
        (12.5, Fraction(25, 2)),
        (29.5, Fraction(59, 2)),
        (100 / 3, Fraction(100, 3)),
    ],
)
def test_exact_rates(reported: float, meant: Fraction) -> None:
    assert exact_fps(reported) == meant


@pytest.mark.parametrize("text", ["29.97", "30000/1001", "29.970029970029973"])
def test_a_typed_rate_is_the_one_that_a_file_reports(text: str) -> None:
    assert exact_rate("--fps", text) == exact_fps(29.97) == Fraction(30000, 1001)


def test_stamps_that_restart_go_on_at_the_film_s_speed() -> None:
    """Two recordings joined into one file, whose stamps begin again; then a third."""
    clock = _Clock(Fraction(10))
    stamps_ms = [*range(0, 2000, 100), *range(0, 2000, 100), *range(5, 1000, 100)]
    times_s = np.array([clock.time_s(i, float(ms)) for i, ms in enumerate(stamps_ms)])
    np.testing.assert_allclose(np.diff(times_s), 0.1, atol=0.01)


def test_a_rate_that_is_only_a_tick_is_measured(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", fps=Fraction(25))
    assert _frame_rate(path, 90000.0) == 25
    with pytest.raises(InputError, match="expected a frame rate or time stamps"):
        _frame_rate(write_video(tmp_path / "one.mp4", frames=1), 0.0)


@pytest.mark.parametrize(
    ("reported", "meant"), [(0.5, Fraction(1, 2)), (1 / 3600, Fraction(1, 3600)), (1e-4, Fraction(1, 10_000))]
)
def test_rates_of_time_lapses_are_exact(reported: float, meant: Fraction) -> None:
    assert exact_fps(reported) == exact_rate("--fps", repr(reported)) == meant


def test_times_always_increase() -> None:
    clock = _Clock(Fraction(10))
    assert [clock.time_s(i, ms) for i, ms in enumerate([0.0, 0.0, 0.0])] == pytest.approx([0, 0.1, 0.2])
    clock = _Clock(Fraction(10))
    stamps_ms = [0.0, 100.0, 100.0, 300.0, 250.0, float("nan")]
    assert [clock.time_s(i, ms) for i, ms in enumerate(stamps_ms)] == pytest.approx([0, 0.1, 0.15, 0.3, 0.35, 0.5])


@pytest.mark.parametrize("turn_deg", [0, 90, 180, 270])
def test_rotation_is_applied_and_size_follows(tmp_path: Path, turn_deg: int) -> None:
    one, minus = 1 << 16, -1 << 16
    a, b, c, d = {0: (one, 0, 0, one), 90: (0, one, minus, 0), 180: (minus, 0, 0, minus), 270: (0, minus, one, 0)}[
        turn_deg
    ]
    path = write_video(tmp_path / "a.mp4", frames=2)
    with VideoReader(patched(path, b"tkhd", 40, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))) as reader:
        upright = next(iter(reader)).bgr
    assert reader.size_wh == (upright.shape[1], upright.shape[0]) == (WH if turn_deg % 180 == 0 else WH[::-1])
    bright = np.rot90(picture(0), -turn_deg // 90)  # metadata counts clockwise
    assert np.abs(upright.astype(int) - bright).mean() < 8


def make_bad(folder: Path, kind: str) -> Path:
    path = folder / "bad.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("this is not a video\n" * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "cut":
        whole = write_video(path).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "no frames":
        cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, WH).release()
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "video not found"),
        ("folder", "expected a video file, got a folder"),
        ("text", "expected a video, got something that no decoder knows"),
        ("empty", "expected a video, got an empty file"),
        ("cut", "looks truncated"),
        ("no frames", "expected at least one frame, got none"),
    ],
)
def test_bad_input_is_told_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, says: str) -> None:
    path = make_bad(tmp_path, kind)
    capfd.readouterr()
    with pytest.raises(InputError, match=says) as caught:
        VideoReader(path)
    assert (caught.value.exit_code, str(path) in str(caught.value)) == (2, True)
    assert caught.value.hint and "\n" not in f"{caught.value}{caught.value.hint}"
    assert capfd.readouterr() == ("", "")


def test_frames_lost_to_a_cut_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = moov_first(write_video(tmp_path / "a.mp4"))
    whole = path.read_bytes()
    assert whole.index(b"moov") < whole.index(b"mdat")
    with VideoReader(path) as reader:
        assert len(list(reader)) == 40
        assert reader.lost_frames == 0
    path.write_bytes(whole[: whole.index(b"mdat") + (len(whole) - whole.index(b"mdat")) // 2])
    with VideoReader(path) as reader:
        assert reader.lost_frames == 0  # not known yet
        delivered = len(list(reader))
    assert 5 < delivered < 35
    assert reader.lost_frames == 40 - delivered
    assert capfd.readouterr() == ("", "")


def test_keypoints_of_a_cut_recording_fit_what_is_left_of_it(tmp_path: Path) -> None:
    """Its container promises what it had; keypoints are of what could be decoded."""
    path = moov_first(write_video(tmp_path / "a.mp4"))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"mdat") + (len(whole) - whole.index(b"mdat")) // 2])
    with VideoReader(path) as reader:
        left = len(list(reader))
    everything = Keypoints2D(np.zeros((40, 1, 17, 2)), np.zeros((40, 1, 17)), WH, H36M17, np.arange(40) / 30)
    own = replace(everything, xy_px=everything.xy_px[:left], score=everything.score[:left], time_s=np.arange(left) / 30)
    with VideoReader(path) as reader:
        require_same_recording(own, reader)
        assert len(list(reader)) == left, "the recording is where it was"
        too_few = replace(own, xy_px=own.xy_px[:3], score=own.score[:3], time_s=own.time_s[:3])
        with pytest.raises(InputError, match=f"have 3 frames, and the video has {left}"):
            require_same_recording(too_few, reader)


def test_reading_ahead_keeps_the_order(tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "a.mp4")) as reader:
        assert [frame.index for frame in read_ahead(reader, depth=2)] == list(range(40))
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}


def test_reading_ahead_is_bounded_and_stops_with_the_consumer(tmp_path: Path) -> None:
    made: list[int] = []

    def frames() -> Iterator[Frame]:
        for frame in reader:
            made.append(frame.index)
            yield frame

    with VideoReader(write_video(tmp_path / "a.mp4")) as reader:
        ahead = read_ahead(frames(), depth=3)
        assert (next(ahead).index, next(ahead).index) == (0, 1)
        ahead.close()
    assert len(made) <= 2 + 3 + 1
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}


def test_reading_ahead_passes_errors_on_after_the_good_frames() -> None:
    def frames() -> Iterator[int]:
        yield 1
        raise InputError("disk gone")

    ahead = read_ahead(frames())
    assert next(ahead) == 1
    with pytest.raises(InputError, match="disk gone"):
        next(ahead)
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}


def test_closing_while_a_thread_decodes_is_safe(tmp_path: Path) -> None:
    reader = VideoReader(write_video(tmp_path / "a.mp4"))
    ahead = read_ahead(reader, depth=2)
    next(ahead)
    reader.close()
    assert len(list(ahead)) < 39
    assert reader.lost_frames == 0


def test_a_failed_write_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    old = write_video(tmp_path / "a.mp4", frames=3).read_bytes()
    for path in (tmp_path / "a.mp4", tmp_path / "new.mp4"):
        with pytest.raises(KeyError), VideoWriter(path, WH, NTSC) as writer:
            writer.write(picture(0))
            raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == old


def test_odd_sizes_lose_a_row(tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "a.mp4", frames=2, size_wh=(65, 49))) as reader:
        assert (reader.size_wh, len(list(reader))) == ((64, 48), 2)


def test_a_film_runs_as_it_was_filmed(tmp_path: Path) -> None:
    """A phone slows from 30 to 10 fps, then doubles; an outage of an hour is cut to a second."""
    steps_s = [1 / 30] * 10 + [0.1] * 5 + [1 / 60] * 10 + [3600.0]
    stamps_s = np.concatenate([[0], np.cumsum(steps_s)])
    with VideoWriter(tmp_path / "a.mp4", WH, Fraction(30)) as writer:
        for index, time_s in enumerate(stamps_s.tolist()):
            writer.write_at(np.full((64, 96, 3), 40 + 8 * index, np.uint8), time_s)
    with VideoReader(tmp_path / "a.mp4") as reader:
        levels = [round((float(frame.bgr.mean()) - 40) / 8) for frame in reader]
    assert levels[:11] == list(range(11)), "each once"
    assert levels[11:26] == [index for index in range(11, 16) for _ in range(3)], "each three times"
    assert levels[26:31] == list(range(17, 27, 2)) or levels[26:31] == list(range(16, 26, 2)), "every other one"
    assert len(levels) == 31 + round(LONGEST_GAP_S * 30)


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"expected 96x64x3, got shape \(10, 20, 3\)"),
        VideoWriter(tmp_path / "a.mp4", WH, NTSC) as writer,
    ):
        writer.write(np.zeros((10, 20, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["taken.mp4", "file.txt/a.mp4", "a.avi"])
def test_a_place_where_no_video_can_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "taken.mp4").mkdir()
    (tmp_path / "file.txt").touch()
    with pytest.raises(InputError) as caught, VideoWriter(tmp_path / name, WH, NTSC):
        pass
    assert caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} == {"taken.mp4", "file.txt"}


def test_no_codec_for_the_size_is_an_input_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="cannot be written"), VideoWriter(tmp_path / "a.mp4", (0, 0), NTSC):
        pass
    assert (list(tmp_path.iterdir()), capfd.readouterr()) == ([], ("", ""))


def test_a_full_disk_is_noticed(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(InputError, match="of 40 frames arrived"), VideoWriter(tmp_path / "a.mp4", WH, NTSC) as out:
            for _ in range(40):
                out.write(noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "what", "hint"),
    [
        (None, "not installed", "pip install opencv-python"),
        ("raise ImportError('libGL.so.1: cannot open shared object file')", "libGL.so.1", "apt-get install libgl1"),
    ],
)
def test_opencv_that_does_not_load_says_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str | None, what: str, hint: str
) -> None:
    monkeypatch.delitem(sys.modules, "poseda_deploy.opencv")
    if module is None:
        monkeypatch.setitem(sys.modules, "cv2", None)
    else:
        (tmp_path / "cv2.py").write_text(module)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "cv2")
    with pytest.raises(MissingDependency, match=what) as caught:
        importlib.import_module("poseda_deploy.opencv")
    assert hint in caught.value.hint
