"""The lifter: pixels, camera, up and bone lengths in; metric person in camera axes out. The core's torch file.

`Lifter.forward` is the whole of it and is what lifter.onnx holds: pixels to rays, the person turned onto the optical
axis, the network, turned back, absolute position by least squares over the rays, and a few rounds of refinement.
Axes everywhere: camera x right, y down, z forward; metres.
"""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poseda_deploy.errors import InputError
from poseda_deploy.skeleton import (
    BONE_FROM_JOINT,
    BONE_GROUPS,
    DERIVED,
    GROUP_FROM_LENGTH,
    H36M17,
    JOINT_FROM_BONE,
    LENGTH_FROM_GROUP,
)

# Adult lengths in metres, in the order of BONE_GROUPS: the zero point of the bone features.
TYPICAL_BONES_M = (0.10, 0.42, 0.42, 0.22, 0.26, 0.20, 0.17, 0.28, 0.26)
# Spine and neck (or nose) are another point in every data set, so they are written but never read: reading a spine that
# sits 4 cm off costs 19 mm on the limbs, and reading a perfect one gains nothing there.
READ_JOINTS = tuple(j for j, name in enumerate(H36M17.joints) if name not in ("spine", "neck"))
# Thorax and pelvis are the middle of a pair wherever the pair is seen: a "thorax" at the neck cost 16 mm on the limbs.
PAIRS = tuple(tuple(map(H36M17.index, (joint, *DERIVED[joint]))) for joint in ("pelvis", "thorax"))
MIRROR_READ = tuple(READ_JOINTS.index(H36M17.mirror[j]) for j in READ_JOINTS)
POSE_JOINTS = tuple(range(1, 17))
MIRROR_POSE = tuple(H36M17.mirror[j] - 1 for j in POSE_JOINTS)
FEATURES = 3 * len(READ_JOINTS) + 1 + 2 + 4 + 2 * len(BONE_GROUPS)


@dataclass(frozen=True)
class LifterConfig:
    """Size of the network and number of refinement rounds."""

    width: int = 512
    """Units of every hidden layer."""
    blocks: int = 2
    """Residual blocks of two layers each."""
    dropout: float = 0.1
    """Share of hidden units left out in training."""
    rounds: int = 5
    """Rounds of (joints onto their rays, bones to their lengths) after the network."""

    def __post_init__(self) -> None:
        if self.width < 8 or self.blocks < 1 or self.rounds < 0 or not 0 <= self.dropout < 1:
            raise InputError(f"impossible lifter {asdict(self)}", hint="width >= 8, blocks >= 1, 0 <= dropout < 1")


class Block(nn.Module):
    """x + two rounds of (linear, batch norm, ReLU, dropout), after Martinez et al. 2017."""

    def __init__(self, config: LifterConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_layer(config.width, config), *_layer(config.width, config))

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        """Residual update."""
        return x + self.layers(x)


def _layer(inputs: int, config: LifterConfig) -> list[nn.Module]:
    width = config.width
    return [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(config.dropout)]


@dataclass(frozen=True)
class View:
    """One person as a camera sees it, turned so that the anchor (pelvis, if seen) lies on the optical axis."""

    ray: Float[Tensor, "n 17 3"]
    """Directions (x/z, y/z, 1) in camera axes; (0, 0, 1) where missing."""
    weight: Float[Tensor, "n 17"]
    """Trust in each joint, 0.5 to 1; 0 = missing."""
    turn: Float[Tensor, "n 3 3"]
    """turned = turn @ camera axes."""


