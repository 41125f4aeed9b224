"""Streams: who listens gets every frame, who is slow loses the oldest, and the run never waits."""

import asyncio
import json
import logging
import socket
import time
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest
from waiting import PATIENCE_S, wait_until

from poseda_deploy.errors import InputError
from poseda_deploy.poses import PosedFrame
from poseda_deploy.runtime import outlets
from poseda_deploy.runtime.outlets import DATAGRAM_BYTES, QUEUE_FRAMES, ServerOutlet, UdpOutlet, datagrams, message
from poseda_deploy.runtime.sinks import Sink
from poseda_deploy.runtime.stream import JsonStream, open_stream
from poseda_deploy.runtime.video import Frame

PICTURE = np.zeros((2, 2, 3), np.uint8)


def people(index: int, count: int = 1) -> PosedFrame:
    pose_m = np.random.default_rng(index).normal(size=(count, 17, 3)).astype(np.float32)
    score = np.ones((count, 17), np.float32)
    return PosedFrame(index, index / 30, np.arange(count), pose_m, pose_m[:, 1], score, pose_m[..., :2])


def put(stream: JsonStream, index: int, count: int = 1) -> None:
    stream.put(Frame(index, index / 30, PICTURE), people(index, count))


def clients(stream: JsonStream) -> int:
    assert isinstance(stream.outlet, ServerOutlet)
    return stream.outlet.clients


def port(stream: JsonStream) -> int:
    return int(stream.url.rpartition(":")[2])


class TcpClient:
    """Reads JSON lines."""

    def __init__(self, stream: JsonStream) -> None:
        before = clients(stream)
        self.socket = socket.create_connection(("127.0.0.1", port(stream)), timeout=PATIENCE_S)
        self._lines = self.socket.makefile()
        wait_until(lambda: clients(stream) > before)

    def read(self) -> dict[str, Any]:
        got: dict[str, Any] = json.loads(self._lines.readline())
        return got

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


class WebSocketClient:
    """Reads text messages."""

    def __init__(self, stream: JsonStream) -> None:
        from websockets.sync.client import connect

        before = clients(stream)
        self.connection = connect(stream.url, max_queue=1)
        wait_until(lambda: clients(stream) > before)

    def read(self) -> dict[str, Any]:
        got: dict[str, Any] = json.loads(self.connection.recv(timeout=PATIENCE_S))
        return got

    def close(self) -> None:
        self.connection.socket.close()  # as a cable that is pulled: no goodbye


KINDS = [("tcp", TcpClient), ("ws", WebSocketClient)]
Client = type[TcpClient] | type[WebSocketClient]


@pytest.fixture(autouse=True)
def ws_needs_websockets(request: pytest.FixtureRequest) -> None:
    if "ws" in str(request.node.name):
        pytest.importorskip("websockets", reason="websockets (extra live) is not installed")


def test_it_is_a_sink() -> None:
    assert isinstance(open_stream("udp://127.0.0.1:9"), Sink)


def test_a_message_is_what_the_documentation_shows() -> None:
    posed = people(12, 2)
    posed.pose_m[0, 3] = np.nan
    text = json.dumps(message(posed), allow_nan=False)
    got = json.loads(text)
    assert got["frame"] == 12 and got["time_s"] == 0.4 and list(got["people"][1]) == ["person", "pose", "root", "score"]
    assert got["people"][0]["pose"][3] == [None] * 3, "JSON has no NaN"
    np.testing.assert_allclose(got["people"][1]["pose"], posed.pose_m[1], atol=1e-5)
    np.testing.assert_allclose(got["people"][1]["root"], posed.root_m[1], atol=1e-5)


def test_udp_brings_every_frame_and_person() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        with open_stream(f"udp://127.0.0.1:{ear.getsockname()[1]}") as stream:
            for index, count in ((3, 2), (4, 0), (5, 40)):
                put(stream, index, count)
            heard = [json.loads(ear.recv(65536)) for _ in range(2 + 40)]
    assert [h["frame"] for h in heard] == [3, 4] + [5] * 40
    assert [len(h["people"]) for h in heard] == [2, 0] + [1] * 40
    assert [h["people"][0]["person"] for h in heard[2:]] == list(range(40))
    assert stream.dropped == 0


def test_datagrams_are_as_small_as_promised() -> None:
    assert max(map(len, datagrams(message(people(0, 40))))) < DATAGRAM_BYTES
    assert len(list(datagrams(message(people(0, 5))))) == 1


def test_udp_listens_to_nobody_else() -> None:
    """The system gives a sender a port on every interface, unless it is told on which one the receiver is."""
    outlet = UdpOutlet("udp", "127.0.0.1", 9)
    asyncio.run(outlet.open())
    outlet.publish(people(0, 1))
    assert outlet._socket is not None and outlet._socket.getsockname()[0] == "127.0.0.1"
    asyncio.run(outlet.close())


def test_udp_to_nobody_is_no_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        nobody = free.getsockname()[1]
    with open_stream(f"udp://127.0.0.1:{nobody}") as stream:
        for index in range(50):
            put(stream, index)
            time.sleep(0.001)
    assert stream.dropped == 0


