"""Reading and writing files safely: no pickles, whole files or none."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from poseda_deploy.errors import InputError


def require_file(path: Path, what: str) -> Path:
    """The path, if a file is there."""
    if not path.is_file():
        raise InputError(f"{what} not found: {path}", hint="check the path; relative paths start at the current folder")
    return path


def load_npz(path: Path, required: Sequence[str]) -> dict[str, np.ndarray]:
    """All arrays of an .npz; refuses pickled objects and missing keys, naming both."""
    require_file(path, "file")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            missing = [key for key in required if key not in archive.files]
            if missing:
                raise InputError(
                    f"{path}: lacks {', '.join(missing)}; it holds {', '.join(archive.files) or 'nothing'}",
                    hint="see docs/conventions.md for the keys of each file",
                )
            return {key: archive[key] for key in archive.files}
    except InputError:
        raise
    except AttributeError as error:  # a bare array or nothing: no context manager
        raise InputError(f"{path}: not an .npz archive", hint="write it with numpy.savez") from error
    except (BadZipFile, OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable .npz ({error})", hint="write it again with numpy.savez") from error
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise InputError(f"{path}: not an .npz archive", hint="write it with numpy.savez") from error
        raise InputError(
            f"{path}: holds Python objects, which are not loaded (they can run code)",
            hint="save plain numeric or string arrays",
        ) from error


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
