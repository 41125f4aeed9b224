"""Did adaptation help? Said without labels, from two signs that fail in different ways.

`matched_mm`: the lifter's error on source people who look, in this camera, like the target's held-out frames do. In
millimetres, but blind to what the source's bodies and joint definitions share with training. `residual`: how far the
network's own pose, at its best place, is from the target's 2D; it sees those, and not depth.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from poseda_deploy.errors import InputError
from poseda_deploy.model import Lifter
from poseda_deploy.rays import see

from .gpa import PELVIS
from .target2d import Target2D
from .target_views import TargetSampler, TargetViewConfig
from .views import Views, ViewSampler

CLEAR = 0.04
"""Least relative change that counts: lifters 1 mm worse than before have been seen 0.02 better on both signs."""
MISFIT = 0.03
"""Of a person's size: MediaPipe's people are up to 0.016 off, half a file in COCO's order under another name 0.045."""
FRAMES, NEAREST, POOL = 300, 3, 30_000
"""Held-out frames, source people for each, and how many they are picked from."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for a lifter on one target; less is better."""

    matched_mm: float
    residual: float
    """Mean distance of the joints from their rays, as a share of the person's size in the image."""


@dataclass(frozen=True)
class Verdict:
    """Whether the second lifter is the better one."""

    says: Literal["better", "worse", "cannot tell"]
    change_mm: float
    """Expected change of the joint error."""
    log_ratio: float
    """Of both signs together; below 0 is better."""


def judge(before: Evidence, after: Evidence) -> Verdict:
    """Compare two lifters on the same target; both signs must point the same way, and clearly.

    `matched_mm` alone ranks 28 lifters of all qualities right (0.99 and 0.93 with the truth on two targets), but a
    lifter trained on the target's places gains on it while its true error rises: then the residual has risen too.
    """
    ratios = [math.log(after.matched_mm / before.matched_mm), math.log(after.residual / before.residual)]
    log_ratio = sum(ratios)
    change_mm = after.matched_mm - before.matched_mm
    if ratios[0] < -CLEAR and ratios[1] < CLEAR:
        return Verdict("better", change_mm, log_ratio)
    return Verdict("worse" if ratios[0] > CLEAR else "cannot tell", change_mm, log_ratio)


def matched_views(source: ViewSampler, target: Target2D, config: TargetViewConfig) -> Views:
    """Source people who look like held-out frames of the target: a validation set nobody had to label.

    On the CPU, wherever the source's poses lie: lifters are judged there, where they are published and run.
    """
    sampler = TargetSampler(source, [target], replace(config, jitter=0.0))
    held = torch.from_numpy(target.held_out.nonzero()[0])
    frame = held[torch.linspace(0, len(held) - 1, min(FRAMES, len(held))).long()].to(source.pose_m.device)
    return sampler.matched(sampler.cameras[0], frame, POOL, NEAREST).cpu()


@torch.no_grad()
def evidence(lifter: Lifter, targets: Sequence[Target2D], matched: Sequence[Views]) -> Evidence:
    """Both signs, mean over the cameras."""
    lifter = lifter.eval()
    matched_mm = [float(lifted_error_m(lifter, views).mean()) * 1000 for views in matched]
    residual = [float(residuals(lifter, target.where(target.held_out)).mean()) for target in targets]
    return Evidence(sum(matched_mm) / len(matched_mm), sum(residual) / len(residual))


def lifted_error_m(lifter: Lifter, views: Views) -> Float[Tensor, " n"]:
    """Mean joint error of the whole lifter, mirrored and refined as it runs; metres."""
    pose, _ = lifter(views.keypoints, views.camera, views.up, views.bones)
    return (pose - views.pose)[:, 1:].norm(dim=-1).mean(1)


@torch.no_grad()
def fit_warnings(lifter: Lifter, target: Target2D) -> tuple[str, ...]:
    """Whether the people look like people in that joint order; InputError where only a part of them does."""
    fit = residuals(lifter, target).numpy()
    parts = [part for person in np.unique(target.person) for part in np.array_split(fit[target.person == person], 4)]
    medians = np.array([np.median(part) for part in parts if len(part)])
    if medians.max() > MISFIT and medians.max() > 3 * medians.min():
        raise InputError(
            f"{target.name}: the joints of {np.mean(medians > MISFIT):.0%} of the file do not form people: their poses"
            f" miss the 2D by {medians.max():.1%} of its size, elsewhere by {medians.min():.1%}",
            hint="two skeletons mixed? every row must have the joint order that `skeleton` names",
        )
    if np.median(fit) > MISFIT:
        return (f"the poses miss their 2D by {np.median(fit):.1%} of its size: is `skeleton` the file's joint order?",)
    return ()


def residuals(lifter: Lifter, target: Target2D) -> Float[Tensor, " n"]:
    """Mean distance of the unrefined joints from their rays, as a share of the person's size."""
    keypoints = torch.from_numpy(target.keypoints)
    camera = torch.from_numpy(target.camera.vector).expand(len(keypoints), 4)
    up = torch.from_numpy(target.up).expand(len(keypoints), 3)
    bones = torch.from_numpy(target.bones_m[target.person])
    pose, root = unrefined(lifter)(keypoints, camera, up, bones)
    view = see(keypoints, camera)
    placed = pose + root[:, None]
    off = placed[..., :2] / placed[..., 2:].clamp(min=0.1) - view.ray[..., :2]
    size = (view.ray[..., :2] - view.ray[:, PELVIS, None, :2]).square().sum(-1)
    share = view.weight / view.weight.sum(1, keepdim=True)
    return (off.norm(dim=-1) * share).sum(1) / (3 * (size * share).sum(1).sqrt()).clamp(min=1e-4)


def unrefined(lifter: Lifter) -> Lifter:
    """The same weights without refinement rounds, which would put every joint on its ray."""
    plain = deepcopy(lifter)
    plain.config = replace(lifter.config, rounds=0)
    return plain
