"""Folders to work in beside the place that the work is for, which no kill leaves behind for ever.

Each holds a lock for as long as its process lives, and who next works in the same folder sweeps those whose lock is
free. A lock goes with its process; a process id may be another's by then, or one of another container.
"""

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

Kind = Literal["partial", "swap"]
"""Half-written outputs, swept as they are; swaps of folders (swap.py), whose leftovers may hold what is needed."""
LOCK = ".poseda-lock"


@contextmanager
def scratch_beside(place: Path) -> Iterator[Path]:
    """An empty hidden folder beside `place`, hence on its disk, that goes with the block."""
    for left in leftovers(place.parent, "partial"):
        with suppress(OSError), locked(left) as dead:
            remove(left, dead)
    folder, lock = new_scratch(place, "partial")
    try:
        yield folder
    finally:
        remove(folder, lock)


def new_scratch(place: Path, kind: Kind) -> tuple[Path, IO[bytes] | None]:
    """A folder `.NAME.RANDOM.poseda-KIND` beside `place` and its lock; none where the disk knows no locks."""
    while True:
        folder = Path(tempfile.mkdtemp(f".poseda-{kind}", f".{place.name[:40]}.", place.parent))
        try:
            return folder, _lock(folder)
        except (BlockingIOError, FileNotFoundError):  # swept between the two lines: it looked like a dead one's
            continue
        except OSError:
            return folder, None


def leftovers(folder: Path, kind: Kind) -> list[Path]:
    """Scratch folders there, of the living and the dead."""
    ours = re.compile(rf"\..*\.[a-z0-9_]{{8}}\.poseda-{kind}")  # the eight are tempfile's
    try:
        entries = [entry for entry in os.scandir(folder) if ours.fullmatch(entry.name)]
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # no such folder, or none to be read
        return []


def remove(folder: Path, lock: IO[bytes] | None) -> None:
    """Delete a scratch folder, under its lock; where open files cannot be deleted, after it."""
    if lock is not None and sys.platform == "win32":
        lock.close()
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        lock.close()


@contextmanager
def locked(folder: Path) -> Iterator[IO[bytes]]:
    """Hold the lock of a scratch folder; OSError where a living process does, or where it cannot be known."""
    with _lock(folder) as lock:
        yield lock


def _lock(folder: Path) -> IO[bytes]:
    lock = (folder / LOCK).open("ab")
    try:
        hold(lock, wait=False)
        if not os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / LOCK)):
            raise FileNotFoundError(f"{folder} was swept")
    except OSError:
        lock.close()
        raise
    return lock


def hold(lock: IO[Any] | int, *, wait: bool) -> None:
    """Keep other processes from holding that file until it is closed or this process ends.

    Where another holds it: wait, or BlockingIOError.
    """
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:
                if not wait:
                    raise BlockingIOError(*error.args) from error
            time.sleep(0.1)
    else:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
