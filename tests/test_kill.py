"""A training that is killed again and again, as the operating system does it: nothing broken, nothing lost."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import walk_m

from poseda_deploy.bundle import WEIGHTS, load_bundle

STEPS = 4800
TRAIN = """
import sys
from poseda_deploy.train import checkpoint
from poseda_deploy.train.cli import main
checkpoint.EVERY_S = 0.5  # seconds, so that minutes of training are not needed here
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    of_all: dict[str, Any] = {"seq_id": np.zeros(120, int), "seq_subject": np.array(["a"]), "valid": np.ones(120, bool)}
    np.savez(tmp_path / "source.npz", positions=walk_m(120).astype(np.float32), **of_all)
    flags = [
        "--source",
        str(tmp_path / "source.npz"),
        "--steps",
        str(STEPS),
        "--batch",
        "64",
        "--width",
        "64",
        "--quiet",
    ]

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", TRAIN, *flags, "--out", str(tmp_path / name)])

    assert start("whole").wait() == 0
    chance = random.Random(0)
    unfinished = tmp_path / ".killed.unfinished.safetensors"
    killed = 0
    while killed < 10:
        training = start("killed")
        before = unfinished.stat().st_mtime if unfinished.exists() else 0.0
        while not unfinished.exists() or unfinished.stat().st_mtime == before:
            assert training.poll() is None, f"finished before kill {killed + 1}: more STEPS"
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.8))
        training.send_signal(signal.SIGKILL)
        assert training.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed").exists(), "no bundle before it is whole"
        killed += 1
    assert start("killed").wait() == 0
    whole, resumed = (load_bundle(tmp_path / name) for name in ("whole", "killed"))
    assert resumed.file(WEIGHTS).read_bytes() == whole.file(WEIGHTS).read_bytes()
    assert resumed.manifest.report["training_error_mm"] == whole.manifest.report["training_error_mm"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "source.npz", "whole"], "nothing left over"
