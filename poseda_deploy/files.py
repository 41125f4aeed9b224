"""Files by name: there or not, their hashes, and writing them whole or not at all."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from poseda_deploy.errors import InputError


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
    """A temporary name beside `path` that becomes it when the block succeeds and vanishes when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.partial{os.getpid()}{path.suffix}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
