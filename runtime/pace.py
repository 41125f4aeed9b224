"""How fast frames come: a camera, or a picture now and then."""

import math
from collections import deque
from statistics import median

_STEPS = 9  # the latest ones, whose median tells a source of a frame now and then from an outage


class Pace:
    """Stamps as they come in, and out the time by which people are followed: never falling.

    Frames that mostly are further apart than `longest_s` count as half of it apart.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._stamp_s = self._moment_s = -math.inf
        self._steps_s, self._offset_s = deque[float](maxlen=_STEPS), 0.0

    @property
    def is_slow(self) -> bool:
        """Whether frames mostly are further apart, of late."""
        return bool(self._steps_s) and median(self._steps_s) > self._longest_s

    def moment_s(self, stamp_s: float) -> float:
        """Of the next frame."""
        step_s, self._stamp_s = stamp_s - self._stamp_s, max(stamp_s, self._stamp_s)
        if math.isfinite(step_s):
            self._steps_s.append(step_s)
        if self.is_slow:
            self._offset_s += self._longest_s / 2 - step_s
        self._moment_s = max(stamp_s + self._offset_s, self._moment_s)
        return self._moment_s
