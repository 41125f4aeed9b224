"""From one thread to the next, by one of two policies: every item in order, some made ahead, or always the newest."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Condition, Event, Semaphore, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
POLL_S = 0.1


def read_ahead(items: Iterable[T], depth: int = 4) -> Generator[T, None, None]:
    """The same items, made (a video: decoded) up to `depth` ahead on a thread that ends when the consumer leaves."""
    made: SimpleQueue[T | _End] = SimpleQueue()
    room, stop = Semaphore(depth), Event()
    thread = Thread(target=_make, args=(items, made, room, stop), name="read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := made.get(), _End):
            room.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        room.release()
        thread.join()


@dataclass(frozen=True)
class _End:
    """No more items, and why."""

    error: BaseException | None


def _make(items: Iterable[T], made: "SimpleQueue[T | _End]", room: Semaphore, stop: Event) -> None:
    try:
        for item in items:
            room.acquire()
            if stop.is_set():
                return
            made.put(item)
        made.put(_End(None))
    except BaseException as error:
        made.put(_End(error))


def newest(
    items: Iterable[T], close: Callable[[], None], on_drop: Callable[[], None], stop: Callable[[], bool]
) -> Generator[T, None, None]:
    """The newest item whenever one is asked for, taken in on a thread; `on_drop` is told of each that was too old.

    Ends with the items, after the last of them, or when `stop` says so, which is asked while waiting. Then `close` is
    called, which must end the items, and the thread joined.
    """
    slot: _Slot[T] = _Slot(on_drop)
    thread = Thread(target=_fill, args=(items, slot), name="newest", daemon=True)
    thread.start()
    try:
        while (item := slot.take(stop)) is not None:
            yield item
        if slot.error is not None:
            raise slot.error
    finally:
        slot.end(None)
        close()
        thread.join()


class _Slot(Generic[T]):
    """Room for one item between two threads."""

    def __init__(self, on_drop: Callable[[], None]) -> None:
        self._on_drop, self._changed = on_drop, Condition()
        self._item: T | None = None
        self.ended = False
        self.error: BaseException | None = None

    def put(self, item: T) -> None:
        """Replace what is in it."""
        with self._changed:
            if self._item is not None:
                self._on_drop()
            self._item = item
            self._changed.notify()

    def end(self, error: BaseException | None) -> None:
        """Nothing more comes."""
        with self._changed:
            if not self.ended:
                self.ended, self.error = True, error
            self._changed.notify()

    def take(self, stop: Callable[[], bool]) -> T | None:
        """What is in it, or comes; None at the end."""
        with self._changed:
            while self._item is None and not self.ended and not stop():
                self._changed.wait(POLL_S)
            item, self._item = self._item, None
            return item


def _fill(items: Iterable[T], slot: _Slot[T]) -> None:
    try:
        for item in items:
            if slot.ended:
                return
            slot.put(item)
        slot.end(None)
    except BaseException as error:
        slot.end(error)
