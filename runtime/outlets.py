"""How a stream's messages leave: datagrams that nobody waits for, or a server whose clients each have a queue."""

import asyncio
import json
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from poseda_deploy.errors import InputError
from poseda_deploy.poses import PosedFrame, person_fields

from .network import LOCAL_PAGES, LOOPBACK

QUEUE_FRAMES = 16
"""Frames that wait for one client: half a second at 30 fps."""
SEND_BUFFER_BYTES = 1 << 16
"""Of the system for one client. Left alone it takes megabytes, and a slow client would see minutes-old people."""
STALL_S = 10.0
"""A client to whom nothing could be sent for so long is let go."""
FLUSH_S = 1.0
"""What clients get at the end to fetch what waits for them."""
DATAGRAM_BYTES = 8192
"""At most, unless one person alone takes more; Linux sends 65,507, macOS 9,216. A person takes 0.8 kB."""


def message(people: PosedFrame) -> dict[str, Any]:
    """One frame: metres, camera axes, pose relative to root; null where a number is not finite."""
    rows = zip(people.person, people.pose_m, people.root_m, people.score, strict=True)
    return {
        "frame": people.index,
        "time_s": round(people.time_s, 6),
        "people": [person_fields(*row) for row in rows],
    }


@runtime_checkable  # so that shape checks in tests can look at it
class Outlet(Protocol):
    """How messages leave; all of it is called on the stream's thread, inside its event loop."""

    lost: int
    """Messages that somebody missed."""

    async def open(self) -> str:
        """Take the port; returns the address for people to read."""
        ...

    def publish(self, people: PosedFrame) -> None:
        """Hand out one frame, without waiting."""
        ...

    async def close(self) -> None:
        """Let clients fetch what waits for them, for a moment; then send them home."""
        ...


@dataclass
class UdpOutlet:
    """A datagram a frame; where many people make it too long, one a person, each of the same frame."""

    scheme: str
    host: str
    port: int
    lost: int = 0

    async def open(self) -> str:
        """Look up the host."""
        self._family, self._address = _resolved(self, socket.SOCK_DGRAM)
        self._socket: socket.socket | None = None
        return _shown(self.scheme, self._address)

    def publish(self, people: PosedFrame) -> None:
        """Send now, or never."""
        for datagram in datagrams(message(people)):
            try:
                self._socket = self._socket or _sender(self._family, self._address)
                self._socket.sendto(datagram, self._address)
            except OSError:  # no room, or no way there just now
                self.lost += 1

    async def close(self) -> None:
        """Nobody waits."""
        if self._socket is not None:
            self._socket.close()


def _sender(family: socket.AddressFamily, address: Any) -> socket.socket:
    """A socket on the interface from which the address is reached; left to itself it would listen on all of them.

    Not connected: nobody listening there is no error.
    """
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing, and asks for the way
        here = probe.getsockname()
    sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.setblocking(False)
    sender.bind((here[0], 0, *here[2:]))
    return sender


def datagrams(whole: dict[str, Any]) -> Iterator[bytes]:
    """The message as one datagram, or one for each of its people."""
    data = json.dumps(whole).encode()
    if len(data) <= DATAGRAM_BYTES or len(whole["people"]) < 2:
        yield data
    else:
        yield from (json.dumps({**whole, "people": [person]}).encode() for person in whole["people"])


