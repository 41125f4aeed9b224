"""What a camera sees of people, as rays; and where on its rays a person of known shape stands. Torch.

Axes everywhere: camera x right, y down, z forward; metres.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from poseda_deploy.skeleton import DERIVED, H36M17

# Spine and neck (or nose) are another point in every data set, so they carry no weight: reading a spine that sits 4 cm
# off costs 19 mm on the limbs, and reading a perfect one gains nothing there.
READ_JOINTS = tuple(j for j, name in enumerate(H36M17.joints) if name not in ("spine", "neck"))
# Thorax and pelvis are the middle of a pair wherever the pair is seen: a "thorax" at the neck cost 16 mm on the limbs.
PAIRS = tuple(tuple(map(H36M17.index, (joint, *DERIVED[joint]))) for joint in ("pelvis", "thorax"))


@dataclass(frozen=True)
class View:
    """One person as a camera sees it."""

    ray: Float[Tensor, "n 17 3"]
    """Directions (x/z, y/z, 1) in camera axes; (0, 0, 1) where missing."""
    seen: Float[Tensor, "n 17"]
    """1 where a joint is given, 0 = missing; of spine and neck too."""
    weight: Float[Tensor, "n 17"]
    """Trust in each joint, 0.5 to 1; 0 = missing, or spine or neck."""
    turn: Float[Tensor, "n 3 3"]
    """turned = turn @ camera axes, so that the anchor (pelvis, if seen) lies on the optical axis."""


def see(keypoints: Float[Tensor, "n 17 3"], camera: Float[Tensor, "n 4"]) -> View:
    """Pixels to rays, and the smallest turn that brings the anchor ray onto the optical axis.

    A seen joint keeps at least half its weight: MediaPipe gives hidden joints scores near 0 and yet places them well.
    """
    keypoints = read(keypoints)
    score = keypoints[..., 2].clamp(0, 1)
    seen = (score > 0).to(keypoints.dtype)
    trusted = seen * keypoints.new_tensor([float(j in READ_JOINTS) for j in range(17)])
    weight = trusted * (0.5 + 0.5 * score)
    xy = (keypoints[..., :2] - camera[:, None, 2:]) / camera[:, None, :2] * seen[..., None]
    ray = torch.cat([xy, torch.ones_like(xy[..., :1])], -1)
    middle = (xy * trusted[..., None]).sum(1) / trusted.sum(1, keepdim=True).clamp(min=1)
    anchor = torch.where(seen[:, :1] > 0, xy[:, 0], middle)
    return View(ray, seen, weight, turn_onto_axis(anchor))


def read(keypoints: Float[Tensor, "n 17 3"]) -> Float[Tensor, "n 17 3"]:
    """Pelvis and thorax put in the middle of their pairs."""
    joints = list(keypoints.unbind(1))
    for joint, left, right in PAIRS:
        middle = (joints[left] + joints[right]) / 2
        lower = torch.minimum(joints[left][:, 2:], joints[right][:, 2:])
        derived = torch.cat([middle[:, :2], lower], 1)
        joints[joint] = torch.where(lower > 0, derived, joints[joint])
    return torch.stack(joints, 1)


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


def onto_rays(joints: Float[Tensor, "n 17 3"], view: View) -> Float[Tensor, "n 17 3"]:
    """Each seen joint to the nearest point of its ray; a doubtful one only as far as its score says."""
    unit = view.ray / view.ray.norm(dim=-1, keepdim=True)
    on_ray = unit * (joints * unit).sum(-1, keepdim=True)
    return joints + view.weight[..., None] * (on_ray - joints)


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
