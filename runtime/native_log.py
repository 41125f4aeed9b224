"""What libraries in C++ log on stderr, past Python, without a switch to turn it off."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NATIVE = re.compile(
    rb"[IWEF]\d{4} \d\d:\d\d:\d\d.*"  # glog and absl: severity, date, time, thread, file:line] text
    rb"|WARNING: All log messages before absl::InitializeLog\(\).*"
    rb"|INFO: Created TensorFlow Lite .*"
)


@contextmanager
def native_log_dropped() -> Iterator[None]:
    """For a block: lines that MediaPipe's libraries log are not shown; everybody else's come when it ends.

    MediaPipe 0.10.31 logs ten lines while it starts and meets its first person, whatever log level it is given.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            held.seek(0)
            _pass_on(held.read())


def _pass_on(said: bytes) -> None:
    left = memoryview(b"".join(line for line in said.splitlines(keepends=True) if not _NATIVE.match(line)))
    while left:
        left = left[os.write(2, left) :]
