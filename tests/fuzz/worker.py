"""One reader, many inputs, in a process of its own with limits on the time and memory of each."""

import faulthandler
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz.mutate import mutated
from fuzz.seeds import seeds_of
from fuzz.strategies import files
from poseda_deploy.errors import PosedaError

MAX_BYTES = 50_000_000
"""What the readers are told to take at most."""
MEMORY_BYTES, PATIENCE_S = 1 << 30, 60
"""What an input may take of memory, and 50 of time, before that is a failure: far more than honest ones do."""
Read = Callable[[Path], Any]


def reader_of(name: str) -> tuple[str, Read]:
    """Name of the file that it takes, and the call. Imports are done when it returns."""
    if name in ("keypoints", "poses", "rows"):
        from poseda_deploy.keypoints import load_keypoints
        from poseda_deploy.poses import load_poses, load_poses_jsonl

        if name == "rows":
            return "a.poses.jsonl", load_poses_jsonl
        return "a.npz", lambda path: (load_keypoints if name == "keypoints" else load_poses)(path, MAX_BYTES)
    if name in ("coco", "openpose"):
        return _importer(name)
    if name.startswith("camera"):
        from poseda_deploy.intrinsics import load_intrinsics

        return f"a.{name.removeprefix('camera_')}", lambda path: load_intrinsics(path, (1280, 720))
    if name == "config":
        from poseda_deploy.terminal import with_config

        return "a.toml", lambda path: with_config(["--config", str(path)])
    return _source(name)


def _importer(name: str) -> tuple[str, Read]:
    from poseda_deploy.runtime.importers import from_coco, from_openpose
    from poseda_deploy.skeleton import COCO17, OPENPOSE25

    rest = (1280, 720), Fraction(30), 2, MAX_BYTES
    if name == "coco":
        return "a.json", lambda path: from_coco(path, COCO17, *rest)
    return "a_0_keypoints.json", lambda path: from_openpose(path.parent, OPENPOSE25, *rest)


def _source(name: str) -> tuple[str, Read]:
    from poseda_deploy.train.bvh import read_bvh
    from poseda_deploy.train.import_h36m import import_h36m
    from poseda_deploy.train.source import load_source
    from poseda_deploy.train.truth import read_target

    calls: dict[str, tuple[str, Read]] = {
        "source": ("a.npz", lambda path: load_source([path], [], max_bytes=MAX_BYTES)),
        "target": ("a.npz", lambda path: read_target(path, max_bytes=MAX_BYTES)),
        "bvh": ("a.bvh", lambda path: read_bvh(path, MAX_BYTES)),
        "h36m": ("a.npz", lambda path: import_h36m(path, path.with_name("out.npz"))),
    }
    return calls[name]


def limit_memory() -> bool:
    """To what this process has now and MEMORY_BYTES more, where the system can."""
    try:
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return False
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, now + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return True


def run(name: str, inputs: int, start: int, folder: Path) -> dict[str, Any]:
    """Half of the inputs by strategies, half by damage to whole files; the input at hand is in the folder."""
    file, read = reader_of(name)
    path, seen = folder / file, Counter[str]()
    path.write_bytes(seeds_of(name)[0])
    read(path)  # a whole file is read, and nothing is left to import
    limited = limit_memory()

    def one(content: bytes) -> None:
        if seen.total() % 50 == 0:  # arming takes longer than reading
            faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
        path.unlink()  # to write over a file waits for the disk
        path.write_bytes(content)
        try:
            read(path)
            seen["read"] += 1
        except PosedaError as error:
            assert 0 < len(str(error)) < 1500 and "\n" not in str(error), f"no line: {str(error)[:300]!r}"
            seen["refused"] += 1

    began = time.perf_counter()
    rng, whole = random.Random(start), seeds_of(name)
    for _ in range(inputs // 2):
        one(mutated(rng.choice(whole), rng))
    quiet = settings(max_examples=inputs - inputs // 2, database=None, deadline=None, phases=[Phase.generate])
    test = settings(quiet, suppress_health_check=list(HealthCheck))(seed(start)(given(files(name))(one)))
    test()
    faulthandler.cancel_dump_traceback_later()
    return {**seen, "memory_limited": limited, "seconds": round(time.perf_counter() - began, 1)}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))
