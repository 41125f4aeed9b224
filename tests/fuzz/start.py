"""Starting a worker."""

import os
import subprocess
import sys
from pathlib import Path

from fuzz import seeds

READERS = (*seeds.NPZ, *seeds.JSON, *seeds.TEXT, "h36m")


def start(reader: str, inputs: int, seed: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a worker to its end. Warnings are errors in it: none belongs on a user's terminal."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-m", "fuzz.worker", reader, str(inputs), str(seed), str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)
