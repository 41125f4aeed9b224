"""Global position alignment: source people are put where the target camera's people are.

`place_paper` is PoseDA's closed form (Chai et al., ICCV 2023). `place` is ours: the scale is exact and taken from the
joints that the target frame shows; `unlike` finds each target frame a source pose of like posture.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from poseda_deploy.skeleton import H36M17

NEAREST_M = 0.3
"""No joint comes nearer to the camera than this."""
DEPTH_M = (0.7, 40.0)
ROUNDS = 6
"""Each divides the scale's error by about five; from the closed form, six leave less than 1e-4."""
PELVIS = H36M17.index("pelvis")


def place_paper(
    source_m: Float[Tensor, "n j 3"], target_xy: Float[Tensor, "n j 2"], camera: Float[Tensor, "n 4"]
) -> Float[Tensor, "n j 3"]:
    """PoseDA's GPA: source poses (metres, camera axes, joint 0 = root) re-placed after their paired target frame.

    Depth z = (fx dx + fy dy) / (2 s), with dx, dy the extents of the pose and s the mean extent of the target's 2D; the
    root lies on the target root's ray. `camera` is fx, fy, cx, cy of each row, in the units of `target_xy`.
    """
    focal, centre = camera[:, :2], camera[:, 2:]
    scale = (target_xy.amax(1) - target_xy.amin(1)).mean(1)
    extent_m = (source_m.amax(1) - source_m.amin(1))[:, :2]
    depth_m = (focal * extent_m).sum(1) / (2 * scale)
    ray = (target_xy[:, 0] - centre) / focal
    root_m = torch.cat([ray, torch.ones_like(ray[:, :1])], 1) * depth_m[:, None]
    return source_m - source_m[:, :1] + root_m[:, None]


@dataclass(frozen=True)
class TargetFrames:
    """Keypoints of one camera as rays x/z, y/z; what the target domain is known by."""

    ray: Float[Tensor, "m 17 2"]
    """Zeros where missing."""
    seen: Bool[Tensor, "m 17"]

    def rows(self, index: Int[Tensor, " n"]) -> "TargetFrames":
        """Some of the frames, in that order."""
        return TargetFrames(self.ray[index], self.seen[index])


def place(pose_m: Float[Tensor, "n 17 3"], target: TargetFrames) -> Float[Tensor, "n 17 3"]:
    """Put each pose (relative to the pelvis, camera axes) on its own target frame: same anchor, same scale.

    The anchor is the pelvis, or the middle of what is seen where the pelvis is not; the scale is the rms distance of
    the seen joints from it. Gradients pass through.
    """
    seen = target.seen.to(pose_m.dtype)
    anchor = anchor_ray(target.ray, target.seen)
    wanted = spread(target.ray - anchor[:, None], seen)
    root_m = torch.nn.functional.pad(anchor, (0, 1), value=1.0) * (spread(pose_m[..., :2], seen) / wanted)[:, None]
    for _ in range(ROUNDS):
        placed = pose_m + root_m[:, None]
        ray = placed[..., :2] / placed[..., 2:].clamp(min=NEAREST_M)
        off = anchor_ray(ray, target.seen)
        depth_m = (root_m[:, 2] * spread(ray - off[:, None], seen) / wanted).clamp(*DEPTH_M)
        across_m = root_m[:, :2] / root_m[:, 2:] + anchor - off
        root_m = torch.cat([across_m * depth_m[:, None], depth_m[:, None]], 1)
    return pose_m + root_m[:, None]


def anchor_ray(ray: Float[Tensor, "n 17 2"], seen: Bool[Tensor, "n 17"]) -> Float[Tensor, "n 2"]:
    """The pelvis, or the middle of the seen joints."""
    weight = seen.to(ray.dtype)[..., None]
    middle = (ray * weight).sum(1) / weight.sum(1).clamp(min=1)
    return torch.where(seen[:, PELVIS, None], ray[:, PELVIS], middle)


def spread(off: Float[Tensor, "n 17 2"], seen: Float[Tensor, "n 17"]) -> Float[Tensor, " n"]:
    """Rms distance from the anchor over the seen joints."""
    return ((off.square().sum(-1) * seen).sum(1) / seen.sum(1).clamp(min=1)).clamp(min=1e-8).sqrt()


def sound(placed_m: Float[Tensor, "n 17 3"]) -> Bool[Tensor, " n"]:
    """Whether a depth was found that fits and leaves every joint in front of the camera."""
    depth_m = placed_m[:, PELVIS, 2]
    return (placed_m[..., 2].amin(1) > NEAREST_M) & (depth_m > DEPTH_M[0]) & (depth_m < DEPTH_M[1])


def unlike(pose_m: Float[Tensor, "n c 17 3"], target: TargetFrames) -> Float[Tensor, "n c"]:
    """How far each of c poses (camera axes) is from its target frame: root-centred, unit-scale 2D, mean square.

    At random a crouching pose meets a standing target and ends far too near: the paper matches box sizes, not depths.
    """
    seen = target.seen.to(pose_m.dtype)
    theirs = target.ray - anchor_ray(target.ray, target.seen)[:, None]
    theirs = (theirs / spread(theirs, seen)[:, None, None])[:, None]
    mask = seen[:, None, :, None]
    mine = pose_m[..., :2] * mask
    mine = mine / (mine.square().sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True)).clamp(min=1e-8).sqrt()
    return ((mine - theirs).square() * mask).sum((2, 3)) / mask.sum((2, 3))
