"""Places that results go to, looked at before any work is done: an hour later is too late to hear of a wrong path."""

import os
from pathlib import Path

from poseda_deploy.errors import InputError
from poseda_deploy.scratch import scratch_beside
from poseda_deploy.swap import require_replaceable


def require_file_place(path: Path, *, overwrite: bool, flag: str = "--out") -> None:
    """InputError unless a file can be written there; its folder is made."""
    _require_place(path, flag)
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise InputError(f"{path} is {what}, expected a file or nothing", hint=f"{flag} PATH names another")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists", hint=f"--overwrite replaces it, {flag} PATH writes elsewhere")


def require_folder_place(path: Path, *, overwrite: bool, flag: str = "--out") -> None:
    """InputError unless a bundle can be put there; the folder that it will lie in is made."""
    _require_place(path, flag)
    if os.path.ismount(path):
        raise InputError(f"{path} is a mount point, which cannot be replaced", hint=f"{flag} {path / 'bundle'}")
    require_replaceable(path, overwrite=overwrite)


def require_name(path: Path, flag: str = "--out") -> None:
    """InputError for "", ".", ".." and "/", of which no name of an output can be made."""
    if path.name in ("", ".."):
        raise InputError(f"{flag} {path} names no file or folder of its own", hint=f"{flag} followed by a name")


def _require_place(path: Path, flag: str) -> None:
    """A name in a folder that is there, or can be made, and takes files of that name."""
    require_name(path, flag)
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link that leads nowhere", hint=f"{flag} PATH names another, or remove the link")
    place = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_beside(place) as scratch:
            (scratch / place.name).touch()
    except OSError as error:
        hint = "check the path, its permissions and the disk"
        raise InputError(f"{path}: nothing can be written there ({error.strerror})", hint=hint) from error