@pytest.mark.parametrize(("kind", "client_type"), KINDS)
def test_clients_come_and_go(kind: str, client_type: Client) -> None:
    with open_stream(f"{kind}://127.0.0.1:0") as stream:
        put(stream, 0)
        for index in range(1, 4):
            with closing(client_type(stream)) as client, closing(client_type(stream)) as other:
                put(stream, index)
                assert client.read()["frame"] == other.read()["frame"] == index
            while clients(stream):  # one who is gone without a goodbye is noticed when something is sent
                put(stream, 9)
                time.sleep(0.005)


@pytest.mark.parametrize(("kind", "client_type"), KINDS)
def test_what_waits_is_fetched_at_the_end(kind: str, client_type: Client) -> None:
    with ExitStack() as stack:
        with open_stream(f"{kind}://127.0.0.1:0") as stream:
            client = stack.enter_context(closing(client_type(stream)))
            for index in range(QUEUE_FRAMES):
                put(stream, index)
        assert [client.read()["frame"] for _ in range(QUEUE_FRAMES)] == list(range(QUEUE_FRAMES))
    assert stream.dropped == 0


@pytest.mark.parametrize(("kind", "client_type"), KINDS)
def test_who_never_reads_costs_the_run_nothing(kind: str, client_type: Client) -> None:
    frames, heard = 500, []
    with ExitStack() as stack, open_stream(f"{kind}://127.0.0.1:0") as stream:
        _, quick = (stack.enter_context(closing(client_type(stream))) for _ in range(2))
        for index in range(frames):
            put(stream, index, 4)
            heard.append(quick.read()["frame"])
        assert heard == list(range(frames)), "the other client misses nothing"
        assert clients(stream) == 2 and 0 < stream.dropped < frames


@pytest.mark.parametrize(("kind", "client_type"), KINDS)
def test_a_slow_client_sees_the_newest(kind: str, client_type: Client) -> None:
    """It loses the oldest: of 3000 frames that came while it slept, the last ones are there."""
    with open_stream(f"{kind}://127.0.0.1:0") as stream, closing(client_type(stream)) as client:
        for index in range(3000):
            put(stream, index, 4)
            if index % 10 == 0:
                time.sleep(0.001)
        wait_until(lambda: not stream._waiting)
        seen = [client.read()["frame"]]
        while seen[-1] < 2999:
            seen.append(client.read()["frame"])
        assert seen == sorted(set(seen)) and len(seen) < 3000
        assert seen[-QUEUE_FRAMES:] == list(range(3000 - QUEUE_FRAMES, 3000))
        assert stream.dropped + len(seen) == 3000, "every frame that is missing was counted"


@pytest.mark.parametrize(("kind", "client_type"), KINDS)
def test_who_takes_nothing_is_let_go(kind: str, client_type: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "STALL_S", 0.2)
    with open_stream(f"{kind}://127.0.0.1:0") as stream, closing(client_type(stream)):
        for index in range(1000):
            put(stream, index, 10)
            time.sleep(0.002)
            if not clients(stream):
                break
        wait_until(lambda: not clients(stream))


def test_a_port_that_is_taken_is_said() -> None:
    with open_stream("tcp://127.0.0.1:0") as stream:
        with pytest.raises(InputError, match="cannot serve there") as failure, open_stream(stream.url):
            pass
        assert "tcp://127.0.0.1:0 takes a free port" in failure.value.hint


def test_an_unknown_host_is_said() -> None:
    with pytest.raises(InputError, match="nothing is called"), open_stream("udp://no.such.host.invalid:9000"):
        pass


def test_loopback_unless_another_host_is_named() -> None:
    with open_stream("tcp://:0") as stream:
        assert stream.url.startswith("tcp://127.0.0.1:")


def test_ws_refuses_pages_from_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect
    from websockets.typing import Origin

    with open_stream("ws://127.0.0.1:0") as stream, caplog.at_level(logging.ERROR):
        for refused in ("https://example.com", "null", "http://localhost.example.com"):
            with pytest.raises(InvalidStatus, match="403"):
                connect(stream.url, origin=Origin(refused))
        connect(stream.url, origin=Origin("http://localhost:3000")).close()
        with socket.create_connection(("127.0.0.1", port(stream))) as visitor:  # no WebSocket at all
            visitor.sendall(b"GET / HTTP/1.0\r\nAuthorization: Basic c2VjcmV0\r\n\r\n")
            visitor.recv(1000)
    assert not caplog.records, "who knocks is not worth a log"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1",
        "udp://127.0.0.1",
        "udp://h:99999",
        "nonsense",
        "ws://h:1/path",
        "ws://h:1?token=secret",
        "ws://[::1",
        "ws://[::1:9000",
        "tcp://]:1",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"--stream: expected udp://, tcp:// or ws://HOST:PORT, got") as failure:
        open_stream(url)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("url", ["ws://me:secret@127.0.0.1:9000", "udp:me:secret@h:1", "tcp://me:sec/ret@h:1"])
def test_credentials_are_neither_taken_nor_shown(url: str) -> None:
    with pytest.raises(InputError) as failure:
        open_stream(url)
    assert "sec" not in f"{failure.value} {failure.value.hint}"
