"""Where pictures come from: folders, cameras, servers that die and come back; and no password is ever printed."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import HTTPDigestAuthHandler, HTTPPasswordMgr, Request

import numpy as np
import pytest
from test_video import moov_first, write_video

from poseda_deploy.errors import InputError
from poseda_deploy.opencv import cv2
from poseda_deploy.runtime import network, sources, video
from poseda_deploy.runtime.cli import main as run_main
from poseda_deploy.runtime.network import Address, _authorisation, shown, why_no_picture
from poseda_deploy.runtime.sources import (
    ImageFolder,
    LiveSource,
    PictureWatch,
    Rehearsal,
    is_black,
    open_source,
    source_stem,
)
from poseda_deploy.runtime.video import Frame, VideoReader

WH = (96, 64)
PASSWORD = "s3cr%2Ft"
NOISE = np.random.default_rng(0).integers(0, 255, (WH[1], WH[0], 3), np.uint8)
BLACK = np.zeros_like(NOISE)


def noise(index: int, size_wh: tuple[int, int] = WH) -> np.ndarray:
    """A picture with detail, different in every frame."""
    small = np.roll(NOISE, 5 * index, 1) // 2 + 40
    return np.asarray(cv2.resize(small, size_wh))


class MjpegCamera:
    """A network camera: what `picture(index)` gives, at 50 fps, until it is killed; can be started again."""

    def __init__(self, picture: Callable[[int], np.ndarray] = noise) -> None:
        self.picture, self.authorisation, self.index = picture, "", 0
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        camera, killed = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if camera.authorisation and self.headers["Authorization"] != camera.authorisation:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="cam"')
                    self.end_headers()
                    return
                if self.path.startswith("/none"):
                    self.send_error(404)
                    return
                self.send_response(200)
                kind = "text/html" if self.path == "/page" else "multipart/x-mixed-replace; boundary=b"
                self.send_header("Content-Type", kind)
                self.end_headers()
                while not killed.is_set() and self.path != "/page":
                    jpeg = cv2.imencode(".jpg", camera.picture(camera.index))[1].tobytes()
                    head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                    camera.index += 1
                    time.sleep(0.02)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients leave

        self._killed = killed
        self._server = Server(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=partial(self._server.serve_forever, 0.02), daemon=True)
        self._thread.start()

    def kill(self) -> None:
        self._killed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str = "/cam", credentials: str = "") -> str:
        return f"http://{credentials}127.0.0.1:{self.port}{path}"


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    camera = MjpegCamera()
    yield camera
    camera.kill()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(sources, "LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(video, "CONNECT_S", 1.0)
    for module in (video, sources):
        monkeypatch.setattr(module, "SILENT_S", 1.0)


# Addresses.


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("rtsp://joe:pw@cam:554/h264", "rtsp://***@cam:554/h264"),
        ("rtsp://joe@cam/h264", "rtsp://***@cam/h264"),
        ("rtsp://joe:p@ss@cam/h264", "rtsp://***@cam/h264"),
        ("rtsp://joe:p'q\"<> r@cam/h264", "rtsp://***@cam/h264"),
        ("rtsp://joe:p/s?@cam/h264", "something else"),
        ("rtsp://joe:12/s?@cam/h264", "rtsp://***"),
        ("http://cam/a.mp4?mail=joe@home&pwd=pw", "http://***"),
        ("http://cam/video.cgi?user=joe&pwd=pw&channel=1", "http://cam/video.cgi?***"),
        ("rtsp://cam/user=joe&password=pw;w&channel=1", "rtsp://cam/***"),
        ("rtmp://joe:pw@cam/live", "rtmp://***@cam/live"),
        ("HTTPS://JOE:pw@cam", "https://***@cam"),
        ("rtsp://cam:554/h264", "rtsp://cam:554/h264"),
        ("rtsp://joe:pw", "something else"),
        ("rtsp://[::1/x", "something else"),
        ("joe:pw@cam/x", "something else"),
        ("joepw://cam/x", "something else"),
    ],
)
def test_only_what_was_understood_of_an_address_is_shown(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.parametrize("url", ["rtsp://[::1/x", "rtsp://[::1", "http://]/", "rtsp://h:1e5/", "rtsp://a\u2100b/x"])
def test_what_is_no_address_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["--video", url]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not an address of a video" in line


def test_an_at_behind_the_host_may_belong_to_a_password() -> None:
    with pytest.raises(InputError, match="not an address of a video") as caught:
        Address("rtsp://joe:12/34@cam/h264")
    assert "%40" in caught.value.hint and "34" not in str(caught.value)


def test_no_camera_has_so_many_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(["--video", "9" * 30]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "camera" in line


def test_an_address_never_shows_its_credentials() -> None:
    address = Address(f"rtsp://joe:{PASSWORD}@cam/a?b=c")
    assert address.credentials == ("joe", "s3cr/t") and address.host == ("cam", 554)
    for text in (str(address), repr(address), f"{address}", f"{[address]}"):
        assert "s3cr" not in text and "joe" not in text
    for url in ("rtmp://joe:pw@cam/a", "rtsp://joe:pw@cam:port/a", "http://joe:pw@"):
        with pytest.raises(InputError) as caught:
            Address(url)
        assert "pw" not in str(caught.value) and caught.value.hint


def test_outputs_are_called_after_the_source() -> None:
    specs = ["clips/a.b.mp4", "0", "rtsp://joe:pw@cam.lan:8554/h264/ch1?pwd=pw", "folder/"]
    assert [source_stem(spec) for spec in specs] == ["a.b", "camera0", "cam-lan-8554-h264-ch1", "folder"]


# Folders of images.


def write_images(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), noise(index))
    return folder


def test_images_come_in_natural_order(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", ["img1.png", "img2.png", "IMG9.PNG", "img10.png", "img011.png"])
    (folder / "notes.txt").write_text("not an image")
    with open_source(str(folder), Fraction(30000, 1001)) as source:
        assert (source.live, source.size_wh, source.frame_count_hint) == (False, WH, 5)
        frames = list(source)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.bgr, noise(index))
        assert (frame.index, frame.time_s) == (index, pytest.approx(index * 1001 / 30000, abs=1e-12))


def test_what_a_mac_leaves_beside_each_image_is_no_image(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "a", ["1.png", "2.png"])
    for name in ("._1.png", "._2.png"):
        (folder / name).write_bytes(b"\x00\x05\x16\x07resource fork")
    with open_source(str(folder)) as source:
        assert len(list(source)) == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("b.png", cv2.imencode(".png", noise(0, (50, 40)))[1].tobytes(), "b.png: expected 96x64.*got 50x40"),
        ("b.png", b"not an image", "b.png: not an image that can be read"),
        ("b.png", b"", "b.png: not an image that can be read"),
    ],
)
def test_an_image_that_does_not_fit_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, content: bytes, says: str
) -> None:
    folder = write_images(tmp_path / "a", ["a.png", "c.png"])
    (folder / name).write_bytes(content)
    frames = iter(ImageFolder(folder, Fraction(30)))
    assert next(frames).index == 0
    with pytest.raises(InputError, match=says) as caught:
        next(frames)
    assert caught.value.hint and capfd.readouterr() == ("", "")


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected images in this folder, got none"):
        open_source(str(tmp_path))


# Files.


def test_a_file_is_read_as_ever(tmp_path: Path) -> None:
    with open_source(str(write_video(tmp_path / "a.mp4"))) as source:
        assert isinstance(source, VideoReader) and not source.live
        assert len(list(source)) == 40


def test_a_file_on_a_web_server_is_a_file(tmp_path: Path) -> None:
    moov_first(write_video(tmp_path / "a.mp4"))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with open_source(f"http://127.0.0.1:{server.server_address[1]}/a.mp4") as source:
            assert isinstance(source, VideoReader) and (source.live, source.fps) == (False, Fraction(30000, 1001))
            assert [frame.index for frame in source] == list(range(40))
    finally:
        server.shutdown()
        server.server_close()


def test_a_rehearsal_keeps_the_film_s_time(tmp_path: Path) -> None:
    start_s = time.perf_counter()
    with Rehearsal(VideoReader(write_video(tmp_path / "a.mp4", frames=10, fps=Fraction(50)))) as source:
        frames = list(source)
    due_s = [frame.captured_s - start_s - frame.time_s for frame in frames]
    assert source.live and len(frames) == 10 and min(due_s) >= 0, "none comes before its time"


# Streams.


def test_a_stream_gives_frames_as_they_arrive(camera: MjpegCamera) -> None:
    with open_source(camera.url()) as source:
        assert (source.live, source.size_wh, source.frame_count_hint) == (True, WH, 0)
        frames = list(islice(source, 15))
    assert [frame.index for frame in frames] == list(range(15))
    times_s = np.array([frame.time_s for frame in frames])
    assert times_s[0] == 0 and (np.diff(times_s) > 0).all()
    np.testing.assert_allclose([frame.captured_s - frames[0].captured_s for frame in frames], times_s)


def test_five_kills_of_the_server_are_survived(camera: MjpegCamera, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[str] = []
    camera.authorisation = "Basic am9lOnMzY3IvdA=="
    with open_source(camera.url(credentials=f"joe:{PASSWORD}@"), tell=events.append) as source:
        frames, times_s = iter(source), []
        for _ in range(5):
            times_s += [next(frames).time_s for _ in range(3)]
            camera.kill()
            again = threading.Timer(0.4, camera.start)
            again.start()
            times_s.append(_first_after(source, frames).time_s)
            again.join()
        assert isinstance(source, LiveSource) and source.reconnects == 5
    assert (np.diff(times_s) > 0).all()
    assert sum("connection lost (it ended)" in event for event in events) == 5
    assert sum("back after" in event for event in events) == 5
    assert any("refused: nothing listens on port" in event for event in events)
    assert not [event for event in events if "s3cr" in event or "joe" in event]
    assert capfd.readouterr() == ("", "")


def _first_after(source: Any, frames: Iterator[Frame]) -> Frame:
    """The first frame of the next connection: some of the last one may still be under way."""
    before = source.reconnects
    return next(frame for frame in frames if source.reconnects > before)


def test_it_gives_up_after_a_while(camera: MjpegCamera) -> None:
    with LiveSource(Address(camera.url()), lambda event: None, give_up_s=0.3) as source:
        frames = iter(source)
        next(frames)
        camera.kill()
        with pytest.raises(InputError, match=r"lost, and not back in 0.3 s \(refused") as caught:
            list(frames)
        camera.start()
    assert caught.value.hint


def test_a_silent_server_is_noticed(camera: MjpegCamera) -> None:
    events: list[str] = []
    silence, silences = threading.Event(), [4.0]

    def then_silent(index: int) -> np.ndarray:
        if index == 10 and silences:
            silence.wait(silences.pop())
        return noise(index)

    camera.picture = then_silent
    with open_source(camera.url(), tell=events.append) as source:
        assert isinstance(source, LiveSource)
        next(frame for frame in source if source.reconnects)
    assert re.search(r"silent for \d+ s", events[0])
    silence.set()


def test_closing_ends_the_wait_for_a_dead_server(camera: MjpegCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FIRST_WAIT_S", 3600.0)
    source = open_source(camera.url(), tell=lambda event: None)
    frames = iter(source)
    next(frames)
    camera.kill()
    threading.Timer(0.3, source.close).start()
    assert len(list(frames)) < 20
    camera.start()


@pytest.mark.parametrize(
    ("path", "credentials", "says"),
    [
        ("/none", "", "not found: the server has nothing at this path"),
        ("/page", "", "codec: the server answers"),
        ("/locked", "", "authentication: the server wants a user name and password"),
        ("/locked", "joe:wrongpw@", "authentication: the server refuses the user name and password"),
    ],
)
def test_the_reason_is_told_apart(
    camera: MjpegCamera, capfd: pytest.CaptureFixture[str], path: str, credentials: str, says: str
) -> None:
    if path == "/locked":
        camera.authorisation = "Basic am9lOnMzY3IvdA=="
    with pytest.raises(InputError, match=says) as caught:
        open_source(camera.url(path, credentials))
    text = f"{caught.value} {caught.value.hint} {caught.value!r}"
    assert caught.value.hint and "wrongpw" not in text and "joe" not in text and "\n" not in text
    assert capfd.readouterr() == ("", "")


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poseda_deploy.runtime.network.PROBE_S", 0.3)
    with closing(socket.create_server(("127.0.0.1", 0))) as deaf:
        port = deaf.getsockname()[1]
        with pytest.raises(InputError, match=r"time-out: no answer from 127\.0\.0\.1"):
            open_source(f"rtsp://joe:pw@127.0.0.1:{port}/cam")
    assert why_no_picture(Address(f"rtsp://127.0.0.1:{port}/cam")).kind == "refused"
    assert why_no_picture(Address("http://no-such-host.invalid/cam")).kind == "unknown host"


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_drips_is_given_up(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes long before the deadline, the last of them long after it."""
    monkeypatch.setattr(network, "PROBE_S", 0.5)

    def drip(server: socket.socket) -> None:
        with suppress(OSError), server.accept()[0] as client:
            client.recv(4096)
            for byte in f"{scheme.upper()}/1.0 404 Not Found\r\n\r\n".encode():
                client.sendall(bytes([byte]))
                time.sleep(0.1)

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        thread = threading.Thread(target=drip, args=(server,), daemon=True)
        thread.start()
        assert why_no_picture(Address(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/cam")).kind == "time-out"
        thread.join()


@contextmanager
def answering(answer: Callable[[str], str]) -> Iterator[int]:
    """A server that answers each request with a text; yields its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.sendall(answer(client.recv(4096).decode()).encode())

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_digest_authentication_as_cameras_have_it() -> None:
    def answer(request: str) -> str:
        assert request.startswith("DESCRIBE rtsp://127.0.0.1:") and "joe" not in request.splitlines()[0]
        if "Authorization: Digest" not in request:
            return 'RTSP/1.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm="r", nonce="12"\r\n\r\n'
        seen.append(request)
        return "RTSP/1.0 404 Not Found\r\n\r\n"

    seen: list[str] = []
    with answering(answer) as port:
        assert why_no_picture(Address(f"rtsp://joe:secret@127.0.0.1:{port}/a")).kind == "not found"
    assert 'username="joe"' in seen[0] and "secret" not in seen[0]
    with answering(lambda request: "SSH-2.0-OpenSSH\r\n\r\n") as port:
        assert why_no_picture(Address(f"rtsp://127.0.0.1:{port}/a")).kind == "protocol"


def test_digest_as_the_standard_library_has_it() -> None:
    url = "http://127.0.0.1/a?b=c"
    passwords = HTTPPasswordMgr()
    passwords.add_password("r", url, "joe", "secret")
    expected = HTTPDigestAuthHandler(passwords).get_authorization(Request(url), {"realm": "r", "nonce": "12"})
    head = 'HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm="r", nonce="12"\r\n\r\n'
    ours = _authorisation(Address("http://joe:secret@127.0.0.1/a?b=c"), head)
    response = re.compile(r'response="(\w{32})"')
    assert response.findall(ours) == response.findall(str(expected)) != []


def test_another_size_after_a_reconnect_is_scaled_and_told(camera: MjpegCamera) -> None:
    events: list[str] = []
    with open_source(camera.url(), tell=events.append) as source:
        frames = iter(source)
        next(frames)
        camera.kill()
        camera.picture = partial(noise, size_wh=(192, 128))
        camera.start()
        assert _first_after(source, frames).bgr.shape == (64, 96, 3)
        assert next(frames).bgr.shape == (64, 96, 3)
    assert sum("the picture is now 192x128; it is scaled to 96x64" in event for event in events) == 1


# Pictures without content.


def test_a_black_source_is_told_and_withheld(camera: MjpegCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BLACK_TOLD_S", 0.1)
    events: list[str] = []
    camera.picture = lambda index: BLACK if 20 <= index < 60 else noise(index)
    with open_source(camera.url(), tell=events.append) as source:
        assert isinstance(source, LiveSource)
        frames = list(islice(source, 30))
    assert not any(is_black(frame.bgr) for frame in frames)
    assert source.watch.withheld["black"] > 10
    assert [event.partition(": ")[2].partition(",")[0] for event in events] == [
        "source black; waiting for a picture",
        "source no longer black",
    ]
    assert [frame.index for frame in frames] == list(range(30))
    assert max(np.diff([frame.time_s for frame in frames])) > 0.3, "time goes on while it is black"


def watched(pictures: list[np.ndarray], period_s: float = 0.5) -> tuple[list[bool], list[str]]:
    events: list[str] = []
    watch = PictureWatch(events.append)
    return [watch.is_usable(bgr, 100 + i * period_s) for i, bgr in enumerate(pictures)], events


def test_a_frozen_source_is_told_once() -> None:
    still = noise(0)
    usable, events = watched([noise(1), *[still.copy()] * 12, noise(2), noise(3)])
    assert usable == [True] * 7 + [False] * 6 + [True] * 2, "after 3 s"
    assert events == ["source frozen; waiting for a picture", "source no longer frozen, after 3.0 s"]


def test_one_pixel_that_changes_is_no_freeze() -> None:
    still = [noise(0).copy() for _ in range(20)]
    for index, bgr in enumerate(still):
        bgr[33, 21] = index
    assert watched(still) == ([True] * 20, [])


def test_a_short_flash_is_withheld_and_not_told() -> None:
    usable, events = watched([noise(0), BLACK, noise(1), BLACK, noise(2)])
    assert (usable, events) == ([True, False, True, False, True], [])


@pytest.mark.parametrize(
    ("bgr", "black"),
    [
        (BLACK, True),
        (NOISE // 12, True),  # a covered lens
        (BLACK + np.array([255, 0, 0], np.uint8), True),  # "no signal" in blue
        (NOISE // 4, False),
        (np.where(np.arange(96)[:, None] < 48, 15, 60).astype(np.uint8).repeat(64, 1).T[..., None].repeat(3, 2), False),
    ],
)
def test_black_is_where_nothing_can_be_seen(bgr: np.ndarray, black: bool) -> None:
    assert is_black(bgr) is black


# Cameras.


class FakeCamera:
    """Three pictures, then unplugged; the first to try again finds nothing, the second finds it back."""

    opened = 0

    def __init__(self, index: int) -> None:
        FakeCamera.opened += 1
        self.left = {1: 3, 2: 0}.get(FakeCamera.opened, 3)

    def grab(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, noise(self.left)

    def get(self, prop: int) -> float:
        return -1.0

    def set(self, prop: int, value: float) -> bool:
        return True

    def release(self) -> None:
        self.left = 0


def test_an_unplugged_camera_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeCamera, "opened", 0)
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    events: list[str] = []
    with open_source("2", tell=events.append) as source:
        assert (source.live, source.fps) == (True, 30)
        frames = list(islice(source, 6))
    assert len(frames) == 6 and FakeCamera.opened == 3
    assert [event.split(" (")[0] for event in events[:2]] == [
        "camera 2: connection lost",
        "camera 2: still no picture",
    ]
    assert "back after" in events[2]


def test_no_such_camera(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"camera 63: no picture \(not connected") as caught:
        open_source("63")
    assert caught.value.hint and capfd.readouterr() == ("", "")
