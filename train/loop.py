"""The training loop: views in, a lifter out, top to bottom."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from poseda_deploy.errors import CheckFailed
from poseda_deploy.model import Lifter

from .config import TrainConfig
from .source import SourcePoses
from .views import Views, ViewSampler

DRAW = 16
"""Steps whose views are drawn at once: many small tensors cost more than their arithmetic."""


def fit(config: TrainConfig, source: SourcePoses, on_steps: Callable[[int, float], None]) -> Lifter:
    """Train on endless virtual views of the source poses; on_steps(steps since the last call, joint error in mm).

    Mean joint distance of the network's own output, one-cycle Adam, bf16 hidden layers; the averaged weights are kept.
    """
    torch.manual_seed(config.seed)
    lifter = Lifter(config.lifter).to(config.device).train()
    average = deepcopy(lifter)
    optimizer = torch.optim.Adam(lifter.parameters(), lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.15
    )
    pose_m = torch.from_numpy(source.pose_m).to(config.device)
    weight = torch.from_numpy(source.weight).to(config.device)
    sampler = ViewSampler(pose_m, weight, config.views, config.seed)

    for step in range(config.steps):
        if step % DRAW == 0:
            drawn = sampler.draw(DRAW * config.batch)
        loss = joint_error(lifter, drawn.rows(step % DRAW, config.batch))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(lifter.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        follow(average, lifter, min(config.average, step / (step + 10)))
        if step % DRAW == DRAW - 1 or step == config.steps - 1:
            on_steps(step % DRAW + 1, finite_mm(loss, step))
    return average.eval().cpu()


@torch.no_grad()
def follow(average: Lifter, lifter: Lifter, decay: float) -> None:
    """Move the running mean of the weights and batch statistics towards the lifter."""
    for mean, value in zip(average.state_dict().values(), lifter.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)


def joint_error(lifter: Lifter, views: Views) -> Tensor:
    """Mean distance of the joints (without the pelvis) in metres."""
    pose = lifter.predict(views.keypoints, views.camera, views.up, views.bones)
    return (pose - views.pose)[:, 1:].norm(dim=-1).mean()


def finite_mm(loss: Tensor, step: int) -> float:
    """The loss in mm; stops a training that has blown up."""
    error_mm = float(loss.detach()) * 1000
    if error_mm != error_mm or error_mm > 1e4:
        raise CheckFailed(f"training diverged at step {step}: error {error_mm:g} mm", hint="lower --learning-rate")
    return error_mm
