"""Joint positions to BVH: a skeleton of constant bone lengths, and the turn of every joint in every frame.

Where several bones meet, each starts from a joint of its own in the same place (`pelvis_to_spine`), as in the files of
CMU's motion library: hips and shoulders are not rigid, and so positions come out exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float

from poseda_deploy.skeleton import H36M17

from .takes import BLOCK_FRAMES, Take

Array = np.ndarray
Turns = Float[Array, "t 3 3"]
CM = 100.0
CHANNELS = "Zrotation Xrotation Yrotation"
_UP, _DOWN, _LEFT, _RIGHT = (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0)
REST = {
    **dict.fromkeys(("spine", "thorax", "neck", "head"), _UP),
    **dict.fromkeys(("right_knee", "right_ankle", "left_knee", "left_ankle"), _DOWN),
    **dict.fromkeys(("left_hip", "left_shoulder", "left_elbow", "left_wrist"), _LEFT),
    **dict.fromkeys(("right_hip", "right_shoulder", "right_elbow", "right_wrist"), _RIGHT),
}
"""Direction of the bone that ends in a joint, standing with the arms out; x left of the person, y up, z ahead."""
ACROSS = {
    "pelvis": ("right_hip", "left_hip", "pelvis", "spine"),
    "thorax": ("right_shoulder", "left_shoulder", "spine", "thorax"),
}
"""Joints that say how the trunk is turned at its ends: from the first to the second is left, from third to last up."""


@dataclass(frozen=True)
class Node:
    """A joint of the file."""

    name: str
    at: int
    """H36M17's joint in the same place."""
    end: int | None
    """The joint at the end of the bone that it turns; None: it turns the trunk, or nothing."""
    ends_bone: bool
    """Whether it lies at the end of its parent's bone, not at its start."""
    children: list["Node"] = field(default_factory=list)


def write_bvh(take: Take, path: Path) -> None:
    """Centimetres, y up; mean bone lengths of the take; a gap holds the pose before it."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("HIERARCHY\n" + "\n".join(_described(_skeleton(), _bone_lengths_m(take))))
        stream.write(f"\nMOTION\nFrames: {take.frames}\nFrame Time: {1 / float(take.fps):.8f}\n")
        for row in chain.from_iterable(_channels(take)):
            stream.write(" ".join(f"{value:.5f}" for value in row) + "\n")


def _bone_lengths_m(take: Take) -> Float[Array, "17"]:
    """Means over the take; a gap counts as the pose before it."""
    return sum((np.linalg.norm(_bone_m(m), axis=-1).sum(0) for _, m in _held(take)), np.zeros(17)) / take.frames


def _bone_m(joints_m: Float[Array, "t 17 3"]) -> Float[Array, "t 17 3"]:
    return joints_m - joints_m[:, list(H36M17.parents)]


def _channels(take: Take) -> Iterator[list[list[float]]]:
    """The file's rows of numbers, block by block: each goes on with the turns at which the one before ended."""
    last_deg = None
    for before, joints_m in _held(take):
        with_last = joints_m if before is None else np.concatenate([before, joints_m])
        degrees = np.rad2deg(np.concatenate(_angles_rad(_skeleton(), np.eye(3), with_last, _bone_m(with_last)), 1))
        if last_deg is not None:
            degrees = degrees[1:] + 360 * np.round((last_deg - degrees[0]) / 360)
        last_deg = degrees[-1]
        yield np.concatenate([joints_m[:, 0] * CM, degrees], 1).tolist()


def _held(take: Take) -> Iterator[tuple[Float[Array, "1 17 3"] | None, Float[Array, "t 17 3"]]]:
    """Blocks of the take, with the last frame before each; the format knows no gaps, so what was there last stays."""
    before = None
    for part in take.parts(BLOCK_FRAMES):
        joints_m = part.joints_m if before is None else np.concatenate([before, part.joints_m])
        known = np.isfinite(joints_m).all((1, 2))
        held_m = joints_m[np.maximum.accumulate(np.where(known, np.arange(len(known)), known.argmax()))]
        yield before, held_m[0 if before is None else 1 :]
        before = held_m[-1:]


@cache
def _skeleton() -> Node:
    return _node(0, ends_bone=False)


def _node(joint: int, *, ends_bone: bool) -> Node:
    name, children = H36M17.joints[joint], [c for c, parent in enumerate(H36M17.parents) if parent == joint]
    if len(children) < 2:
        end = children[0] if children else None
        return Node(name, joint, end, ends_bone, [_node(c, ends_bone=True) for c in children])
    own = [Node(f"{name}_to_{H36M17.joints[c]}", joint, c, False, [_node(c, ends_bone=True)]) for c in children]
    return Node(name, joint, None, ends_bone, own)


