"""A training that was killed goes on: its state, once a minute, as one safetensors file."""

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from time import monotonic

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from poseda_deploy.files import write_aside

from .config import Course
from .state import TrainState

EVERY_S = 45.0


class Checkpoint:
    """The state of one training, beside the bundle it will become; of another training's it takes nothing."""

    def __init__(self, path: Path, course: Course) -> None:
        self.path = path
        self._course = sha256(json.dumps(asdict(course), default=str, sort_keys=True).encode()).hexdigest()
        self._saved_at_s = monotonic()

    def load(self, state: TrainState) -> None:
        """Restore the state if there is one of this very training."""
        if not self.path.is_file():
            return
        with safe_open(self.path, "pt") as archive:
            same_course = (archive.metadata() or {}).get("course") == self._course
        if same_course:
            state.restore(load_file(self.path))

    def save_if_due(self, state: TrainState) -> None:
        """Write the state aside and rename it, so that a kill leaves the old one or the new one."""
        if monotonic() - self._saved_at_s < EVERY_S:
            return
        with write_aside(self.path) as aside:
            save_file(state.tensors(), aside, {"course": self._course})
        self._saved_at_s = monotonic()
