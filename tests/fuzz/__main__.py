"""python -m fuzz [inputs a reader] [readers ...]: all readers with new seeds; prints what became of the inputs."""

import random
import sys
import tempfile
from pathlib import Path

from fuzz.start import READERS, start


def main(inputs: int, readers: list[str]) -> int:
    """Exit code 1 where a reader failed."""
    failed = 0
    for name in readers:
        seed = random.SystemRandom().randrange(1 << 32)
        folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
        done = start(name, inputs, seed, folder)
        print(f"{name:12} seed {seed:10}  {done.stdout.strip() if not done.returncode else 'FAILED'}", flush=True)
        if done.returncode:
            failed += 1
            print(f"{done.stderr[-4000:]}\nexit code {done.returncode}; the input is in {folder}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, sys.argv[2:] or list(READERS)))