def _described(node: Node, length_m: Float[Array, "17"], depth: int = 0) -> list[str]:
    """The lines of a joint and all below it."""
    pad, inner = "  " * depth, "  " * (depth + 1)
    offset_cm = np.multiply(REST[H36M17.joints[node.at]], length_m[node.at] * CM) if node.ends_bone else np.zeros(3)
    head, channels = ("JOINT", f"3 {CHANNELS}") if depth else ("ROOT", f"6 Xposition Yposition Zposition {CHANNELS}")
    below = [line for child in node.children for line in _described(child, length_m, depth + 1)]
    return [
        f"{pad}{head} {node.name}",
        f"{pad}{{",
        f"{inner}OFFSET {_three(offset_cm)}",
        f"{inner}CHANNELS {channels}",
        *(below or [f"{inner}End Site", f"{inner}{{", f"{inner}  OFFSET {_three(np.zeros(3))}", f"{inner}}}"]),
        f"{pad}}}",
    ]


def _three(values: Float[Array, "3"]) -> str:
    return " ".join(f"{value:.5f}" for value in values)


def _angles_rad(
    node: Node, parent: Array, joints_m: Float[Array, "t 17 3"], bone_m: Array
) -> list[Float[Array, "t 3"]]:
    """Of a joint and all below it, in the file's order; `parent`: how the joint above is turned in the world."""
    local = np.broadcast_to(np.eye(3), (len(joints_m), 3, 3))
    if node.end is not None:
        local = smallest_turn(np.array(REST[H36M17.joints[node.end]], float), _inside(parent, bone_m[:, node.end]))
    elif node.name in ACROSS:
        local = np.swapaxes(parent, -1, -2) @ _facing(joints_m, *map(H36M17.index, ACROSS[node.name]))
    own = [np.unwrap(euler_rad(local), axis=0)]  # no jumps by whole turns, for editors that draw curves
    for child in node.children:
        own += _angles_rad(child, parent @ local, joints_m, bone_m)
    return own


def _inside(turn: Array, vector: Float[Array, "t 3"]) -> Float[Array, "t 3"]:
    """World vectors as seen from what is turned."""
    return (np.swapaxes(turn, -1, -2) @ vector[..., None])[..., 0]


def _facing(joints_m: Float[Array, "t 17 3"], right: int, left: int, low: int, high: int) -> Turns:
    """Columns left, up, ahead of a part of the trunk; where they cannot be told, the world's."""
    across, up = joints_m[:, left] - joints_m[:, right], joints_m[:, high] - joints_m[:, low]
    ahead = np.cross(across, up)
    lost = np.linalg.norm(ahead, axis=1) < 1e-6
    across, ahead = np.where(lost[:, None], _LEFT, across), np.where(lost[:, None], (0, 0, 1), ahead)
    x, z = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (across, ahead))
    return np.stack([x, np.cross(z, x), z], -1)


def smallest_turn(start: Float[Array, "3"], end: Float[Array, "t 3"]) -> Turns:
    """Rotations from one unit vector to the directions of others, about the axis perpendicular to both: no twist.

    I + W + W²/(1+c) with W the cross product with start x end, c their dot product (Rodrigues).
    """
    end = end / np.maximum(np.linalg.norm(end, axis=1, keepdims=True), 1e-12)
    cosine = (end @ start)[:, None, None]
    x, y, z = np.cross(start, end).T
    w = np.stack([np.stack(row, -1) for row in ((0 * x, -z, y), (z, 0 * x, -x), (-y, x, 0 * x))], -2)
    aside = np.cross(start, np.eye(3)[np.argmin(np.abs(start))])
    half = 2 * np.outer(aside, aside) / (aside @ aside) - np.eye(3)
    opposite = cosine < -1 + 1e-9  # about anything perpendicular
    return np.where(opposite, half, np.eye(3) + w + w @ w / np.where(opposite, 1, 1 + cosine))


def euler_rad(turn: Turns) -> Float[Array, "t 3"]:
    """z, x, y with turn = Rz Rx Ry; y is 0 where the middle one is a quarter turn, and only z ± y is known."""
    cosine = np.hypot(turn[:, 0, 1], turn[:, 1, 1])
    locked = cosine < 1e-7
    z = np.where(locked, np.arctan2(turn[:, 1, 0], turn[:, 0, 0]), np.arctan2(-turn[:, 0, 1], turn[:, 1, 1]))
    y = np.where(locked, 0, np.arctan2(-turn[:, 2, 0], turn[:, 2, 2]))
    return np.stack([z, np.arctan2(turn[:, 2, 1], cosine), y], -1)
