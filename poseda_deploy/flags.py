"""Values of flags that several commands check alike, before any work is done."""

from pathlib import Path

from poseda_deploy.errors import InputError


def require_npz_name(out: Path) -> None:
    """InputError where `out` cannot be the name of an .npz file."""
    if out.suffix != ".npz" or out.is_dir():
        raise InputError(f"--out: expected a name ending in .npz, got {out}", hint=f"--out {out.name or 'my'}.npz")


def require_seed(seed: int) -> None:
    """InputError where numpy and torch would not both take it."""
    if not 0 <= seed < 1 << 32:
        raise InputError(f"--seed must be 0 or more, and below 2^32, got {seed}", hint="--seed 0")
