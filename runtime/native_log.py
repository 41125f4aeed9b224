"""What libraries in C++ log on stderr, past Python, without a switch to turn it off."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_NATIVE = re.compile(
    rb"[IWEF]\d{4} \d\d:\d\d:\d\d.*"  # glog and absl: severity, date, time, thread, file:line] text
    rb"|WARNING: All log messages before absl::InitializeLog\(\).*"
    rb"|INFO: Created TensorFlow Lite .*"
)


class _Held:
    """Stderr, past Python too, in a file for as long as anybody is inside; threads may be inside together."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0

    def enter(self) -> None:
        """The first one in diverts stderr."""
        with self._lock:
            if self._inside == 0:
                sys.stderr.flush()
                self._shown, held = os.dup(2), tempfile.TemporaryFile()  # noqa: SIM115  the last one out closes it
                os.dup2(held.fileno(), 2)
                self._file = held
            self._inside += 1

    def leave(self) -> None:
        """The last one out restores it, and passes on what is not a library's."""
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                sys.stderr.flush()
                os.dup2(self._shown, 2)
                os.close(self._shown)
                with self._file:
                    self._file.seek(0)
                    _pass_on(self._file.read())


_HELD = _Held()


@contextmanager
def native_log_dropped() -> Iterator[None]:
    """For a block: lines that MediaPipe's libraries log are not shown; everybody else's come when it ends.

    MediaPipe 0.10.31 logs ten lines while it starts and meets its first person, whatever log level it is given.
    """
    _HELD.enter()
    try:
        yield
    finally:
        _HELD.leave()


def _pass_on(said: bytes) -> None:
    left = memoryview(b"".join(line for line in said.splitlines(keepends=True) if not _NATIVE.match(line)))
    while left:
        left = left[os.write(2, left) :]
