"""The discriminators, called judges: one of bone angles, one of the figure on the image; and their memory. Torch.

Layers and sizes are PoseAug's (Gong, Zhang, Feng, CVPR 2021), which PoseDA builds on.
"""

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.nn.functional import leaky_relu

from poseda_deploy.errors import InputError
from poseda_deploy.networks import PAPER_INDEX

from .gpa import anchor_ray, spread
from .pose_generator import KEPT_BONES, ending_in, in_half

_PELVIS = ("left_hip", "right_hip", "spine")
PARTS = (
    ("thorax", "right_shoulder", "right_elbow", "right_wrist"),
    ("thorax", "left_shoulder", "left_elbow", "left_wrist"),
    (*_PELVIS, "right_knee", "right_ankle"),
    (*_PELVIS, "left_knee", "left_ankle"),
    (*_PELVIS, "thorax", "head", "left_shoulder", "right_shoulder"),
)
"""The bones of each part, by the joints at their ends."""


def cosines(bone: Float[Tensor, "*n 15 3"]) -> Float[Tensor, "*n 15 15"]:
    """Kinematic chain space of unit bones: the cosine between any two. Blind to place, orientation and lengths."""
    return bone @ bone.transpose(-1, -2)


class PoseJudge(nn.Module):
    """Scores each part of a body by the angles between its bones; 1,076,205 parameters."""

    part: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.judges = nn.ModuleList(PartJudge(len(KEPT_BONES) ** 2) for _ in PARTS)
        members = torch.stack([ending_in(*part) for part in PARTS]).float()
        self.register_buffer("part", members[:, :, None] * members[:, None], persistent=False)

    def forward(self, bone: Float[Tensor, "n 15 3"]) -> Float[Tensor, "n 5"]:
        """Unit bone vectors; about 1 real, 0 made."""
        angles = cosines(bone)
        shown = [(angles * part).flatten(1) for part in self.part]
        return torch.cat([in_half(judge, x) for judge, x in zip(self.judges, shown, strict=True)], 1)


class PartJudge(nn.Module):
    """Three layers of 256 with a way around two of them, one of 100, a score."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(inputs, 256), nn.Linear(256, 256), nn.Linear(256, 256)
        self.last, self.score = nn.Linear(256, 100), nn.Linear(100, 1)

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n 1"]:
        """Layer three has no activation of its own."""
        first = leaky_relu(self.first(x))
        third = self.third(leaky_relu(self.second(first)))
        return self.score(leaky_relu(self.last(third + first)))


class ImageJudge(nn.Module):
    """Scores the figure on the image; 43,801 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(32, 100), nn.Linear(100, 100), nn.Linear(100, 100)
        self.fourth, self.last, self.score = nn.Linear(100, 100), nn.Linear(100, 100), nn.Linear(100, 1)

    def forward(self, figure: Float[Tensor, "n 32"]) -> Float[Tensor, "n 1"]:
        """About 1 real, 0 made; layer four has no activation."""
        first = leaky_relu(self.first(figure))
        third = leaky_relu(self.third(leaky_relu(self.second(first))) + first)
        return self.score(leaky_relu(self.last(self.fourth(third))))


def figure(ray: Float[Tensor, "n 17 2"], seen: Bool[Tensor, "n 17"]) -> Float[Tensor, "n 32"]:
    """PAPER_JOINTS about the pelvis at unit size, zeros where missing: place and size are alignment's business."""
    weight = seen.to(ray.dtype)
    off = ray - anchor_ray(ray, seen)[:, None]
    unit = off / spread(off, weight)[:, None, None] * weight[..., None]
    return unit[:, PAPER_INDEX].flatten(1)


class ReplayPool:
    """Remembers made samples, so that a judge does not forget what the generator no longer makes."""

    def __init__(self, size: int) -> None:
        self.size, self.kept = size, torch.empty(0)

    def swap(self, made: Float[Tensor, "n ..."], random: Generator) -> Float[Tensor, "n ..."]:
        """All as they are while the pool fills; then each with probability 1/2 in exchange for a random old one."""
        if len(made) > self.size:
            raise InputError(f"{len(made)} samples a step, the pool holds {self.size}", hint="a pool of several steps")
        if len(self.kept) < self.size:
            self.kept = torch.cat([self.kept.to(made), made])[: self.size]
            return made
        old = torch.randperm(self.size, generator=random, device=made.device)[: len(made)]
        swapped = torch.rand(len(made), generator=random, device=made.device) < 0.5
        exchanged = made.clone()
        exchanged[swapped] = self.kept[old[swapped]]
        self.kept[old[swapped]] = made[swapped]
        return exchanged
