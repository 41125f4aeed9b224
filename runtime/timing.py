"""How long each stage took."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np


class StageClock:
    """Collects the seconds of every pass through each named stage."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}
        self._started = perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as one pass of the stage."""
        start = perf_counter()
        yield
        self._seconds.setdefault(name, []).append(perf_counter() - start)

    @property
    def elapsed_s(self) -> float:
        """Since the clock was made."""
        return perf_counter() - self._started

    def percentiles_ms(self) -> dict[str, dict[str, float]]:
        """p50, p95 and p99 of each stage in milliseconds."""
        return {
            name: {f"p{q}": round(float(np.percentile(seconds, q)) * 1000, 3) for q in (50, 95, 99)}
            for name, seconds in self._seconds.items()
        }
