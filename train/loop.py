"""The training loop: views in, a lifter out, top to bottom."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from poseda_deploy.errors import CheckFailed
from poseda_deploy.model import Lifter

from .checkpoint import Checkpoint
from .config import Course
from .state import Sampler, TrainState
from .views import Views

DRAW = 16
"""Steps whose views are drawn at once: many small tensors cost more than their arithmetic."""


def fit(
    course: Course,
    lifter: Lifter,
    sampler: Sampler,
    on_steps: Callable[[int], None],
    keep: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Lifter, list[float]]:
    """Train a copy of the lifter on endless views; calls on_steps(steps done).

    Mean joint distance of the network's own output, one-cycle Adam, bf16 hidden layers; the averaged weights are kept.
    Also returns the error in mm, once every DRAW steps. `keep` is where the state is saved once a minute, and taken up
    again after a kill. Where `stop` says so the average so far is what comes back.
    """
    state = TrainState(course, lifter, sampler)
    checkpoint = Checkpoint(keep, course) if keep else None
    if checkpoint:
        checkpoint.load(state)
        on_steps(state.step)
    while state.step < course.steps and not stop():
        drawn = sampler.draw(DRAW * course.batch)
        for part in range(min(DRAW, course.steps - state.step)):
            loss = joint_error(state.lifter, drawn.rows(part, course.batch))
            state.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(state.lifter.parameters(), 1.0)
            state.optimizer.step()
            state.schedule.step()
            state.follow(course.average)
            state.step += 1
        state.errors_mm.append(finite_mm(loss, state.step))
        on_steps(state.step)
        if checkpoint:
            checkpoint.save_if_due(state)
    return state.average.eval().cpu(), state.errors_mm


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
