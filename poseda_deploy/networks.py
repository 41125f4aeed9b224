"""What sits between rays and pose: our conditioned network and the paper's four lifters, behind one interface. Torch.

    conditioned   ours: turned rays, scores, up and bone lengths; MLP
    mlp           SimpleBaseline, Martinez et al. ICCV 2017
    vpose         VideoPose3D of one frame, Pavllo et al. CVPR 2019
    semgcn        SemGCN without non-local layers, Zhao et al. CVPR 2019: `layers.py`
    stgcn         ST-GCN of one frame, Cai et al. ICCV 2019: `layers.py`

The four are those that PoseDA (Chai et al. ICCV 2023) adapts, in the sizes of PoseAug, from where it has them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poseda_deploy import layers
from poseda_deploy.rays import READ_JOINTS, View, picked
from poseda_deploy.skeleton import BONE_GROUPS, H36M17

Kind = Literal["conditioned", "mlp", "vpose", "semgcn", "stgcn"]

# Adult lengths in metres, in the order of BONE_GROUPS: the zero point of the bone features.
TYPICAL_BONES_M = (0.10, 0.42, 0.42, 0.22, 0.26, 0.20, 0.17, 0.28, 0.26)
FEATURES = 3 * len(READ_JOINTS) + 1 + 2 + 4 + 2 * len(BONE_GROUPS)
MIRROR_READ = tuple(READ_JOINTS.index(H36M17.mirror[j]) for j in READ_JOINTS)
POSE_JOINTS = H36M17.joints[1:]
PAPER_JOINTS = tuple(joint for joint in H36M17.joints if joint != "neck")
PAPER_INDEX = tuple(map(H36M17.index, PAPER_JOINTS))
MIRROR_PAPER = tuple(PAPER_INDEX.index(H36M17.mirror[j]) for j in PAPER_INDEX)
PAPER_FOCAL = 2.29
"""Focal length of Human3.6M's cameras in half image widths; rays times it are the paper's screen coordinates."""


class PoseNetwork(nn.Module, ABC):
    """View to joints. `body` is what training may run in half precision, `head` the last layer."""

    body: nn.Module
    head: nn.Module

    @abstractmethod
    def inputs(self, view: View, up: Float[Tensor, "n 3"], bones: Float[Tensor, "n 9"]) -> Float[Tensor, "n ..."]:
        """What the network reads of a view, of up (camera axes, zeros = unknown) and bones (metres, 0 = unknown)."""

    @abstractmethod
    def mirrored(self, features: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """The same person in a mirror: left and right swapped, every x negated."""

    @abstractmethod
    def joints(self, hidden: Tensor) -> Float[Tensor, "n 16 3"]:
        """Joints 1 to 16 in metres from the pelvis, in the network's own axes: the last layer."""

    def forward(self, features: Float[Tensor, "n ..."]) -> Float[Tensor, "n 16 3"]:
        """Joints 1 to 16 in metres from the pelvis, in the network's own axes."""
        return self.joints(self.body(features))

    def turned(self, joints: Float[Tensor, "n 16 3"], view: View) -> Float[Tensor, "n 17 3"]:
        """The network's axes to turned ones, pelvis in front."""
        return nn.functional.pad(joints, (0, 0, 1, 0))


class Conditioned(PoseNetwork):
    """Reads the person turned onto the optical axis at unit scale, with scores, up and bone lengths; ours."""

    typical_m: Tensor

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.body = layers.residual_mlp(FEATURES, width, blocks, dropout=0.1)
        self.head = nn.Linear(width, 3 * len(POSE_JOINTS))
        self.register_buffer("typical_m", torch.tensor(TYPICAL_BONES_M), persistent=False)

    def inputs(self, view: View, up: Float[Tensor, "n 3"], bones: Float[Tensor, "n 9"]) -> Float[Tensor, "n features"]:
        """Turned rays at unit scale, scores, scale, anchor ray, turned up, bone lengths, flags."""
        xy = view.turned[..., :2] / view.turned[..., 2:].clamp(min=0.1)
        weight = picked(view.weight, READ_JOINTS)
        seen = picked(view.seen, READ_JOINTS)
        xy = picked(xy, READ_JOINTS) * seen[..., None]
        scale = (xy.norm(dim=(1, 2)) / seen.sum(1).clamp(min=1).sqrt()).clamp(min=1e-4)
        know_up = up.norm(dim=1, keepdim=True).clamp(max=1)
        know_bones = (bones > 0).to(xy.dtype)
        return torch.cat(
            [
                torch.cat([xy / scale[:, None, None], weight[..., None]], -1).flatten(1),
                4 * scale[:, None],
                view.anchor,
                (view.turn @ up[..., None])[..., 0],
                know_up,
                5 * (bones / self.typical_m - 1) * know_bones,
                know_bones,
            ],
            1,
        )

    def mirrored(self, features: Float[Tensor, "n features"]) -> Float[Tensor, "n features"]:
        """The same person in a mirror: left and right swapped, every x negated."""
        order = [3 * joint + axis for joint in MIRROR_READ for axis in range(3)]
        order += range(len(order), FEATURES)
        # of each joint x y score; scale, anchor x y, up x y z; then flags and lengths, which a mirror leaves alone
        sign = [-1.0, 1.0, 1.0] * len(READ_JOINTS) + [1.0, -1.0, 1.0, -1.0, 1.0, 1.0]
        sign += [1.0] * (FEATURES - len(sign))
        return picked(features, order) * features.new_tensor(sign)

    def joints(self, hidden: Float[Tensor, "n width"]) -> Float[Tensor, "n 16 3"]:
        """Joints 1 to 16 in metres from the pelvis, turned axes."""
        return self.head(hidden).unflatten(-1, (len(POSE_JOINTS), 3))


