"""Adaptation: the lifter is trained on source people as the target camera would see them, and kept if that helped.

Several are tried; the verdict, which needs no labels, picks one of them or the lifter that went in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from poseda_deploy.model import Lifter

from .config import Course
from .loop import fit
from .lpa import AdversarialLpa, LpaConfig
from .target2d import Target2D
from .target_views import TargetSampler, TargetViewConfig
from .verdict import Evidence, Verdict, evidence, judge, matched_views
from .views import ViewSampler

Lpa = Literal["random", "adversarial"]


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(Course):
    """How the lifter is moved towards the target."""

    steps: int = 600
    learning_rate: float = 2e-4
    average: float = 0.99
    settled: bool = True
    """Statistics of other views cost 24 mm of raw error at first, dropout 7; few steps cannot make up for that."""
    tries: tuple[Lpa, ...] = ("random",)
    """Local pose augmentations of which each is tried; the verdict chooses. None: calibration only."""
    views: TargetViewConfig = field(default_factory=TargetViewConfig)
    lpa: LpaConfig = field(default_factory=LpaConfig)


@dataclass(frozen=True)
class Try:
    """One adapted lifter and what speaks for it."""

    lpa: Lpa
    lifter: Lifter
    evidence: Evidence
    verdict: Verdict
    errors_mm: list[float]
    """Training error, every few steps."""
    collapsed: str | None
    """Why the adversary's poses were no good, with either of two seeds; such a try is never chosen."""


@dataclass(frozen=True)
class Adapted:
    """What came out."""

    lifter: Lifter
    """The best: an adapted one, or the one that went in."""
    before: Evidence
    tries: tuple[Try, ...]
    chosen: Try | None
    """None where the lifter that went in stays."""


def adapt(
    lifter: Lifter,
    targets: Sequence[Target2D],
    source: ViewSampler,
    config: AdaptConfig,
    on_steps: Callable[[int], None],
    stop: Callable[[], bool] = lambda: False,
) -> Adapted:
    """Train on all but the held-out frames, judge on those; calls on_steps(steps done over all tries).

    Where `stop` says so the try under way is judged as it is, and no other begins.
    """
    matched = [matched_views(source, target, config.views) for target in targets]
    before = evidence(lifter, targets, matched)
    learnt_from = [target.where(~target.held_out) for target in targets]
    tries = []
    for number, lpa in enumerate(config.tries):
        if stop():
            break
        told = partial(_on_steps, on_steps, number * config.steps)
        for seed in (config.seed, config.seed + 1):
            sampler = TargetSampler(source, learnt_from, config.views, adversary(lpa, config, seed))
            adapted, errors_mm = fit(config, lifter, sampler, told, stop=stop)
            if not (collapsed := sampler.collapse()) or stop():
                break
        after = evidence(adapted, targets, matched)
        tries.append(Try(lpa, adapted, after, judge(before, after), errors_mm, collapsed))
    good = [one for one in tries if one.verdict.says == "better" and not one.collapsed]
    chosen = min(good, key=lambda one: one.verdict.log_ratio, default=None)
    return Adapted(chosen.lifter if chosen else lifter, before, tuple(tries), chosen)


def _on_steps(on_steps: Callable[[int], None], before: int, step: int) -> None:
    on_steps(before + step)


def adversary(lpa: Lpa, config: AdaptConfig, seed: int) -> AdversarialLpa | None:
    """The generator and its judges, where they are asked for."""
    return AdversarialLpa(config.lpa, seed, config.device) if lpa == "adversarial" else None
