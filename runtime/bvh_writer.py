"""Joint positions to BVH: a skeleton of constant bone lengths, and the turn of every bone in every frame.

Each bone turns by itself: where several meet in a joint, each hangs from a joint of its own in the same place, so that
positions come out exactly. A bone turns by the smallest rotation from where its parent has taken it: no twist is seen.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from poseda_deploy.skeleton import H36M17

Array = np.ndarray
REST = {
    **{"right_hip": (-1, 0, 0), "left_hip": (1, 0, 0), "knee": (0, -1, 0), "ankle": (0, -1, 0)},
    **{"spine": (0, 1, 0), "thorax": (0, 1, 0), "neck": (0, 1, 0), "head": (0, 1, 0)},
    **{"left_shoulder": (1, 0, 0), "right_shoulder": (-1, 0, 0)},
    **{"left_elbow": (1, 0, 0), "left_wrist": (1, 0, 0), "right_elbow": (-1, 0, 0), "right_wrist": (-1, 0, 0)},
}
"""Direction of the bone that ends in a joint, standing with the arms out; x left of the person, y up, z ahead."""
CM = 100.0
CHILDREN = [[c for c, parent in enumerate(H36M17.parents) if parent == j] for j in range(17)]


def bvh_text(joints_m: Float[Array, "t 17 3"], fps: float) -> str:
    """A whole file, centimetres; joints in a right-handed world with y up, no gaps."""
    bone_m = joints_m - joints_m[:, list(H36M17.parents)]
    length_m = np.linalg.norm(bone_m, axis=-1).mean(0)
    turns = list(_turns(0, _facing(joints_m), bone_m))
    degrees = np.concatenate([turn.as_euler("ZXY", degrees=True) for turn in turns], 1)
    rows = np.concatenate([joints_m[:, 0] * CM, degrees], 1)
    motion = [f"MOTION\nFrames: {len(rows)}\nFrame Time: {1 / fps:.8f}"]
    lines = _joint(0, length_m, 0, "ROOT pelvis", "Xposition Yposition Zposition ")
    return "\n".join(["HIERARCHY", *lines, *motion, *(" ".join(f"{v:.6f}" for v in row) for row in rows)]) + "\n"


def rest(joint: int) -> Float[Array, "3"]:
    """Direction of the bone that ends in this joint, as it stands in REST."""
    name = H36M17.joints[joint]
    return np.array(REST.get(name) or REST[name.split("_")[-1]], float)


def _facing(joints_m: Float[Array, "t 17 3"]) -> Rotation:
    """How the pelvis is turned: across the hips, and up the spine."""
    across = joints_m[:, H36M17.index("left_hip")] - joints_m[:, H36M17.index("right_hip")]
    x = across / np.linalg.norm(across, axis=1, keepdims=True)
    up = joints_m[:, H36M17.index("spine")] - joints_m[:, 0]
    y = up - (up * x).sum(1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], -1))


def _turns(joint: int, world: Rotation, bone_m: Float[Array, "t 17 3"]) -> Iterator[Rotation]:
    """Local rotations in the order of the file; `world` is what the joint's own rotation amounts to."""
    if joint == 0:
        yield world
    for child in CHILDREN[joint]:
        turn = _smallest(rest(child), world.inv().apply(bone_m[:, child]))
        turned = world * turn
        yield turn
        yield from _turns(child, turned, bone_m)


def _smallest(start: Float[Array, "3"], end: Float[Array, "t 3"]) -> Rotation:
    """From one direction to others, about the axis perpendicular to both."""
    end = end / np.maximum(np.linalg.norm(end, axis=1, keepdims=True), 1e-12)
    axis = np.cross(start, end)
    sine, cosine = np.linalg.norm(axis, axis=1), end @ start
    axis[sine < 1e-9] = np.eye(3)[np.argmin(np.abs(start))]  # half a turn about anything, or none
    angle_rad = np.arctan2(sine, cosine)
    return Rotation.from_rotvec(axis / np.linalg.norm(axis, axis=1, keepdims=True) * angle_rad[:, None])


def _joint(joint: int, length_m: Float[Array, "17"], depth: int, head: str, channels: str = "") -> list[str]:
    """The root or the far end of a bone: the bones that start in it each get a joint in this place, which turns them.

    `NAME_to_CHILD` turns the bone from NAME to CHILD.
    """
    pad, inner = "  " * depth, "  " * (depth + 1)
    offset = np.zeros(3)
    count = 3 + 3 * bool(channels)
    lines = [f"{pad}{head}", f"{pad}{{", f"{inner}OFFSET {_three(offset)}"]
    lines.append(f"{inner}CHANNELS {count} {channels}Zrotation Xrotation Yrotation")
    for child in CHILDREN[joint]:
        lines += _bone(child, length_m, depth + 1)
    return [*lines, f"{pad}}}"]


def _bone(child: int, length_m: Float[Array, "17"], depth: int) -> list[str]:
    pad, inner, deeper = "  " * depth, "  " * (depth + 1), "  " * (depth + 2)
    name, end = H36M17.joints[H36M17.parents[child]], H36M17.joints[child]
    offset = _three(rest(child) * length_m[child] * CM)
    lines = [f"{pad}JOINT {name}_to_{end}", f"{pad}{{", f"{inner}OFFSET 0 0 0"]
    lines.append(f"{inner}CHANNELS 3 Zrotation Xrotation Yrotation")
    if not CHILDREN[child]:
        return [*lines, f"{inner}End Site", f"{inner}{{", f"{deeper}OFFSET {offset}", f"{inner}}}", f"{pad}}}"]
    for grandchild in CHILDREN[child]:
        nested = _bone(grandchild, length_m, depth + 1)
        nested[2] = f"{deeper}OFFSET {offset}"
        lines += nested
    return [*lines, f"{pad}}}"]


def _three(values: Float[Array, "3"]) -> str:
    return " ".join(f"{v:.6f}" for v in values)
