"""How long each stage took."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np

KEPT = 10_000


class Recent:
    """The last `KEPT` of a series of seconds: a live run is endless. One thread may add while others read."""

    def __init__(self) -> None:
        self._seconds = np.zeros(KEPT)
        self.count = 0
        """How many there were."""

    def add(self, seconds: float) -> None:
        """Take in the next one."""
        self._seconds[self.count % KEPT] = seconds
        self.count += 1

    def percentiles_ms(self) -> dict[str, float]:
        """p50, p95 and p99 in milliseconds; of at least one."""
        kept = self._seconds[: min(self.count, KEPT)] * 1000
        return {f"p{q}": round(float(np.percentile(kept, q)), 3) for q in (50, 95, 99)}


class StageClock:
    """Collects the seconds of every pass through each named stage."""

    def __init__(self) -> None:
        self._stages: dict[str, Recent] = {}
        self._started = perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as one pass of the stage."""
        start = perf_counter()
        yield
        self._stages.setdefault(name, Recent()).add(perf_counter() - start)

    @property
    def elapsed_s(self) -> float:
        """Since the clock was made."""
        return perf_counter() - self._started

    def percentiles_ms(self) -> dict[str, dict[str, float]]:
        """p50, p95 and p99 of each stage in milliseconds, over its last `KEPT` passes."""
        return {name: recent.percentiles_ms() for name, recent in list(self._stages.items()) if recent.count}
