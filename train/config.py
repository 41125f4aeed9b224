"""Every knob of training, with its default, unit and one sentence."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from poseda_deploy.errors import BackendError, InputError
from poseda_deploy.model import LifterConfig

from .views import ViewConfig


def require_device(device: str) -> None:
    """BackendError where a GPU is asked for and PyTorch finds none: before any work."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f"--device cuda: this PyTorch finds no GPU (torch {torch.__version__})",
            hint="--device cpu; nvidia-smi shows the driver, and a torch whose version ends in +cpu has no CUDA",
        )


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long and how fast weights are moved."""

    steps: int
    """Optimiser steps."""
    batch: int = 512
    """Views a step."""
    learning_rate: float
    """Peak of the one-cycle schedule."""
    average: float
    """Decay of the running mean of the weights, which is what is saved."""
    settled: bool = False
    """Go on as the lifter runs: batch norm keeps its statistics and nothing is dropped out."""
    seed: int = 0
    """Same seed, same weights, on one machine with one thread."""
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 8 or not 0 < self.learning_rate < 1 or not 0 <= self.average < 1:
            raise InputError(
                f"impossible training: {self.steps} steps of {self.batch} views at {self.learning_rate:g}",
                hint="steps >= 1, batch >= 8, learning rate and average between 0 and 1",
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Course):
    """Source training of a lifter."""

    source: tuple[Path, ...]
    """Pose priors, .npz with positions (N,17,3) in metres, y up, or folders of BVH."""
    without: tuple[str, ...] = ()
    """Subjects to leave out, compared for equality."""
    bvh_scale: float = 1.0
    """Metres a unit of the BVH files."""
    start: Path | None = None
    """Bundle whose weights to go on from; none: random ones."""
    steps: int = 60_000
    learning_rate: float = 1e-3
    average: float = 0.9995
    lifter: LifterConfig = field(default_factory=LifterConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