class Lifter(nn.Module):
    """Single-frame lifter conditioned on the camera's up vector and the person's bone lengths, both optional."""

    bone_from_joint: Tensor
    joint_from_bone: Tensor
    length_from_group: Tensor
    group_from_length: Tensor
    typical_m: Tensor

    def __init__(self, config: LifterConfig) -> None:
        super().__init__()
        self.config = config
        blocks = [Block(config) for _ in range(config.blocks)]
        self.network = nn.Sequential(*_layer(FEATURES, config), *blocks, nn.Linear(config.width, 48))
        for name, matrix in (
            ("bone_from_joint", BONE_FROM_JOINT),
            ("joint_from_bone", JOINT_FROM_BONE),
            ("length_from_group", LENGTH_FROM_GROUP),
            ("group_from_length", GROUP_FROM_LENGTH),
        ):
            self.register_buffer(name, torch.from_numpy(matrix), persistent=False)
        self.register_buffer("typical_m", torch.tensor(TYPICAL_BONES_M), persistent=False)

    def forward(
        self,
        keypoints: Float[Tensor, "n 17 3"],
        camera: Float[Tensor, "n 4"],
        up: Float[Tensor, "n 3"],
        bones: Float[Tensor, "n 9"],
    ) -> tuple[Float[Tensor, "n 17 3"], Float[Tensor, "n 3"]]:
        """Root-relative pose and absolute root in metres, camera axes.

        keypoints: x_px, y_px, score (0 = missing); camera: fx, fy, cx, cy in pixels, undistorted; up: unit vector in
        camera axes, shorter = less sure, zeros = unknown; bones: metres in the order of BONE_GROUPS, each 0 = unknown.
        """
        view = see(keypoints, camera)
        features = self.features(view, up, bones)
        both = self.network(torch.cat([features, mirror_features(features)])).unflatten(-1, (16, 3))
        people = features.shape[0]  # neither len() nor chunk(): both freeze the batch size in the exported graph
        turned, mirrored = both[:people], both[people:]
        mirrored = mirrored[:, MIRROR_POSE] * mirrored.new_tensor([-1.0, 1.0, 1.0])
        return self.refine(self.to_camera((turned + mirrored) / 2, view), view, bones)

    def predict(
        self,
        keypoints: Float[Tensor, "n 17 3"],
        camera: Float[Tensor, "n 4"],
        up: Float[Tensor, "n 3"],
        bones: Float[Tensor, "n 9"],
    ) -> Float[Tensor, "n 17 3"]:
        """The network's own pose, not mirrored, not refined: what training looks at.

        Training through the refinement was tried and is worse: 73.6 against 66.7 mm.
        """
        view = see(keypoints, camera)
        hidden = self.features(view, up, bones)
        with torch.autocast(hidden.device.type, torch.bfloat16):
            for layer in list(self.network)[:-1]:
                hidden = layer(hidden)
        return self.to_camera(self.network[-1](hidden.float()).unflatten(-1, (16, 3)), view)

    def features(
        self, view: View, up: Float[Tensor, "n 3"], bones: Float[Tensor, "n 9"]
    ) -> Float[Tensor, "n features"]:
        """Network input: turned rays at unit scale, scores, scale, anchor ray, turned up, bone lengths, flags."""
        turned = torch.einsum("nij,nkj->nki", view.turn, view.ray)
        xy = turned[..., :2] / turned[..., 2:].clamp(min=0.1)
        weight = view.weight[:, READ_JOINTS]
        seen = (weight > 0).to(xy.dtype)
        xy = xy[:, READ_JOINTS] * seen[..., None]
        scale = (xy.square().sum((1, 2)) / seen.sum(1).clamp(min=1)).sqrt().clamp(min=1e-4)
        anchor = view.turn[:, 2, :2] / view.turn[:, 2, 2:]
        know_up = up.norm(dim=1, keepdim=True).clamp(max=1)
        know_bones = (bones > 0).to(xy.dtype)
        return torch.cat(
            [
                torch.cat([xy / scale[:, None, None], weight[..., None]], -1).flatten(1),
                4 * scale[:, None],
                anchor,
                torch.einsum("nij,nj->ni", view.turn, up),
                know_up,
                5 * (bones / self.typical_m - 1) * know_bones,
                know_bones,
            ],
            1,
        )

    def to_camera(self, turned: Float[Tensor, "n 16 3"], view: View) -> Float[Tensor, "n 17 3"]:
        """Network output (metres from the pelvis, turned axes) to camera axes, pelvis in front."""
        pose = torch.einsum("nji,nkj->nki", view.turn, turned)
        return torch.cat([torch.zeros_like(pose[:, :1]), pose], 1)

    def refine(
        self, pose: Float[Tensor, "n 17 3"], view: View, bones: Float[Tensor, "n 9"]
    ) -> tuple[Float[Tensor, "n 17 3"], Float[Tensor, "n 3"]]:
        """Alternate between joints on their rays and bones at their lengths; ends on the rays.

        Worth 11 mm where the lengths are known. An unknown length stays as the network has it.
        """
        predicted = self.group_from_length @ (self.bone_from_joint @ pose).norm(dim=-1)[..., None]
        length = self.length_from_group @ torch.where(bones > 0, bones, predicted[..., 0])[..., None]
        joints = pose
        for _ in range(self.config.rounds):
            bone = self.bone_from_joint @ joints
            straight = bone / bone.norm(dim=-1, keepdim=True).clamp(min=1e-6)
            pose = self.joint_from_bone @ (straight * length)
            joints = onto_rays(pose + place(pose, view)[:, None], view)
        joints = joints if self.config.rounds else pose + place(pose, view)[:, None]
        return joints - joints[:, :1], joints[:, 0]