class PaperNetwork(PoseNetwork):
    """Reads 16 joints on the screen of the paper's source camera and nothing else; answers in camera axes.

    No turning, no scores, no up, no bone lengths. A missing joint lies at the mean of the seen ones, which the network
    cannot tell; a missing spine in the middle of pelvis and thorax.
    """

    pose_from_outputs: Tensor

    def __init__(self, body: nn.Module, head: nn.Module, outputs: Sequence[str]) -> None:
        super().__init__()
        self.body, self.head = body, head
        pose_from_outputs = layers.with_neck(POSE_JOINTS, outputs)
        if "pelvis" in outputs:
            pose_from_outputs[:, outputs.index("pelvis")] = -1.0
        self.register_buffer("pose_from_outputs", pose_from_outputs, persistent=False)

    def inputs(self, view: View, up: Float[Tensor, "n 3"], bones: Float[Tensor, "n 9"]) -> Float[Tensor, "n 16 2"]:
        """Screen coordinates x, y of PAPER_JOINTS in half image widths of a Human3.6M camera."""
        xy, seen = picked(view.ray[..., :2], PAPER_INDEX), picked(view.seen[..., None], PAPER_INDEX)
        middle = (xy * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
        xy = torch.where(seen > 0, xy, middle)
        trunk = (xy[:, PAPER_JOINTS.index("pelvis")] + xy[:, PAPER_JOINTS.index("thorax")])[:, None] / 2
        is_spine = xy.new_tensor([[joint == "spine"] for joint in PAPER_JOINTS]) > 0
        return PAPER_FOCAL * torch.where(is_spine & (seen == 0), trunk, xy)

    def mirrored(self, features: Float[Tensor, "n 16 2"]) -> Float[Tensor, "n 16 2"]:
        """The same person in a mirror: left and right swapped, every x negated."""
        return picked(features, MIRROR_PAPER) * features.new_tensor([-1.0, 1.0])

    def joints(self, hidden: Tensor) -> Float[Tensor, "n 16 3"]:
        """Joints 1 to 16 in metres from the pelvis, camera axes; the neck half-way from thorax to head."""
        return self.pose_from_outputs @ self.head(hidden).view(-1, self.pose_from_outputs.shape[1], 3)

    def turned(self, joints: Float[Tensor, "n 16 3"], view: View) -> Float[Tensor, "n 17 3"]:
        """Camera axes to turned ones, pelvis in front."""
        return super().turned(joints @ view.turn.mT, view)


def mlp() -> PaperNetwork:
    """SimpleBaseline in PoseAug's size: 1024 wide, two blocks, dropout 0.25, Kaiming-normal weights. 4,288,557."""
    body = nn.Sequential(nn.Flatten(), layers.residual_mlp(32, 1024, 2, dropout=0.25))
    head = nn.Linear(1024, 45)
    for layer in (*body.modules(), head):
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return PaperNetwork(body, head, PAPER_JOINTS[1:])


def vpose() -> PaperNetwork:
    """VideoPose3D of one frame: its convolutions are one frame long, so linear, and without bias. 8,485,933."""
    body = nn.Sequential(nn.Flatten(), layers.residual_mlp(32, 1024, 4, dropout=0.25, bias=False))
    return PaperNetwork(body, nn.Linear(1024, 45), PAPER_JOINTS[1:])


def semgcn() -> PaperNetwork:
    """SemGCN, 128 wide, four residual blocks of two graph convolutions, no dropout. 267,343 parameters."""
    edges = [(PAPER_JOINTS.index(_parent(joint)), PAPER_JOINTS.index(joint)) for joint in PAPER_JOINTS[1:]]
    return PaperNetwork(layers.semgcn(128, 4, edges), layers.SemGraphConv(128, 3, edges), PAPER_JOINTS)


def _parent(joint: str) -> str:
    """Without a neck the head hangs from the thorax."""
    return "thorax" if joint == "head" else H36M17.joints[H36M17.parents[H36M17.index(joint)]]


def stgcn() -> PaperNetwork:
    """ST-GCN of one frame on all 17 joints."""
    body = layers.StGcn(PAPER_JOINTS)
    return PaperNetwork(body, nn.Linear(body.width, 3), H36M17.joints)


def build_network(kind: Kind, width: int, blocks: int) -> PoseNetwork:
    """The network of that kind with random weights; width and blocks are of the conditioned one."""
    if kind == "conditioned":
        return Conditioned(width, blocks)
    return {"mlp": mlp, "vpose": vpose, "semgcn": semgcn, "stgcn": stgcn}[kind]()
