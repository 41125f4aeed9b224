"""The live page: over its websocket, as a browser would, and (slow) in headless Chromium itself."""

import base64
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from waiting import PATIENCE_S

from poseda_deploy.camera import Camera
from poseda_deploy.errors import InputError
from poseda_deploy.opencv import cv2
from poseda_deploy.poses import PosedFrame
from poseda_deploy.runtime.draw import LEFT, RIGHT, DrawnPerson
from poseda_deploy.runtime.sinks import Sink
from poseda_deploy.runtime.solids import PARTS, from_z, solids
from poseda_deploy.runtime.video import Frame
from poseda_deploy.runtime.web import PERIOD_S, PageFacts, WebPage
from poseda_deploy.skeleton import H36M17

viser = pytest.importorskip("viser")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def page(camera: Camera) -> Iterator[WebPage]:
    facts = PageFacts(np.zeros(3, np.float32), 41.4, 7, {"detect": {"p50": 17.2, "p95": 21.9}})
    with WebPage(0, camera, lambda: facts) as page:
        yield page


@pytest.fixture
def posed(walker_cam_m: np.ndarray, camera: Camera) -> Callable[[int, int], PosedFrame]:
    """The walker, and beside him as many more as asked for."""

    def make(index: int, people: int = 1) -> PosedFrame:
        xyz_m = walker_cam_m[index] + np.array([[[0.8 * i, 0, 0]] for i in range(people)])
        root_m = xyz_m[:, :1]
        score, xy_px = np.ones((people, 17)), camera.project(xyz_m)
        return PosedFrame(index, index / 30, np.arange(people), xyz_m - root_m, root_m[:, 0], score, xy_px)

    return make


def picture(index: int, camera: Camera) -> Frame:
    bgr = np.full((camera.size_wh[1], camera.size_wh[0], 3), (60, 90, 40), np.uint8)
    return Frame(index, index / 30, bgr)


class Client:
    """A browser's part of viser's protocol: its version, where it looks from, and reading."""

    def __init__(self, page: WebPage, **flags: Any) -> None:
        import msgspec
        from viser._messages import ViewerCameraMessage
        from websockets.sync.client import connect

        version: Any = f"viser-v{viser.__version__}"
        address = page.url.replace("http", "ws")
        self.socket = connect(address, subprotocols=[version], max_size=None, **flags)
        look = ViewerCameraMessage((1, 0, 0, 0), (0, 0, 5), 1, 0.1, 100, 800, 800, (0, 0, 0), (0, 0, 1))
        self.socket.send(msgspec.msgpack.encode(look.as_serializable_dict()))

    def until(self, what: bytes, seconds: float = PATIENCE_S) -> bytes:
        """What came until that was in it: eight bytes, the size of what is compressed, that, and raw arrays."""
        from zstandard import decompress

        end, got = time.monotonic() + seconds, b""
        while what not in got:
            message = self.socket.recv(timeout=max(0.01, end - time.monotonic()))
            assert isinstance(message, bytes)
            inner = 16 + int.from_bytes(message[8:16], "little")
            got += decompress(message[16:inner]) + message[inner:]
        return got


def test_a_client_gets_picture_people_and_figures(
    page: WebPage, posed: Callable[..., PosedFrame], camera: Camera
) -> None:
    page.put(picture(3, camera), posed(3))
    client = Client(page)
    got = client.until(b"frame 3")
    for expected in (b"41 ms from capture to pose", b"7 frames dropped", b"<td>17.2</td>", b"<td>detect</td>"):
        assert expected in got
    distance = f"{np.linalg.norm(posed(3).root_m):.2f} m".encode()
    assert distance in got and b"\xff\xd8\xff" in got, "how far he is, and a JPEG"
    page.put(picture(4, camera), posed(4))
    client.until(b"frame 4")


def test_the_page_is_served_and_only_here(page: WebPage) -> None:
    assert page.url.startswith("http://127.0.0.1:")
    with urlopen(page.url, timeout=PATIENCE_S) as answer:
        assert b"<html" in answer.read()
    assert page._server.get_host() == "127.0.0.1"


def test_nobody_watching_costs_no_painting(page: WebPage, posed: Callable[..., PosedFrame], camera: Camera) -> None:
    sink: Sink = page
    frame, people = picture(0, camera), posed(0)
    for _ in range(1000):
        sink.put(frame, people)
    time.sleep(0.3)
    assert page.shown == 0


def test_only_the_newest_is_shown_ten_times_a_second(
    page: WebPage, posed: Callable[..., PosedFrame], camera: Camera
) -> None:
    client, start_s = Client(page), time.monotonic()
    for index in range(45):
        page.put(picture(index, camera), posed(index))
        time.sleep(1 / 60)
    client.until(b"frame 44")
    assert 2 <= page.shown <= min(44, (time.monotonic() - start_s) / PERIOD_S + 2)


def test_clients_come_and_go(page: WebPage, posed: Callable[..., PosedFrame], camera: Camera) -> None:
    """One leaves without a word, one never reads; the next is served all the same."""
    gone, silent = Client(page), Client(page)
    page.put(picture(0, camera), posed(0))
    gone.until(b"frame 0")
    gone.socket.socket.shutdown(socket.SHUT_RDWR)
    for index in range(1, 20):
        page.put(picture(index, camera), posed(index, 1 + index % 5))  # more people than there was room for
        time.sleep(0.02)
    Client(page).until(b"frame 19")
    silent.socket.close()


