"""Files by name: there or not, their hashes, and writing them whole or not at all."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poseda_deploy.errors import InputError
from poseda_deploy.scratch import scratch_beside


def require_file(path: Path, what: str) -> Path:
    """The path, if a file is there."""
    if not path.is_file():
        raise InputError(f"{what} not found: {path}", hint="check the path; relative paths start at the current folder")
    return path


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def write_aside(path: Path) -> Iterator[Path]:
    """A temporary place for the file that becomes `path` when the block succeeds and vanishes when it fails.

    Where `path` is a link, what it leads to is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Path(os.path.realpath(path))
    with scratch_beside(place) as scratch:
        yield scratch / place.name
        (scratch / place.name).replace(place)
