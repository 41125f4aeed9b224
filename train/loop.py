"""The training loop: views in, a lifter out, top to bottom."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from poseda_deploy.errors import CheckFailed
from poseda_deploy.model import Lifter

from .checkpoint import Checkpoint
from .config import TrainConfig
from .source import SourcePoses
from .state import TrainState
from .views import Views

DRAW = 16
"""Steps whose views are drawn at once: many small tensors cost more than their arithmetic."""


def fit(
    config: TrainConfig, source: SourcePoses, on_steps: Callable[[int, float], None], keep: Path | None = None
) -> Lifter:
    """Train on endless virtual views of the source poses; on_steps(steps done, joint error in mm).

    Mean joint distance of the network's own output, one-cycle Adam, bf16 hidden layers; the averaged weights are kept.
    `keep` is where the state is saved once a minute, and taken up again after a kill.
    """
    state = TrainState(config, source)
    checkpoint = Checkpoint(keep, config) if keep else None
    if checkpoint:
        checkpoint.load(state)
    while state.step < config.steps:
        drawn = state.sampler.draw(DRAW * config.batch)
        for part in range(min(DRAW, config.steps - state.step)):
            loss = joint_error(state.lifter, drawn.rows(part, config.batch))
            state.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(state.lifter.parameters(), 1.0)
            state.optimizer.step()
            state.schedule.step()
            state.follow(config.average)
            state.step += 1
        on_steps(state.step, finite_mm(loss, state.step))
        if checkpoint:
            checkpoint.save_if_due(state)
    return state.average.eval().cpu()


def joint_error(lifter: Lifter, views: Views) -> Tensor:
    """Mean distance of the joints (without the pelvis) in metres."""
    pose = lifter.predict(views.keypoints, views.camera, views.up, views.bones)
    return (pose - views.pose)[:, 1:].norm(dim=-1).mean()


def finite_mm(loss: Tensor, step: int) -> float:
    """The loss in mm; stops a training that has blown up."""
    error_mm = float(loss.detach()) * 1000
    if error_mm != error_mm or error_mm > 1e4:
        raise CheckFailed(f"training diverged at step {step}: error {error_mm:g} mm", hint="lower the learning rate")
    return error_mm