@dataclass(eq=False)
class _Client:
    """What waits for one client."""

    waiting: deque[str] = field(default_factory=lambda: deque(maxlen=QUEUE_FRAMES))
    news: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class ServerOutlet:
    """A server: any number of clients, each with its own bounded queue."""

    scheme: str
    host: str
    port: int
    lost: int = 0

    def __post_init__(self) -> None:
        self._clients: set[_Client] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over = False

    @property
    def clients(self) -> int:
        """Connected now."""
        return len(self._clients)

    async def open(self) -> str:
        """Take the port and serve."""
        listening = _listening(self)
        self._server = await self._serve(listening)
        return _shown(self.scheme, listening.getsockname())

    async def _serve(self, listening: socket.socket) -> Any:
        """JSON lines."""

        async def client(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            async def send(text: str) -> None:
                writer.write(text.encode() + b"\n")
                await writer.drain()

            writer.transport.set_write_buffer_limits(high=0)  # what waits should wait where it can be dropped
            fetched = await self._feed(send)
            writer.close() if fetched else writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

        return await asyncio.start_server(client, sock=listening)

    async def _feed(self, send: Callable[[str], Awaitable[None]]) -> bool:
        """Send what comes until the client goes, or the stream ends and it has fetched everything (True)."""
        client, task = _Client(), asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._clients.add(client)
        try:
            while not self._over or client.waiting:
                await client.news.wait()
                client.news.clear()
                while client.waiting:
                    async with asyncio.timeout(STALL_S):
                        await send(client.waiting.popleft())
            return True
        except (OSError, asyncio.CancelledError):  # gone, stalled (TimeoutError is one), or too slow at the end
            return False
        finally:
            self._clients.remove(client)

    def publish(self, people: PosedFrame) -> None:
        """To everybody; nothing is made where nobody listens."""
        if not self._clients:
            return
        text = json.dumps(message(people))
        for client in self._clients:
            self.lost += len(client.waiting) == QUEUE_FRAMES
            client.waiting.append(text)
            client.news.set()

    async def close(self) -> None:
        """Stop serving."""
        self._over = True
        self._stop_accepting()
        await asyncio.sleep(0)  # who was just accepted is a client now
        for client in self._clients:
            client.news.set()
        if self._tasks:
            _, slow = await asyncio.wait(self._tasks, timeout=FLUSH_S)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)

    def _stop_accepting(self) -> None:
        self._server.close()


class WebSocketOutlet(ServerOutlet):
    """The same for browsers: a text message a frame. On loopback, pages from elsewhere are refused."""

    async def _serve(self, listening: socket.socket) -> Any:
        from websockets.asyncio.server import serve
        from websockets.exceptions import ConnectionClosed

        async def client(connection: Any) -> None:
            async def send(text: str) -> None:
                try:
                    await connection.send(text)
                except ConnectionClosed as error:
                    raise ConnectionResetError from error

            connection.transport.set_write_buffer_limits(high=0)
            try:
                if await self._feed(send):
                    await connection.close()
            finally:
                connection.transport.abort()  # a goodbye would wait behind what it never fetches

        silent = logging.getLogger("poseda_deploy.stream")  # it would print the headers of whoever knocks
        silent.setLevel(logging.CRITICAL)
        return await serve(
            client,
            sock=listening,
            origins=[LOCAL_PAGES, None] if self.host in LOOPBACK else None,
            compression=None,
            close_timeout=FLUSH_S / 2,
            logger=silent,
        )

    def _stop_accepting(self) -> None:
        self._server.close(close_connections=False)


def _resolved(place: UdpOutlet | ServerOutlet, kind: socket.SocketKind) -> tuple[socket.AddressFamily, Any]:
    try:
        family, _, _, _, address = socket.getaddrinfo(place.host, place.port, type=kind)[0]
    except OSError as error:
        what = f"--stream {place.scheme}://{place.host}:{place.port}: nothing is called {place.host}"
        raise InputError(what, hint="check the name, or use the number of the address") from error
    return family, address


def _listening(place: ServerOutlet) -> socket.socket:
    family, address = _resolved(place, socket.SOCK_STREAM)
    try:
        server = socket.create_server(address[:2], family=family)
    except OSError as error:
        what = f"--stream {place.scheme}://{place.host}:{place.port}: cannot serve there ({error.strerror})"
        raise InputError(what, hint=f"{place.scheme}://{place.host}:0 takes a free port") from error
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # its clients' sockets inherit it
    return server


def _shown(scheme: str, address: Any) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{scheme}://{host}:{address[1]}"


OUTLETS: dict[str, type[UdpOutlet | ServerOutlet]] = {"udp": UdpOutlet, "tcp": ServerOutlet, "ws": WebSocketOutlet}
