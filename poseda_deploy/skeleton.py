"""Joint orders by name, and how one is turned into another.

The model works on `H36M17`. Everything else (COCO, MediaPipe, OpenPose, Halpe) is mapped to it by joint *names*; the
few joints that a detector has no landmark for follow one rule, `DERIVED`, used by training and run time alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import InputError

Array = np.ndarray


@dataclass(frozen=True)
class Skeleton:
    """An order of joints. `parents[j]` is the joint that j hangs from when drawn, -1 for none."""

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    hips_low: float = 0.0
    """How far this detector marks the hips below the joint centres, as a share of pelvis to thorax."""

    def index(self, joint: str) -> int:
        """Position of a joint by name."""
        return self.joints.index(joint)

    @property
    def edges(self) -> list[tuple[int, int]]:
        """(parent, child) pairs to draw."""
        return [(parent, child) for child, parent in enumerate(self.parents) if parent >= 0]

    @property
    def mirror(self) -> list[int]:
        """Index of each joint's left/right partner; itself on the middle line."""
        return [self.index(_other_side(joint)) for joint in self.joints]


def _other_side(joint: str) -> str:
    swap = {"left": "right", "right": "left"}
    side, _, rest = joint.partition("_")
    return f"{swap[side]}_{rest}" if side in swap else joint


def _skeleton(name: str, joints: str, parent_of: str, hips_low: float = 0.0) -> Skeleton:
    """Build from space-separated joint names and `child<parent` pairs."""
    names = tuple(joints.split())
    parent = dict(pair.split("<") for pair in parent_of.split())
    return Skeleton(name, names, tuple(names.index(parent[j]) if j in parent else -1 for j in names), hips_low)


_LIMBS = (
    "left_knee<left_hip left_ankle<left_knee right_knee<right_hip right_ankle<right_knee "
    "left_elbow<left_shoulder left_wrist<left_elbow right_elbow<right_shoulder right_wrist<right_elbow "
)
_COCO_JOINTS = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)

H36M17 = _skeleton(
    "h36m17",
    "pelvis right_hip right_knee right_ankle left_hip left_knee left_ankle spine thorax neck head "
    "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist",
    _LIMBS + "right_hip<pelvis left_hip<pelvis spine<pelvis thorax<spine neck<thorax head<neck "
    "left_shoulder<thorax right_shoulder<thorax",
)
COCO17 = _skeleton(
    "coco17",
    _COCO_JOINTS,
    _LIMBS + "right_shoulder<left_shoulder right_hip<left_hip left_hip<left_shoulder "
    "left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye",
)
MEDIAPIPE33 = _skeleton(
    "mediapipe33",
    "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer left_ear right_ear "
    "left_mouth right_mouth left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_pinky right_pinky left_index right_index left_thumb right_thumb left_hip right_hip left_knee right_knee "
    "left_ankle right_ankle left_heel right_heel left_foot_index right_foot_index",
    _LIMBS + "right_shoulder<left_shoulder right_hip<left_hip left_hip<left_shoulder "
    "left_ear<nose right_ear<nose left_index<left_wrist right_index<right_wrist "
    "left_heel<left_ankle right_heel<right_ankle left_foot_index<left_heel right_foot_index<right_heel",
    # Triangulated over four cameras its trunk is 0.70 of the leg, people's is 0.60: hips 9 % too low. Two videos lifted
    # from one camera give 0.64: 3 to 4 %. Raising by 0.04 took 3 mm off the former, 0.06 no more, 0.08 less.
    hips_low=0.04,
)
OPENPOSE25 = _skeleton(
    "openpose25",
    "nose thorax right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist pelvis "
    "right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear "
    "left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel",
    _LIMBS + "thorax<pelvis right_hip<pelvis left_hip<pelvis left_shoulder<thorax right_shoulder<thorax nose<thorax "
    "left_big_toe<left_ankle right_big_toe<right_ankle left_heel<left_ankle right_heel<right_ankle",
)
HALPE26 = _skeleton(
    "halpe26",
    _COCO_JOINTS + " head_top thorax pelvis left_big_toe right_big_toe left_small_toe right_small_toe "
    "left_heel right_heel",
    _LIMBS + "thorax<pelvis right_hip<pelvis left_hip<pelvis left_shoulder<thorax right_shoulder<thorax nose<thorax "
    "left_big_toe<left_ankle right_big_toe<right_ankle left_heel<left_ankle right_heel<right_ankle",
)
SKELETONS = {s.name: s for s in (H36M17, COCO17, MEDIAPIPE33, OPENPOSE25, HALPE26)}

# Pelvis, thorax and head are the middle of a pair, because that is how the source poses define them: the detectors'
# own "neck" and "mid-hip" points are not used, so that every detector means the same. The middle of the ears is as far
# above the thorax as the source's head joint (0.21 m). Spine and neck have no landmark in any detector and are another
# point in every data set: the lifter does not read them, and puts them in.
DERIVED = {
    "pelvis": ("left_hip", "right_hip"),
    "thorax": ("left_shoulder", "right_shoulder"),
    "head": ("left_ear", "right_ear"),
}


