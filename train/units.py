"""Whether poses are in metres: people's shins say so."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import InputError
from poseda_deploy.skeleton import H36M17

PLAUSIBLE_SHIN_M = (0.15, 0.65)
FARTHEST_M = 1e6
"""Of a joint from the origin; single precision has centimetres there."""


def check_metres(file: Path, pose: Float[np.ndarray, "n 17 3"]) -> None:
    """Refuse poses whose shins are no person's, naming the factor that looks missing."""
    if not len(pose):
        raise InputError(f"{file}: no pose is left", hint="check --without and the file's `valid`")
    if np.abs(pose).max() > FARTHEST_M:
        raise InputError(f"{file}: positions are not within {FARTHEST_M / 1000:g} km", hint="they must be in metres")
    knee, ankle = H36M17.index("left_knee"), H36M17.index("left_ankle")
    shin_m = float(np.median(np.linalg.norm(pose[:, knee] - pose[:, ankle], axis=-1)))
    if not PLAUSIBLE_SHIN_M[0] < shin_m < PLAUSIBLE_SHIN_M[1]:
        factor = 0.42 / max(shin_m, 1e-9)
        raise InputError(
            f"{file}: shins are {shin_m:.3g} long, people's are 0.2 to 0.6 m",
            hint=f"positions must be in metres; a factor of about {factor:.3g} looks missing (of BVH: --bvh-scale)",
        )
