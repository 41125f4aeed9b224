"""Everything that can go wrong for a user, as one tree.

PosedaError                     caught once, in terminal.py; one line, then "Try: ..."
├── InputError (ValueError)     a file or a flag: what, expected, got, how to fix        exit 2
│   └── CameraError             impossible intrinsics, camera and image of other sizes   exit 2
├── BundleError (ValueError)    a bundle that is damaged, foreign or too new             exit 2
├── MissingDependency           which extra to install, as a command                     exit 3
│   (ImportError)
├── BackendError (RuntimeError) the provider asked for is not the one that runs          exit 3
└── CheckFailed (RuntimeError)  a limit in millimetres or bytes was not met              exit 1

Anything else is a mistake of ours: one line with its type, the traceback with --debug,  exit 4
Stopped before anything was kept: by Ctrl-C exit 130, by SIGTERM exit 143.
"""

INTERNAL_ERROR = 4
"""Exit code of an error that is not in this tree."""


class PosedaError(Exception):
    """A failure that the user can mend; `hint` says how."""

    exit_code = 2

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class InputError(PosedaError, ValueError):
    """A file or flag is not what it should be."""


class CameraError(InputError):
    """Intrinsics that no camera has, or that belong to an image of another size."""


class BundleError(PosedaError, ValueError):
    """A bundle is incomplete, damaged, or of a newer schema."""


class MissingDependency(PosedaError, ImportError):
    """An optional package, or a file that a package index holds, is not there."""

    exit_code = 3


class BackendError(PosedaError, RuntimeError):
    """The compute device or provider asked for is not the one that would run."""

    exit_code = 3


class CheckFailed(PosedaError, RuntimeError):
    """A result misses its limit."""

    exit_code = 1
