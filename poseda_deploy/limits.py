"""Poses that no body can take: joints folded or bent past what people's joints allow."""

import numpy as np
from jaxtyping import Bool, Float

from poseda_deploy.calibrate import angle_rad, unit
from poseda_deploy.skeleton import H36M17

# Largest flexion of healthy joints is 140 to 160 degrees at knee and elbow, 80 at the neck, 90 over the trunk; some
# room for acrobats and for joint centres fitted from markers: captured poses break them in 0.3 % of frames.
FOLDED_DEG = {"elbow": 160, "knee": 165, "trunk": 100, "head": 110}
BACKWARDS_DEG = 30
"""Knees stretch to 10 degrees past straight; the plane they bend in is only known to the turn of the hip."""


def broken_limits(pose: Float[np.ndarray, "n 17 3"]) -> dict[str, Bool[np.ndarray, " n"]]:
    """For each limit, which poses (any units, any axes) break it on either side."""
    pelvis, spine, thorax, head = (_joint(pose, name) for name in ("pelvis", "spine", "thorax", "head"))
    flexion = {
        "trunk": [angle_rad(spine - pelvis, thorax - spine)],
        "head": [angle_rad(thorax - spine, head - thorax)],
        "elbow": [_flexion(pose, side, ("shoulder", "elbow", "wrist")) for side in ("left", "right")],
        "knee": [_flexion(pose, side, ("hip", "knee", "ankle")) for side in ("left", "right")],
    }
    broken = {
        f"{name} folded": (np.degrees(np.stack(angles)) > FOLDED_DEG[name]).any(0) for name, angles in flexion.items()
    }
    backwards = np.stack([_knee_forward(pose, side) for side in ("left", "right")])
    return broken | {"knee backwards": (backwards > np.sin(np.radians(BACKWARDS_DEG))).any(0)}


def _flexion(pose: Float[np.ndarray, "n 17 3"], side: str, joints: tuple[str, str, str]) -> Float[np.ndarray, " n"]:
    upper, middle, lower = (_joint(pose, f"{side}_{name}") for name in joints)
    return angle_rad(middle - upper, lower - middle)


def _knee_forward(pose: Float[np.ndarray, "n 17 3"], side: str) -> Float[np.ndarray, " n"]:
    """How far the shin leaves the thigh's line towards the front, which turns with the thigh: sine of the angle."""
    up = unit(_joint(pose, "thorax") - _joint(pose, "pelvis"))
    front = unit(np.cross(_joint(pose, "left_hip") - _joint(pose, "right_hip"), up))
    hip, knee, ankle = (_joint(pose, f"{side}_{name}") for name in ("hip", "knee", "ankle"))
    thigh, shin = unit(knee - hip), unit(ankle - knee)
    return (shin * _carried(front, -up, thigh)).sum(-1)


def _carried(
    vector: Float[np.ndarray, "n 3"], start: Float[np.ndarray, "n 3"], end: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n 3"]:
    """The vector after the smallest rotation that takes one unit vector to another (Rodrigues)."""
    axis = np.cross(start, end)
    cos = (start * end).sum(-1, keepdims=True)
    along = (axis * vector).sum(-1, keepdims=True)
    return vector * cos + np.cross(axis, vector) + axis * along / np.maximum(1 + cos, 1e-6)


def _joint(pose: Float[np.ndarray, "n 17 3"], name: str) -> Float[np.ndarray, "n 3"]:
    return pose[:, H36M17.index(name)]
