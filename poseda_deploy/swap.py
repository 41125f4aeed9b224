"""A folder with a manifest takes the place of another: readers find the old one or the new one, whatever is killed.

Linux exchanges the names of two folders in one step. Elsewhere the old folder is renamed away and the new one in; who
is killed between the two leaves neither in place, and the next who reads or writes there puts the old one back.

    .NAME.RANDOM.poseda-swap/new        being filled
                             out/NAME   whole: the new one before an exchange, the old one after it
                             old/NAME   the old one, renamed away

Only files that a manifest lists, and the manifest, are ever removed. What else lies in a replaced folder moves on to
the new one.
"""

import ctypes
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from poseda_deploy.errors import InputError
from poseda_deploy.scratch import hold, leftovers, locked, new_scratch, remove

MANIFEST = "manifest.json"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def listed(folder: Path) -> list[str]:
    """Names of the files there that are ours: those of the manifest and the manifest, last; none without a manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = manifest["files"].items() if isinstance(manifest["schema"], int) else ()
        names = [name for name, digest in files if is_plain(name) and re.fullmatch("[0-9a-f]{64}", digest)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return [*names, MANIFEST] if names else []


def is_plain(name: str) -> bool:
    """Whether that is the name of a file in this very folder."""
    return Path(name).name == name and not {"/", "\\", ":", "\0"} & {*name} and name not in ("", "..", MANIFEST)


def foreign(folder: Path) -> list[str]:
    """Names in that folder that are not ours; none where there is no folder."""
    return sorted({path.name for path in folder.iterdir()} - {*listed(folder)}) if folder.is_dir() else []


@contextmanager
def replaced(place: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to move a finished bundle into; it takes `place` when the block succeeds, and goes when it fails.

    InputError where something else is there, or a bundle and not `overwrite`. Others who publish beside `place` wait.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    place = Path(os.path.realpath(place))
    with _alone(place.parent):
        _settle(place.parent)
        require_replaceable(place, overwrite=overwrite)
        scratch, lock = new_scratch(place, "swap")
        try:
            new, whole = scratch / "new", scratch / "out" / place.name
            new.mkdir()
            yield new
            assert listed(new), "what cannot be told from a user's files cannot be removed either"
            _require_no_clash(new, place)
            whole.parent.mkdir()
            new.rename(whole)
            try:
                _swap(whole, place)
            except OSError as error:
                hint = "--out DIR names a folder that can be renamed"  # no mount, no layer of a container's image
                raise InputError(f"{place} cannot be replaced ({error.strerror})", hint=hint) from error
        finally:
            _finish(scratch, lock)


def require_replaceable(place: Path, *, overwrite: bool) -> None:
    """InputError unless `place` is free, or a bundle that may be overwritten; only of that is overwriting advised."""
    elsewhere = "--out DIR names another folder"
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file, expected a folder or nothing", hint=elsewhere)
    if not place.exists() or not any(place.iterdir()):
        return
    if not listed(place):
        raise InputError(f"{place} has files but is no bundle ({_some(foreign(place))})", hint=elsewhere)
    if not overwrite:
        raise InputError(f"{place} exists", hint="--overwrite replaces it, --out DIR writes elsewhere")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def settle(place: Path) -> None:
    """Bring to an end what killed processes began in the folder of `place`: afterwards it is there if it ever was."""
    folder = Path(os.path.realpath(place)).parent
    with suppress(OSError), _alone(folder):
        _settle(folder)


def put_away(place: Path) -> Path | None:
    """Where the folder that belongs at `place` lies, if a swap was cut short and `settle` could not put it back."""
    place = Path(os.path.realpath(place))
    found = (scratch / "old" / place.name for scratch in leftovers(place.parent, "swap"))
    return next((path for path in found if path.is_dir()), None)


def _settle(folder: Path) -> None:
    for scratch in leftovers(folder, "swap"):
        with suppress(OSError), locked(scratch) as lock:
            _finish(scratch, lock)


def _finish(scratch: Path, lock: IO[bytes] | None) -> None:
    with suppress(OSError):  # of what cannot be moved nothing is lost: it stays where it is
        _end(scratch)
        remove(scratch, lock)
    if lock is not None:
        lock.close()


def _require_no_clash(new: Path, place: Path) -> None:
    taken = {*foreign(place)} & {path.name for path in new.iterdir()}
    if taken:
        raise InputError(f"{place / min(taken)} is not of the bundle there, and in the way", hint="move it away")


def _swap(new: Path, place: Path) -> None:
    if not listed(place):
        with suppress(FileNotFoundError):
            place.rmdir()  # refuses what somebody put there meanwhile
        new.rename(place)
    elif not _exchange(new, place):
        old = new.parents[1] / "old" / place.name
        old.parent.mkdir()
        place.rename(old)
        new.rename(place)


def _exchange(one: Path, other: Path) -> bool:
    """Give each folder the other's name in one step; False where system or disk cannot."""
    if sys.platform != "linux":
        return False
    try:
        rename = ctypes.CDLL(None).renameat2  # glibc 2.28, musl 1.2.6
    except (AttributeError, OSError):
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0


def _end(scratch: Path) -> None:
    """Put an old folder back whose place is empty, else remove what is ours of it; OSError while anything is left."""
    for left in [*scratch.glob("old/*"), *scratch.glob("out/*")]:
        place = scratch.parent / left.name
        if left.parent.name == "out" or listed(place):
            _retire(left, place)
        else:
            left.rename(place)
    shutil.rmtree(scratch / "new", ignore_errors=True)
    for name in ("old", "out"):
        with suppress(FileNotFoundError):
            (scratch / name).rmdir()


def _retire(folder: Path, place: Path) -> None:
    """Remove our files from a replaced folder and move all others on to its successor."""
    for path in (folder / name for name in listed(folder)):
        if not path.is_dir():
            path.unlink(missing_ok=True)
    for path in folder.iterdir():
        if not os.path.lexists(place / path.name):
            path.rename(place / path.name)
    folder.rmdir()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else swaps anything in that folder; on disks without locks, and on Windows, nobody waits."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            hold(handle, wait=True)
        yield
    finally:
        os.close(handle)
