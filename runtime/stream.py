"""--stream: every frame's people as one JSON object, for robots and game engines.

udp://HOST:PORT sends there and forgets. tcp://HOST:PORT and ws://HOST:PORT serve there, one line or message a frame, to
whoever connects; who is slow loses the oldest frames, and nobody else notices. docs/outputs.md shows an object.
"""

import asyncio
from collections import deque
from contextlib import suppress
from importlib.util import find_spec
from threading import Event, Lock, Thread
from urllib.parse import SplitResult

from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.poses import PosedFrame
from poseda_deploy.terminal import say

from .network import LOOPBACK, shown, split
from .outlets import OUTLETS, QUEUE_FRAMES, Outlet
from .video import Frame

EXAMPLE = "--stream ws://127.0.0.1:9000"


def open_stream(url: str) -> "JsonStream":
    """The sink of an address; InputError where it is none. Ports are opened when the sink is entered."""
    parts = split(url)
    if parts is None or parts.scheme not in OUTLETS or parts.port is None or _more_than_a_place(parts):
        raise InputError(f"--stream: expected udp://, tcp:// or ws://HOST:PORT, got {shown(url)}", hint=EXAMPLE)
    if "@" in parts.netloc:
        raise InputError(f"--stream {shown(url)}: takes no user name and password", hint=EXAMPLE)
    if parts.scheme == "ws" and find_spec("websockets") is None:
        raise MissingDependency("--stream ws: websockets is not installed", hint="pip install 'poseda-deploy[live]'")
    return JsonStream(OUTLETS[parts.scheme](parts.scheme, parts.hostname or LOOPBACK[0], parts.port))


def _more_than_a_place(parts: SplitResult) -> bool:
    return parts.path not in ("", "/") or bool(parts.query or parts.fragment)


class JsonStream:
    """A sink: takes every frame at once, and sends it from a thread of its own."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet, self.url = outlet, ""
        self._waiting: deque[PosedFrame] = deque()
        self._lock, self._ready, self._lost = Lock(), Event(), 0
        self._over = False
        self._error: BaseException | None = None

    @property
    def dropped(self) -> int:
        """Messages lost to slow clients, or (udp) that the system had no room for."""
        return self._lost + self.outlet.lost

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Leave one frame for the thread."""
        with self._lock:
            if len(self._waiting) == QUEUE_FRAMES:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(people)
        self._wake()

    def __enter__(self) -> "JsonStream":
        self._thread = Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        say(f"streaming: {self.url}")
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        self._wake()
        self._thread.join()
        if self.dropped:
            say(f"{self.url}: {self.dropped} messages were lost to clients too slow for them")

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop ended with an error, which was said
            self._loop.call_soon_threadsafe(self._news.set)

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except Exception as error:  # no client may be able to end the run
            if self._ready.is_set():
                say(f"{self.url}: the stream stopped, the run goes on: {type(error).__name__}: {error}")
            self._error = error
        finally:
            self._ready.set()

    async def _work(self) -> None:
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        self.url = await self.outlet.open()
        self._ready.set()
        try:
            while await self._news.wait() and not (self._over and not self._waiting):
                self._news.clear()
                for people in self._take():
                    self.outlet.publish(people)
                    await asyncio.sleep(0)  # clients get it before the next is made
                if self._over:
                    self._news.set()
        finally:
            await self.outlet.close()

    def _take(self) -> list[PosedFrame]:
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
        return taken
