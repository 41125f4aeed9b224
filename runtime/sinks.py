"""Where a run's people go, frame by frame: the protocol that files, streams, windows and pages share."""

from typing import Protocol, runtime_checkable

from poseda_deploy.poses import PosedFrame

from .video import Frame


@runtime_checkable  # so that shape checks in tests can look at it
class Sink(Protocol):
    """Takes every frame of a run; a context manager, so that what was written is whole however the run ends."""

    def put(self, frame: Frame, people: PosedFrame) -> None:
        """Take one frame. Returns at once: what is slow behind it queues, within bounds, or drops and counts."""
        ...

    def __enter__(self) -> "Sink": ...

    def __exit__(self, *error: object) -> None: ...
