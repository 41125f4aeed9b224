"""Everything that changes while a lifter is trained, as named tensors."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from poseda_deploy.model import Lifter

from .config import Course
from .views import Views


@runtime_checkable  # so that shape checks in tests can look at it
class Sampler(Protocol):
    """Endless training views; the generator is all that changes from one draw to the next."""

    generator: Generator

    def draw(self, n: int) -> Views:
        """n fresh views."""
        ...


class TrainState:
    """Network, its running mean, optimiser, schedule and random generators; the same seed gives the same course."""

    def __init__(self, course: Course, lifter: Lifter, sampler: Sampler) -> None:
        torch.manual_seed(course.seed)
        self.step = 0
        self.errors_mm: list[float] = []
        self.lifter = deepcopy(lifter).to(course.device).train(not course.settled)
        self.average = deepcopy(self.lifter)
        self.optimizer = torch.optim.Adam(self.lifter.parameters(), lr=course.learning_rate, fused=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, course.learning_rate, total_steps=course.steps, pct_start=0.15
        )
        self.sampler = sampler

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the running mean of the weights and batch statistics towards the lifter; faster at first."""
        decay = min(decay, self.step / (self.step + 10))
        for mean, value in zip(self.average.state_dict().values(), self.lifter.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state; `restore` takes it back."""
        named = {f"lifter.{name}": value for name, value in self.lifter.state_dict().items()}
        named |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            named |= {f"adam.{index}.{name}": value for name, value in moments.items()}
        named |= {"random.torch": torch.get_rng_state(), "random.views": self.sampler.generator.get_state()}
        group = self.optimizer.param_groups[0]  # the one-cycle schedule moves the first moment's decay too
        pace = torch.tensor([group["lr"], group["betas"][0]], dtype=torch.float64)
        told = {"step": torch.tensor(self.step), "pace": pace, "errors_mm": torch.tensor(self.errors_mm)}
        return named | told

    def restore(self, named: Mapping[str, Tensor]) -> None:
        """Go on exactly where `tensors` was taken."""
        self.step = int(named["step"])
        self.errors_mm = named["errors_mm"].tolist()
        self.lifter.load_state_dict(_under(named, "lifter."))
        self.average.load_state_dict(_under(named, "average."))
        adam = self.optimizer.state_dict()
        for name, value in _under(named, "adam.").items():
            index, _, moment = name.partition(".")
            adam["state"].setdefault(int(index), {})[moment] = value
        self.optimizer.load_state_dict(adam)
        learning_rate, beta = named["pace"].tolist()
        group = self.optimizer.param_groups[0]
        group |= {"lr": learning_rate, "betas": (beta, group["betas"][1])}
        self.schedule.last_epoch = self.step
        torch.set_rng_state(named["random.torch"])
        self.sampler.generator.set_state(named["random.views"])


def _under(named: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
