"""--stream: every frame's people as one JSON object, for robots and game engines.

udp://HOST:PORT sends there and forgets. tcp://HOST:PORT and ws://HOST:PORT serve there, one line or message a frame, to
whoever connects; who is slow loses the oldest frames, and nobody else notices. docs/outputs.md shows an object.
"""

import json
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Condition, Lock, Thread
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.poses import PosedFrame

from .sinks import Sink
from .video import Frame

BACKLOG = 64
"""Frames that wait for a listener: two seconds at 30 fps."""
MAX_DATAGRAM = 60_000
"""Bytes; above 65,507 none is sent. A person takes 1.2 kB."""


def open_stream(url: str) -> Sink:
    """The sink of an address; InputError where it is none, or taken."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"--stream: {error}", hint="udp://127.0.0.1:9000") from error
    if parts.scheme not in STREAMS or not host or port is None or parts.path not in ("", "/"):
        raise InputError(f"--stream {url}: expected udp://, tcp:// or ws://HOST:PORT", hint="udp://127.0.0.1:9000")
    return STREAMS[parts.scheme](host, port)


def message(people: PosedFrame) -> dict[str, Any]:
    """One frame; metres to 0.1 mm, camera axes, pose relative to root."""
    rows = zip(people.person, people.pose_m, people.root_m, people.score, strict=True)
    return {
        "frame": people.index,
        "time_s": round(people.time_s, 6),
        "people": [
            {"person": int(who), "pose": _rounded(pose_m, 4), "root": _rounded(root_m, 4), "score": _rounded(score, 3)}
            for who, pose_m, root_m, score in rows
        ],
    }


def _rounded(values: np.ndarray, digits: int) -> list[Any]:
    return np.round(values.astype(float), digits).tolist()


class UdpStream:
    """A sink: a datagram a frame; people who do not fit into one come in further ones of the same frame."""

    def __init__(self, host: str, port: int) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        except socket.gaierror as error:
            raise InputError(f"--stream udp://{host}:{port}: unknown host", hint="give its IP address") from error
        self._address: tuple[Any, ...] = address
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.dropped = 0
        """Datagrams that the system had no room for."""

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Send one frame; nobody listening is no error."""
        whole = message(people)
        for part in _parts(whole):
            try:
                self._socket.sendto(part, self._address)
            except ConnectionRefusedError:  # of an earlier datagram: nobody listened
                continue
            except OSError:
                self.dropped += 1

    def __enter__(self) -> "UdpStream":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()


def _parts(whole: dict[str, Any]) -> Iterator[bytes]:
    data = json.dumps(whole).encode()
    if len(data) <= MAX_DATAGRAM or len(whole["people"]) < 2:
        yield data
        return
    half = len(whole["people"]) // 2
    for people in (whole["people"][:half], whole["people"][half:]):
        yield from _parts({**whole, "people": people})


class _Listener:
    """What waits for one client."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque(maxlen=BACKLOG)
        self._changed, self._over = Condition(), False
        self.dropped = 0

    def put(self, text: str) -> None:
        """Add the newest; the oldest goes if there is no room."""
        with self._changed:
            self.dropped += len(self._waiting) == BACKLOG
            self._waiting.append(text)
            self._changed.notify()

    def end(self) -> None:
        """Nothing more comes."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def __iter__(self) -> Iterator[str]:
        while True:
            with self._changed:
                while not self._waiting and not self._over:
                    self._changed.wait()
                if self._over:
                    return
                text = self._waiting.popleft()
            yield text


class _Audience:
    """All clients of a server."""

    def __init__(self) -> None:
        self._lock, self._over = Lock(), False
        self._listeners: set[_Listener] = set()
        self._gone_dropped = 0

    def join(self) -> _Listener:
        """A place for a new client."""
        listener = _Listener()
        with self._lock:
            self._listeners = self._listeners | {listener}  # replaced, not changed: put() may be going through it
            if self._over:
                listener.end()
        return listener

    def leave(self, listener: _Listener) -> None:
        """Its place is free again."""
        with self._lock:
            self._listeners = self._listeners - {listener}
            self._gone_dropped += listener.dropped

    @property
    def size(self) -> int:
        """Clients connected now."""
        return len(self._listeners)

    @property
    def dropped(self) -> int:
        """Frames that slow clients lost."""
        return self._gone_dropped + sum(listener.dropped for listener in self._listeners)

    def put(self, people: PosedFrame) -> None:
        """To everybody; nothing is made where nobody listens."""
        if listeners := self._listeners:
            text = json.dumps(message(people))
            for listener in listeners:
                listener.put(text)

    def end(self) -> None:
        """Send everybody home."""
        with self._lock:
            self._over = True
            for listener in self._listeners:
                listener.end()


class TcpStream:
    """A sink: a server of JSON lines."""

    def __init__(self, host: str, port: int) -> None:
        self.audience = _Audience()
        self._server = _listening(host, port)
        self.port: int = self._server.getsockname()[1]
        self._lock = Lock()
        self._clients: set[socket.socket] = set()
        self._thread = Thread(target=self._accept, name="tcp-stream", daemon=True)
        self._thread.start()

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Queue one frame for every client."""
        self.audience.put(people)

    def _accept(self) -> None:
        with suppress(OSError):  # the server was closed
            while True:
                client, _ = self._server.accept()
                with self._lock:
                    self._clients = self._clients | {client}
                Thread(target=self._serve, args=(client,), name="tcp-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        listener = self.audience.join()
        with client, suppress(OSError):  # it went away
            for text in listener:
                client.sendall(text.encode() + b"\n")
        self.audience.leave(listener)
        with self._lock:
            self._clients = self._clients - {client}

    def __enter__(self) -> "TcpStream":
        return self

    def __exit__(self, *error: object) -> None:
        for closing in (self._server, *self._clients):
            with suppress(OSError):
                closing.shutdown(socket.SHUT_RDWR)  # wakes up who waits in accept or sendall
        self._server.close()
        self.audience.end()
        self._thread.join(1)


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise InputError(f"--stream: cannot serve on {host}:{port} ({error.strerror})", hint="another port") from error


class WebSocketStream:
    """A sink: a WebSocket server, a text message a frame."""

    def __init__(self, host: str, port: int) -> None:
        try:
            from websockets.sync.server import serve
        except ImportError as error:
            raise MissingDependency("websockets is not installed", hint="pip install 'poseda-deploy[live]'") from error
        self.audience = _Audience()
        self._connections: set[Any] = set()
        self._server = serve(self._serve, sock=_listening(host, port), compression=None)
        self.port: int = self._server.socket.getsockname()[1]
        self._thread = Thread(target=self._server.serve_forever, name="ws-stream", daemon=True)
        self._thread.start()

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Queue one frame for every client."""
        self.audience.put(people)

    def _serve(self, connection: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        listener = self.audience.join()
        self._connections.add(connection)
        with suppress(ConnectionClosed, OSError):
            for text in listener:
                connection.send(text)
        self._connections.discard(connection)
        self.audience.leave(listener)

    def __enter__(self) -> "WebSocketStream":
        return self

    def __exit__(self, *error: object) -> None:
        self.audience.end()
        self._server.shutdown()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)  # wakes up who waits for a client that never reads
        self._thread.join()


STREAMS: dict[str, Callable[[str, int], Sink]] = {"udp": UdpStream, "tcp": TcpStream, "ws": WebSocketStream}
