"""Changes poses by numbers that it is free to choose: bone angles, bone lengths, a turn of the body. Torch.

Layers, sizes and transforms are PoseAug's (Gong, Zhang, Feng, CVPR 2021), which PoseDA builds on, without translation:
alignment places people. Poses: relative to the pelvis, metres, camera axes.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from poseda_deploy.bf16 import bf16_where_fast
from poseda_deploy.networks import PAPER_INDEX
from poseda_deploy.skeleton import BONE_FROM_JOINT, BONE_GROUPS, BONES, H36M17, JOINT_FROM_BONE, NECK_SHARE

from .views import rotate

NOISE = 48
"""Normal numbers that each of the three nets is given."""
STRETCH = 0.2
"""No bone becomes longer or shorter by more than this share."""
KEPT_BONES = tuple(i for i, bone in enumerate(BONES) if H36M17.joints[bone.child] != "neck")
"""Of BONES, the 15 that PoseAug knows: without a neck the head hangs from the thorax."""
BONE_ENDS = tuple(H36M17.joints[BONES[i].child] for i in KEPT_BONES)
"""A kept bone goes by the joint at its end."""


@dataclass(frozen=True)
class Augmented:
    """What was made of n poses."""

    pose: Float[Tensor, "n 17 3"]
    bone: Float[Tensor, "n 15 3"]
    """Unit bone vectors, the body not yet turned as a whole."""
    turn: Float[Tensor, "n 15"]
    """1 - cos of the angle each bone was turned by."""
    stretch: Float[Tensor, "n 9"]
    """Relative change of each group's length."""


class PoseGenerator(nn.Module):
    """Bone angles (302,125 parameters), lengths (296,713) and rotation (291,331), each net on the original pose."""

    bone_from_joint: Tensor
    joint_from_bone: Tensor
    group: Tensor
    may_turn: Tensor
    may_stretch: Tensor

    def __init__(self, rotation_rad: float) -> None:
        super().__init__()
        self.rotation_rad = rotation_rad
        self.angles = _net(48, 45)
        self.lengths = _net(48 + 15, 9)
        self.rotation = _net(48, 3) if rotation_rad else None
        for name, value in (
            ("bone_from_joint", torch.from_numpy(BONE_FROM_JOINT)[KEPT_BONES, :]),
            ("joint_from_bone", _joint_from_kept_bone()),
            ("group", torch.tensor([BONES[i].group for i in KEPT_BONES])),
            ("may_turn", ~ending_in("spine", "thorax")[:, None]),
            ("may_stretch", torch.tensor([group != "spine_thorax" for group in BONE_GROUPS])),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, pose: Float[Tensor, "n 17 3"], noise: Float[Tensor, "3 n noise"]) -> Augmented:
        """Turn bones, then stretch them, then turn the body; a bone without length stays without."""
        joints, bone = pose[:, PAPER_INDEX].flatten(1), self.bone_from_joint @ pose
        length, unit = bone.norm(dim=-1), normalize(bone, dim=-1, eps=1e-6)

        push = in_half(self.angles, joints, noise[0]).view(-1, 15, 3) * self.may_turn
        turned = normalize(unit + push, dim=-1, eps=1e-6)
        stretch = STRETCH * torch.tanh(in_half(self.lengths, joints, length, noise[1]) * self.may_stretch)
        made = self.joint_from_bone @ (turned * (length * (1 + stretch[:, self.group]))[..., None])
        if self.rotation:
            axis_angle = self.rotation_rad * torch.tanh(in_half(self.rotation, joints, noise[2]))
            made = rotate(made, axis_angle[:, None].expand_as(made))
        return Augmented(made, turned, (unit * (unit - turned)).sum(-1), stretch)

    def bones(self, pose: Float[Tensor, "n 17 3"]) -> Float[Tensor, "n 15 3"]:
        """Unit bone vectors; zeros where a bone has no length."""
        return normalize(self.bone_from_joint @ pose, dim=-1, eps=1e-6)


def _net(inputs: int, outputs: int) -> nn.Sequential:
    """Inputs and noise, five layers of 256 with batch norm, a linear head."""
    widths = pairwise([inputs + NOISE] + [256] * 5)
    layers = [layer for a, b in widths for layer in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.LeakyReLU())]
    return nn.Sequential(*layers, nn.Linear(256, outputs))


def _joint_from_kept_bone() -> Float[Tensor, "17 15"]:
    """Joints relative to the pelvis = this @ kept bones, the neck on the way from thorax to head."""
    matrix = torch.from_numpy(JOINT_FROM_BONE)[:, KEPT_BONES].clone()
    matrix[H36M17.index("neck"), BONE_ENDS.index("head")] = NECK_SHARE
    return matrix


def ending_in(*joints: str) -> Bool[Tensor, "15"]:
    """Which of the kept bones end in one of those joints."""
    return torch.tensor([end in joints for end in BONE_ENDS])


def in_half(network: nn.Module, *inputs: Float[Tensor, "n _"]) -> Float[Tensor, "n _"]:
    """Run on all inputs side by side, in bf16 where that is faster; geometry and losses stay float."""
    with bf16_where_fast(inputs[0].device.type):
        return network(torch.cat(inputs, 1)).float()
