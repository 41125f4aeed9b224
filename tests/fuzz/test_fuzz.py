"""2,000 inputs a reader, the same ones every time; `make fuzz` tries 100,000 new ones."""

import json
from pathlib import Path

import pytest

from fuzz.start import READERS, start

INPUTS = 2000


@pytest.mark.parametrize("reader", READERS)
def test_any_bytes_are_read_or_refused(reader: str, tmp_path: Path) -> None:
    if reader in ("source", "target", "h36m", "bvh"):
        pytest.importorskip("torch")
    done = start(reader, INPUTS, 0, tmp_path)
    assert not done.returncode, f"the input is in {tmp_path}\n{done.stderr[-4000:]}"
    seen = json.loads(done.stdout)
    assert seen["refused"] >= INPUTS / 10 and seen["read"] + seen["refused"] >= INPUTS * 0.9
