"""Virtual cameras: source poses in, (keypoints, camera, up, bones) -> pose pairs out, as wide as real cameras vary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from poseda_deploy.calibrate import UP_ERROR_RAD
from poseda_deploy.errors import InputError
from poseda_deploy.skeleton import (
    BONE_FROM_JOINT,
    BONE_GROUPS,
    BONES,
    GROUP_FROM_LENGTH,
    H36M17,
    JOINT_FROM_BONE,
    LENGTH_FROM_GROUP,
)

_FREEDOM = {"thigh": 1.0, "shin": 1.0, "thorax_head": 1.0, "upper_arm": 1.5, "forearm": 1.5}
"""How freely each bone group is turned, relative to `bone_turn_rad`; 0.3 for hips, trunk and clavicles."""


@dataclass(frozen=True)
class ViewConfig:
    """How virtual cameras and bodies vary: radians, metres, noise as a share of the person's size."""

    pitch: tuple[float, float] = (0.2, 0.25)
    """Mean and standard deviation of how far the camera looks down."""
    roll: float = 0.2
    """Standard deviation of roll."""
    wild: float = 0.1
    """Share of views from anywhere: pitch uniform in -0.6..1.5, twice the roll."""
    distance_m: tuple[float, float] = (1.8, 12.0)
    """Depth of the pelvis, log-uniform."""
    off_centre: tuple[float, float] = (0.3, 0.22)
    """Standard deviation of the pelvis ray x/z and y/z."""
    bone_turn_rad: float = 0.12
    """Random turn of each bone per axis, times the freedom of its group."""
    bone_scale: float = 0.09
    """Standard deviation of each group's length, relative."""
    body_scale: float = 0.06
    """Standard deviation of the whole body's size, relative."""
    children: float = 0.15
    """Share of views with known bones whose body is 0.6 to 0.95 of an adult's."""
    hips_spread: float = 0.04
    """Standard deviation of where detectors put the hips, along the trunk as a share of it."""
    known_up: float = 0.8
    """Share of views whose up vector is given, as long as it is sure."""
    known_bones: float = 0.8
    """Share of views whose bone lengths are given, with relative errors of `bone_error` per group and overall."""
    bone_error: float = 0.05
    exact: float = 0.4
    """Share of views without detector noise."""
    noise: float = 0.02
    """Largest standard deviation of detector noise per axis, as a share of three times the person's rms radius."""
    doubtful: float = 0.15
    """Share of joints with a low score; where there is noise theirs is up to three times larger."""
    cropped: float = 0.25
    """Share of views with missing joints."""

    def __post_init__(self) -> None:
        if not 0 < self.distance_m[0] < self.distance_m[1]:
            raise InputError(f"distance_m must rise from above 0, got {self.distance_m}")
        for name in ("wild", "children", "known_up", "known_bones", "exact", "doubtful", "cropped"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is a share and must lie in 0..1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Views:
    """Inputs and targets of the lifter for n virtual views, in its own units."""

    keypoints: Float[Tensor, "n 17 3"]
    camera: Float[Tensor, "n 4"]
    up: Float[Tensor, "n 3"]
    bones: Float[Tensor, "n 9"]
    pose: Float[Tensor, "n 17 3"]

    def rows(self, part: int, size: int) -> "Views":
        """The part-th slice of that many views."""
        rows = slice(part * size, (part + 1) * size)
        return Views(self.keypoints[rows], self.camera[rows], self.up[rows], self.bones[rows], self.pose[rows])

    def at(self, index: Int[Tensor, " m"]) -> "Views":
        """Those views, in that order."""
        return Views(self.keypoints[index], self.camera[index], self.up[index], self.bones[index], self.pose[index])

    def cpu(self) -> "Views":
        """The same on the CPU."""
        return Views(*(getattr(self, field.name).cpu() for field in fields(Views)))

    @staticmethod
    def joined(parts: Sequence["Views"]) -> "Views":
        """One after the other."""
        names = [field.name for field in fields(Views)]
        return Views(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


class ViewSampler:
    """Draws views of source poses (metres, y up) with the given weights; same seed, same views."""

    def __init__(
        self, pose_m: Float[Tensor, "s 17 3"], weight: Float[Tensor, " s"], config: ViewConfig, seed: int
    ) -> None:
        self.pose_m, self.weight, self.config = pose_m, weight, config
        self.generator = Generator(pose_m.device).manual_seed(seed)
        self._freedom = torch.tensor([_FREEDOM.get(BONE_GROUPS[b.group], 0.3) for b in BONES], device=pose_m.device)
        self._bone_from_joint = torch.from_numpy(BONE_FROM_JOINT).to(pose_m.device)
        self._joint_from_bone = torch.from_numpy(JOINT_FROM_BONE).to(pose_m.device)
        self._length_from_group = torch.from_numpy(LENGTH_FROM_GROUP).to(pose_m.device)
        self._group_from_length = torch.from_numpy(GROUP_FROM_LENGTH).to(pose_m.device)

    def draw(self, n: int) -> Views:
        """n fresh views."""
        index = torch.multinomial(self.weight, n, replacement=True, generator=self.generator)
        known_bones = self.chance((n, 1), self.config.known_bones)
        direction, adult = self.vary_bones(self.pose_m[index], self.config.bone_turn_rad)
        bones = self._body(adult, known_bones)
        rotation, up = self._cameras(n)
        pose = self.built(direction, bones) @ rotation.transpose(1, 2)
        rays = self._project(self.marked(pose))
        keypoints = self._detect(rays)
        given_bones = torch.where(known_bones, self.measured(bones), 0.0)
        return Views(keypoints, self.unit_camera(n), self._given_up(up), given_bones, pose)

    def vary_bones(
        self, pose: Float[Tensor, "n 17 3"], turn_rad: float
    ) -> tuple[Float[Tensor, "n 16 3"], Float[Tensor, "n 9"]]:
        """Half mirrored, bones turned: unit bone directions; and the nine lengths, each varied."""
        n = len(pose)
        mirrored = pose[:, H36M17.mirror] * pose.new_tensor([-1.0, 1.0, 1.0])
        pose = torch.where(self.chance(n, 0.5)[:, None, None], mirrored, pose)
        bone = self._bone_from_joint @ pose
        length = bone.norm(dim=-1)
        axis_angle = self.normal(n, len(BONES), 3) * (turn_rad * self._freedom[:, None])
        direction = rotate(bone / length[..., None].clamp(min=1e-6), axis_angle)
        group = length @ self._group_from_length.T
        return direction, group * (1 + self.config.bone_scale * self.normal(n, group.shape[1]).clamp(-2.5, 2.5))

    def built(self, direction: Float[Tensor, "n 16 3"], bones: Float[Tensor, "n 9"]) -> Float[Tensor, "n 17 3"]:
        """Joints relative to the pelvis from bone directions and the nine lengths."""
        return self._joint_from_bone @ (direction * (bones @ self._length_from_group.T)[..., None])

    def lengths(self, pose: Float[Tensor, "n 17 3"]) -> Float[Tensor, "n 9"]:
        """The nine lengths of poses."""
        return (self._bone_from_joint @ pose).norm(dim=-1) @ self._group_from_length.T

    def _body(self, adult: Float[Tensor, "n 9"], known_bones: Bool[Tensor, "n 1"]) -> Float[Tensor, "n 9"]:
        """Lengths of people of all sizes.

        Children only where the lengths are given: without them size cannot be seen, and adults are the better guess.
        """
        n = len(adult)
        child = known_bones & self.chance((n, 1), self.config.children)
        adult_scale = 1 + self.config.body_scale * self.normal(n, 1).clamp(-2.5, 2.5)
        return adult * torch.where(child, 0.6 + 0.35 * self.uniform(n, 1), adult_scale)

    def _cameras(self, n: int) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3"]]:
        """Rotation from the source's axes (y up) to camera axes, uniform in yaw; and up in camera axes."""
        config = self.config
        wild = self.chance(n, config.wild)
        pitch = config.pitch[0] + config.pitch[1] * self.normal(n)
        pitch = torch.where(wild, -0.6 + 2.1 * self.uniform(n), pitch)
        roll = config.roll * self.normal(n) * torch.where(wild, 2.0, 1.0)
        level = torch.diag(pitch.new_tensor([1.0, -1.0, -1.0]))
        rotation = _about(2, roll) @ _about(0, pitch) @ level @ _about(1, self.yaw(n))
        return rotation, rotation[:, :, 1]

    def marked(self, pose: Float[Tensor, "n 17 3"]) -> Float[Tensor, "n 17 3"]:
        """Where a detector marks the joints: heads between ears and crown, hips somewhat along the trunk."""
        n, (hips_spread, head) = len(pose), (self.config.hips_spread, H36M17.index("head"))
        hips = [H36M17.index("left_hip"), H36M17.index("right_hip")]
        thorax = pose[:, H36M17.index("thorax")]
        odd_head, odd_hips = self.chance((n, 1), 0.5), self.chance((n, 1), 0.3)
        share = torch.where(odd_head, 0.85 + 0.6 * self.uniform(n, 1), 1.0)
        raised = torch.where(odd_hips, hips_spread * self.normal(n, 1).clamp(-2.5, 2.5), 0.0)
        pose = pose.clone()
        pose[:, head] = thorax + share * (pose[:, head] - thorax)
        pose[:, hips] += (raised * thorax)[:, None]
        return pose

    def _project(self, marked: Float[Tensor, "n 17 3"]) -> Float[Tensor, "n 17 2"]:
        """Place the pelvis and divide by depth; nobody comes nearer than 0.3 m."""
        n, config = len(marked), self.config
        near, far = (math.log(d) for d in config.distance_m)
        depth = torch.exp(near + (far - near) * self.uniform(n))
        ray = self.normal(n, 2) * marked.new_tensor(config.off_centre)
        root = torch.cat([ray, torch.ones_like(ray[:, :1])], 1) * depth[:, None]
        placed = marked + root[:, None]
        return placed[..., :2] / placed[..., 2:].clamp(min=0.3)

    def _detect(self, rays: Float[Tensor, "n 17 2"]) -> Float[Tensor, "n 17 3"]:
        """What a detector would say: noise, low scores where it is worst, missing joints."""
        n = len(rays)
        size = 3 * (rays - rays.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt()
        sigma = self.config.noise * self.uniform(n, 1) * torch.exp(0.3 * self.normal(n, 17))
        doubtful = self.chance((n, 17), self.config.doubtful)
        sigma = torch.where(doubtful, sigma * (1 + 2 * self.uniform(n, 17)), sigma)
        sigma = torch.where(self.chance((n, 1), self.config.exact), 0.0, sigma)
        unscored = self.chance((n, 1), 0.3)
        score = torch.where(doubtful & ~unscored, 0.01 + 0.95 * self.uniform(n, 17), 1 - 0.1 * self.uniform(n, 17))
        score = torch.where(unscored, 1.0, score)
        noisy = rays + self.normal(n, 17, 2) * (sigma * size[:, None])[..., None]
        score = torch.where(self._missing(n), 0.0, score)
        return torch.cat([noisy * (score > 0)[..., None], score[..., None]], -1)

    def _missing(self, n: int) -> Bool[Tensor, "n 17"]:
        """Now and then the head; in cropped views limbs, halves or single joints."""
        gone = torch.zeros(n, 17, dtype=torch.bool, device=self.pose_m.device)
        gone[:, H36M17.index("head")] = self.chance(n, 0.1)
        cropped = self.chance(n, self.config.cropped)
        for part in _PARTS:
            gone[:, part] |= (cropped & self.chance(n, 0.2))[:, None]
        gone |= cropped[:, None] & self.chance((n, 17), 0.05)
        pelvis, thorax = H36M17.index("pelvis"), H36M17.index("thorax")
        gone[:, pelvis] = gone[:, H36M17.index("left_hip")] | gone[:, H36M17.index("right_hip")]
        gone[:, thorax] = gone[:, H36M17.index("left_shoulder")] | gone[:, H36M17.index("right_shoulder")]
        return gone

    def _given_up(self, up: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        n = len(up)
        sure = self.uniform(n, 1).sqrt()
        sigma = UP_ERROR_RAD[0] * sure + UP_ERROR_RAD[1] * (1 - sure)
        given = rotate(up[:, None], (self.normal(n, 3) * sigma)[:, None])[:, 0] * sure
        return torch.where(self.chance((n, 1), self.config.known_up), given, 0.0)

    def measured(self, bones: Float[Tensor, "n 9"]) -> Float[Tensor, "n 9"]:
        """Lengths with the errors that calibration makes, each group's and the whole body's."""
        n, error = len(bones), self.config.bone_error
        return (bones * (1 + error * self.normal(n, 9)) * (1 + error * self.normal(n, 1))).clamp(min=0.02)

    def unit_camera(self, n: int) -> Float[Tensor, "n 4"]:
        """Rays are all the lifter sees, so one camera of focal length 1 stands for every focal length."""
        return self.pose_m.new_tensor([1.0, 1.0, 0.0, 0.0]).expand(n, 4)

    def yaw(self, n: int) -> Float[Tensor, " n"]:
        """People face anywhere."""
        return 2 * math.pi * self.uniform(n)

    def uniform(self, *shape: int) -> Tensor:
        """Between 0 and 1."""
        return torch.rand(*shape, generator=self.generator, device=self.pose_m.device)

    def normal(self, *shape: int) -> Tensor:
        """Mean 0, standard deviation 1."""
        return torch.randn(*shape, generator=self.generator, device=self.pose_m.device)

    def chance(self, shape: int | tuple[int, ...], share: float) -> Tensor:
        """True in that share of cases."""
        return torch.rand(shape, generator=self.generator, device=self.pose_m.device) < share


def _part(*joints: str) -> list[int]:
    return [H36M17.index(joint) for joint in joints]


_PARTS = (
    _part("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),  # at a desk
    _part("left_ankle", "right_ankle"),
    _part("left_knee", "right_knee", "left_ankle", "right_ankle"),
    _part("left_elbow", "left_wrist"),
    _part("right_elbow", "right_wrist"),
    _part("left_knee", "left_ankle"),
    _part("right_knee", "right_ankle"),
    _part("head", "left_wrist", "right_wrist"),
)


def rotate(vector: Float[Tensor, "n k 3"], axis_angle: Float[Tensor, "n k 3"]) -> Float[Tensor, "n k 3"]:
    """Rodrigues' rotation formula, vector by vector."""
    angle = axis_angle.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    axis = axis_angle / angle
    along = (axis * vector).sum(-1, keepdim=True)
    across = torch.linalg.cross(axis, vector)
    return vector * angle.cos() + across * angle.sin() + axis * along * (1 - angle.cos())


def turn_to(up: Float[Tensor, "n 3"], yaw: Float[Tensor, " n"]) -> Float[Tensor, "n 3 3"]:
    """Rotation from the source's axes (y up) to camera axes where `up` (any length above 0) is up, after a yaw."""
    y = up / up.norm(dim=1, keepdim=True).clamp(min=1e-6)
    ahead = torch.where(y[:, 2:].abs() < 0.9, y.new_tensor([0.0, 0.0, 1.0]), y.new_tensor([0.0, 1.0, 0.0]))
    x = torch.linalg.cross(ahead, y)
    x = x / x.norm(dim=1, keepdim=True)
    return torch.stack([x, y, torch.linalg.cross(x, y)], 2) @ _about(1, yaw)


def _about(axis: int, angle: Float[Tensor, " n"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices about one coordinate axis, right-handed."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.eye(3, device=angle.device).repeat(len(angle), 1, 1)
    matrix[:, i, i] = matrix[:, j, j] = angle.cos()
    matrix[:, j, i] = angle.sin()
    matrix[:, i, j] = -angle.sin()
    return matrix