def skeleton_named(name: str) -> Skeleton:
    """The skeleton of that name, or an InputError that lists them."""
    if name not in SKELETONS:
        raise InputError(f"unknown skeleton {name!r}", hint=f"use one of {', '.join(SKELETONS)}")
    return SKELETONS[name]


def to_h36m17(
    xy_px: Float[Array, "*batch joints 2"], score: Float[Array, "*batch joints"], skeleton: Skeleton
) -> tuple[Float[Array, "*batch 17 2"], Float[Array, "*batch 17"]]:
    """Keypoints (pixels) and scores in model order; score 0 = missing, and then xy is 0."""
    if skeleton == H36M17:
        seen = score > 0
        return np.where(seen[..., None], xy_px, 0).astype(np.float32), np.where(seen, score, 0).astype(np.float32)
    xy = np.zeros((*score.shape[:-1], 17, 2), np.float32)
    out_score = np.zeros((*score.shape[:-1], 17), np.float32)
    for j, joint in enumerate(H36M17.joints):
        parts = DERIVED.get(joint, (joint,))
        if all(part in skeleton.joints for part in parts):
            index = [skeleton.index(part) for part in parts]
            out_score[..., j] = score[..., index].min(-1)
            xy[..., j, :] = xy_px[..., index, :].mean(-2)
    _raise_hips(xy, out_score, skeleton.hips_low)
    xy[out_score <= 0] = 0
    return xy, out_score


def _raise_hips(xy: Float[Array, "*batch 17 2"], score: Float[Array, "*batch 17"], share: float) -> None:
    """Move pelvis and hips by a share of the trunk towards the thorax, in place, where both ends are seen."""
    pelvis, thorax = H36M17.index("pelvis"), H36M17.index("thorax")
    trunk = (xy[..., thorax, :] - xy[..., pelvis, :]) * (score[..., [pelvis, thorax]].min(-1) > 0)[..., None]
    for joint in ("pelvis", "left_hip", "right_hip"):
        xy[..., H36M17.index(joint), :] += share * trunk


@dataclass(frozen=True)
class Bone:
    """A rigid part from parent to child joint (indices in H36M17), whose length is that of its group."""

    parent: int
    child: int
    group: int


BONE_GROUPS = (
    *("hip", "thigh", "shin", "pelvis_spine", "spine_thorax", "thorax_head"),
    *("clavicle", "upper_arm", "forearm"),
)
"""The nine lengths (metres) that describe a body; left and right share one."""


def _bones() -> tuple[Bone, ...]:
    """In an order in which every parent comes before its children."""
    pairs: dict[str, Sequence[tuple[str, str]]] = {
        "hip": [("pelvis", "right_hip"), ("pelvis", "left_hip")],
        "thigh": [("right_hip", "right_knee"), ("left_hip", "left_knee")],
        "shin": [("right_knee", "right_ankle"), ("left_knee", "left_ankle")],
        "pelvis_spine": [("pelvis", "spine")],
        "spine_thorax": [("spine", "thorax")],
        "thorax_head": [("thorax", "head"), ("thorax", "neck")],
        "clavicle": [("thorax", "left_shoulder"), ("thorax", "right_shoulder")],
        "upper_arm": [("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow")],
        "forearm": [("left_elbow", "left_wrist"), ("right_elbow", "right_wrist")],
    }
    index = H36M17.index
    return tuple(Bone(index(a), index(b), g) for g, name in enumerate(BONE_GROUPS) for a, b in pairs[name])


BONES = _bones()
NECK_SHARE = 0.5  # neck to thorax-head length; 0.47 to 0.52 in the source poses


def _bone_from_joint() -> Float[Array, "16 17"]:
    matrix = np.zeros((len(BONES), 17), np.float32)
    for i, bone in enumerate(BONES):
        matrix[i, bone.child], matrix[i, bone.parent] = 1, -1
    return matrix


def _length_from_group() -> Float[Array, "16 9"]:
    matrix = np.zeros((len(BONES), len(BONE_GROUPS)), np.float32)
    for i, bone in enumerate(BONES):
        matrix[i, bone.group] = NECK_SHARE if H36M17.joints[bone.child] == "neck" else 1
    return matrix


def _group_from_length() -> Float[Array, "9 16"]:
    """Mean over left and right; the neck has no say in the head's length."""
    matrix = (_length_from_group() == 1).T.astype(np.float32)
    return matrix / matrix.sum(1, keepdims=True)


BONE_FROM_JOINT = _bone_from_joint()
"""Bone vectors (16,3) = BONE_FROM_JOINT @ joints (17,3)."""
LENGTH_FROM_GROUP = _length_from_group()
GROUP_FROM_LENGTH = _group_from_length()


def _joint_from_bone() -> Float[Array, "17 16"]:
    """Each joint is the sum of the bones between the pelvis and it."""
    matrix = np.zeros((17, len(BONES)), np.float32)
    for i, bone in enumerate(BONES):
        matrix[bone.child] = matrix[bone.parent]
        matrix[bone.child, i] = 1
    return matrix


JOINT_FROM_BONE = _joint_from_bone()
"""Joints relative to the pelvis (17,3) = JOINT_FROM_BONE @ bone vectors (16,3)."""
