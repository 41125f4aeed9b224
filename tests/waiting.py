"""Waiting for another thread or process: until it has happened, however slow the machine is."""

import time
from collections.abc import Callable

PATIENCE_S = 60.0
"""Only a test that would fail waits so long."""


def wait_until(true: Callable[[], object]) -> None:
    """AssertionError where it does not become true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.005)