def see(keypoints: Float[Tensor, "n 17 3"], camera: Float[Tensor, "n 4"]) -> View:
    """Pixels to rays, and the smallest turn that brings the anchor ray onto the optical axis.

    A seen joint keeps at least half its weight: MediaPipe gives hidden joints scores near 0 and yet places them well.
    """
    keypoints = read(keypoints)
    score = keypoints[..., 2].clamp(0, 1)
    seen = (score > 0).to(keypoints.dtype)
    weight = seen * (0.5 + 0.5 * score)
    xy = (keypoints[..., :2] - camera[:, None, 2:]) / camera[:, None, :2] * seen[..., None]
    ray = torch.cat([xy, torch.ones_like(xy[..., :1])], -1)
    middle = xy.sum(1) / seen.sum(1, keepdim=True).clamp(min=1)
    anchor = torch.where(seen[:, :1] > 0, xy[:, 0], middle)
    return View(ray, weight, turn_onto_axis(anchor))


def read(keypoints: Float[Tensor, "n 17 3"]) -> Float[Tensor, "n 17 3"]:
    """Pelvis and thorax put in the middle of their pairs, spine and neck struck out."""
    joints = list(keypoints.unbind(1))
    for joint, left, right in PAIRS:
        middle = (joints[left] + joints[right]) / 2
        lower = torch.minimum(joints[left][:, 2:], joints[right][:, 2:])
        derived = torch.cat([middle[:, :2], lower], 1)
        joints[joint] = torch.where(lower > 0, derived, joints[joint])
    kept = keypoints.new_tensor([float(j in READ_JOINTS) for j in range(17)])
    return torch.stack(joints, 1) * kept[:, None]


def turn_onto_axis(anchor: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3 3"]:
    """Rotation that takes (x, y, 1) to the z axis without roll (Rodrigues, axis perpendicular to both)."""
    direction = torch.nn.functional.pad(anchor, (0, 1), value=1.0)
    a, b, c = (direction / direction.norm(dim=1, keepdim=True)).unbind(1)
    k = 1 / (1 + c)
    rows = [1 - a * a * k, -a * b * k, -a, -a * b * k, 1 - b * b * k, -b, a, b, c]
    return torch.stack(rows, 1).view(-1, 3, 3)


def place(pose: Float[Tensor, "n 17 3"], view: View) -> Float[Tensor, "n 3"]:
    """Root that brings the pose nearest to its rays: weighted least squares of the perpendicular distances."""
    unit = view.ray / view.ray.norm(dim=-1, keepdim=True)
    across = torch.eye(3, dtype=pose.dtype, device=pose.device) - unit[..., :, None] * unit[..., None, :]
    across = across * view.weight[..., None, None]
    return -solve_3x3(across.sum(1), torch.einsum("nkij,nkj->ni", across, pose))


def solve_3x3(matrix: Float[Tensor, "n 3 3"], vector: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Symmetric system by Cramer's rule: plain products, so that every runtime can do it."""
    a, b, c = matrix.unbind(2)
    bc, ca, ab = _cross(b, c), _cross(c, a), _cross(a, b)
    adjugate = torch.stack([bc, ca, ab], 1)
    determinant = (a * bc).sum(1, keepdim=True).clamp(min=1e-9)
    return torch.einsum("nij,nj->ni", adjugate, vector) / determinant


def _cross(a: Float[Tensor, "n 3"], b: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """torch.linalg.cross has no ONNX operator of its own at opset 20."""
    ax, ay, az = a.unbind(1)
    bx, by, bz = b.unbind(1)
    return torch.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)


def onto_rays(joints: Float[Tensor, "n 17 3"], view: View) -> Float[Tensor, "n 17 3"]:
    """Each seen joint to the nearest point of its ray; a doubtful one only as far as its score says."""
    unit = view.ray / view.ray.norm(dim=-1, keepdim=True)
    on_ray = unit * (joints * unit).sum(-1, keepdim=True)
    return joints + view.weight[..., None] * (on_ray - joints)


def mirror_features(features: Float[Tensor, "n features"]) -> Float[Tensor, "n features"]:
    """The same person in a mirror: left and right swapped, every x negated."""
    joints, rest = features[:, : 3 * len(READ_JOINTS)], features[:, 3 * len(READ_JOINTS) :]
    joints = joints.view(-1, len(READ_JOINTS), 3)[:, MIRROR_READ] * features.new_tensor([-1.0, 1.0, 1.0])
    # scale, anchor x y, up x y z, then flags and lengths, which a mirror leaves alone
    sign = features.new_tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0] + [1.0] * (rest.shape[1] - 6))
    return torch.cat([joints.flatten(1), rest * sign], 1)
