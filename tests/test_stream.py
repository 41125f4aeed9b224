"""Streams: who listens gets every frame, who is slow loses some, and the run never waits."""

import json
import socket
import time

import numpy as np
import pytest

from poseda_deploy.errors import InputError
from poseda_deploy.poses import PosedFrame
from poseda_deploy.runtime.stream import BACKLOG, MAX_DATAGRAM, TcpStream, UdpStream, WebSocketStream, open_stream
from poseda_deploy.runtime.video import Frame

PICTURE = np.zeros((2, 2, 3), np.uint8)


def people(index: int, count: int = 1) -> PosedFrame:
    pose_m = np.random.default_rng(index).normal(size=(count, 17, 3)).astype(np.float32)
    score = np.ones((count, 17), np.float32)
    return PosedFrame(index, index / 30, np.arange(count), pose_m, pose_m[:, 1], score, pose_m[..., :2])


def put(stream: UdpStream | TcpStream | WebSocketStream, index: int, count: int = 1) -> float:
    """Seconds that it took."""
    frame, posed = Frame(index, index / 30, PICTURE), people(index, count)
    start = time.perf_counter()
    stream.put(frame, posed)
    return time.perf_counter() - start


def wait_for(stream: TcpStream | WebSocketStream, clients: int) -> None:
    deadline_s = time.monotonic() + 5
    while stream.audience.size != clients and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert stream.audience.size == clients


def test_udp_brings_every_frame_and_person() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        with UdpStream("127.0.0.1", ear.getsockname()[1]) as stream:
            put(stream, 3, 2)
            heard = json.loads(ear.recv(65536))
            assert heard["frame"] == 3 and [p["person"] for p in heard["people"]] == [0, 1]
            np.testing.assert_allclose(heard["people"][1]["pose"], people(3, 2).pose_m[1], atol=1e-4)
            put(stream, 4, 100)
            parts = [json.loads(ear.recv(65536))]
            while sum(len(part["people"]) for part in parts) < 100:
                parts.append(json.loads(ear.recv(65536)))
    assert len(parts) > 1
    assert {part["frame"] for part in parts} == {4}
    assert sorted(p["person"] for part in parts for p in part["people"]) == list(range(100))
    assert all(len(json.dumps(part)) <= MAX_DATAGRAM for part in parts)


def test_udp_to_nobody_is_no_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with UdpStream("127.0.0.1", port) as stream:
        assert max(put(stream, i) for i in range(50)) < 0.1


def test_tcp_clients_come_and_go() -> None:
    with TcpStream("127.0.0.1", 0) as stream:
        put(stream, 0)
        for index in (1, 2):  # a second client after the first has gone
            with socket.create_connection(("127.0.0.1", stream.port)) as client, client.makefile() as lines:
                wait_for(stream, 1)
                put(stream, index)
                assert json.loads(lines.readline())["frame"] == index
            deadline_s = time.monotonic() + 5
            while stream.audience.size and time.monotonic() < deadline_s:
                put(stream, 9)  # a gone client is noticed when something is sent
                time.sleep(0.01)
            assert stream.audience.size == 0


def test_a_tcp_client_that_never_reads_costs_nothing() -> None:
    with TcpStream("127.0.0.1", 0) as stream, socket.create_connection(("127.0.0.1", stream.port)):
        wait_for(stream, 1)
        seconds = [put(stream, i, 4) for i in range(3000)]
        assert stream.audience.dropped > 1000, "what does not fit into the system's buffers and the backlog"
        assert np.quantile(seconds, 0.99) < 0.02 and stream.audience.size == 1


def test_websocket_messages() -> None:
    connect = pytest.importorskip("websockets.sync.client").connect
    with WebSocketStream("127.0.0.1", 0) as stream:
        for _ in range(2):
            with connect(f"ws://127.0.0.1:{stream.port}") as client:
                wait_for(stream, 1)
                for index in range(BACKLOG):
                    put(stream, index)
                heard = [json.loads(client.recv(timeout=5))["frame"] for _ in range(BACKLOG)]
                assert heard == list(range(BACKLOG))
            put(stream, 99)  # a gone client is noticed when something is sent
            wait_for(stream, 0)
    assert stream.audience.dropped == 0


def test_a_websocket_client_that_never_reads_holds_up_neither_run_nor_end() -> None:
    pytest.importorskip("websockets")
    with WebSocketStream("127.0.0.1", 0) as stream, socket.create_connection(("127.0.0.1", stream.port)) as client:
        key = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        client.sendall(f"{key}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
        wait_for(stream, 1)
        seconds = [put(stream, i, 4) for i in range(3000)]
        assert stream.audience.dropped > 1000 and np.quantile(seconds, 0.99) < 0.02
        start_s = time.monotonic()
    assert time.monotonic() - start_s < 5


def test_a_port_that_is_taken_is_said() -> None:
    with TcpStream("127.0.0.1", 0) as stream, pytest.raises(InputError, match="cannot serve"):
        open_stream(f"tcp://127.0.0.1:{stream.port}")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "udp://127.0.0.1", "tcp://:9000", "udp://h:99999", "nonsense"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="--stream"):
        open_stream(url)