def test_a_failing_page_does_not_end_the_run(
    camera: Camera, posed: Callable[..., PosedFrame], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> PageFacts:
        raise ValueError("no facts")

    with WebPage(0, camera, fail) as page:
        page.put(picture(0, camera), posed(0))
        client = Client(page)
        page._thread.join(timeout=PATIENCE_S)
        page.put(picture(1, camera), posed(1))
        client.socket.close()
    said = capsys.readouterr()
    assert "stopped, the run goes on: ValueError: no facts" in said.err
    assert said.out == "", "stdout is for --json"


class Broken:
    """A sink that cannot be opened."""

    def put(self, frame: Frame, people: PosedFrame) -> None:
        pass

    def __enter__(self) -> "Broken":
        raise InputError("cannot open")

    def __exit__(self, *error: object) -> None:
        pass


def test_a_page_beside_a_sink_that_cannot_be_opened_leaves_no_server(camera: Camera) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = WebPage(port, camera)
    with pytest.raises(InputError, match="cannot open"), ExitStack() as stack:
        for sink in (Broken(), page):
            stack.enter_context(sink)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_port_that_is_taken_is_refused(camera: Camera) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"--web {port}: cannot serve a page at 127.0.0.1:{port}") as caught:
            WebPage(port, camera).__enter__()
    assert "--web 0" in caught.value.hint
    with pytest.raises(InputError, match=r"cannot serve a page at 192\.0\.2\.1"):
        WebPage(0, camera, host="192.0.2.1").__enter__()
    with pytest.raises(InputError, match=r"70000.*a port is 0 to 65535"):
        WebPage(70000, camera).__enter__()


def test_pages_of_others_cannot_read_the_stream(page: WebPage) -> None:
    """Any page open in a browser may connect to loopback; the browser says whose page it is."""
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus, match="403"):
        Client(page, origin="http://evil.example")
    Client(page, origin=page.url)
    Client(page, origin="http://localhost:9000")  # an ssh tunnel


def test_bones_join_their_joints(walker_cam_m: np.ndarray) -> None:
    """The tube's ends, turned, stretched and moved, are parent and child."""
    from viser.transforms import SO3

    score = np.ones(17)
    score[H36M17.index("left_wrist")] = 0
    person = DrawnPerson(0, np.zeros((17, 2)), score, walker_cam_m[0], np.zeros(3))
    shapes = solids(person, walker_cam_m[0])
    tubes, balls = shapes["tubes"], shapes["balls"]
    for i, (parent, child) in enumerate(H36M17.edges):
        half = SO3(tubes.wxyzs[i]).as_matrix() @ (0, 0, tubes.scales[i, 2] / 2)
        np.testing.assert_allclose(tubes.positions[i] - half, walker_cam_m[0, parent], atol=1e-9)
        np.testing.assert_allclose(tubes.positions[i] + half, walker_cam_m[0, child], atol=1e-9)
    colour = dict(zip(H36M17.joints, balls.colors.tolist(), strict=True))
    assert colour["left_knee"] == list(LEFT[::-1]) and colour["right_knee"] == list(RIGHT[::-1])
    radius = dict(zip(H36M17.joints, balls.scales[:, 0].tolist(), strict=True))
    assert radius["left_wrist"] < 0.5 * radius["right_wrist"], "what was not seen is thin"
    assert {name: len(each.positions) for name, each in shapes.items()} == PARTS
    down = from_z(np.array([[0.0, 0, -2], [0, 0, 3], [0, 0, 0]]))
    np.testing.assert_allclose(SO3(down[0]).as_matrix() @ (0, 0, 1), (0, 0, -1), atol=1e-9)
    assert down[1].tolist() == [1, 0, 0, 0] and np.isfinite(down).all()


@contextmanager
def browser(url: str, folder: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Headless Chromium on that page; yields a call of its DevTools protocol."""
    from websockets.sync.client import connect

    flags = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    window = ["--window-size=1440,810", f"--user-data-dir={folder}", "--remote-debugging-port=0", url]
    with subprocess.Popen([str(CHROMIUM), *flags, *window], stderr=subprocess.PIPE, text=True) as chromium:
        assert chromium.stderr is not None
        try:
            line = next(line for line in chromium.stderr if "DevTools listening" in line)
            port = int(re.findall(r":(\d+)/", line)[0])
            with urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                target = next(each for each in json.load(answer) if each["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None) as devtools:

                def call(method: str, **parameters: Any) -> dict[str, Any]:
                    devtools.send(json.dumps({"id": 1, "method": method, "params": parameters}))
                    while (reply := json.loads(devtools.recv(timeout=60))).get("id") != 1:
                        pass
                    return reply["result"]

                yield call
        finally:
            chromium.kill()
            chromium.communicate()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_chromium_shows_picture_and_people(
    page: WebPage, posed: Callable[..., PosedFrame], camera: Camera, tmp_path: Path
) -> None:
    """The picture's colour on the left, both sides' colours of a skeleton on the right, in one screenshot."""
    with browser(page.url, tmp_path / "profile") as call:
        end = time.monotonic() + 60
        while page.shown < 20 and time.monotonic() < end:
            page.put(picture(5, camera), posed(5))
            time.sleep(0.1)
        time.sleep(3)
        shot = base64.b64decode(call("Page.captureScreenshot")["data"])
    image = np.asarray(cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)).astype(int)
    left, right = image[:, :600], image[:, 610:]
    assert (np.abs(left - (60, 90, 40)).max(-1) < 6).mean() > 0.2, "the picture"
    blue, _, red = right[..., 0], right[..., 1], right[..., 2]
    assert (blue - red > 40).sum() > 50 and (red - blue > 40).sum() > 50, "left and right limbs"
