"""How the pose prior is learnt from source poses, and what can be said of it without training on it."""

from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import InputError
from poseda_deploy.limits import broken_limits
from poseda_deploy.metrics import bone_lengths_m
from poseda_deploy.skeleton import JOINT_FROM_BONE, LENGTH_FROM_GROUP

from .postures import facing_forward, posture_clusters
from .prior import PosePrior
from .source import SourcePoses

COMPONENTS, RANK = 1000, 12
LEAST_REST = 0.01
"""Half a degree: what a cluster of one pose is spread by, so that no sample is a copy."""
_GROUP_OF_BONE = LENGTH_FROM_GROUP.argmax(1)


def fit_prior(source: SourcePoses, components: int = COMPONENTS, rank: int = RANK, seed: int = 0) -> PosePrior:
    """Cluster the bone directions and keep each cluster's mean and main directions; lengths by person."""
    if len(source.pose_m) < 10 * components:
        raise InputError(f"{len(source.pose_m)} poses are too few", hint=f"a prior needs at least {10 * components}")
    bone, label = posture_clusters(source.pose_m, components, seed, start="points")
    order = np.argsort(label, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    parts = [_component(bone[rows], source.weight[rows], rank) for rows in groups]
    centre, spread, rest = (np.stack(column).astype(np.float32) for column in zip(*parts, strict=True))
    weight = np.array([source.weight[rows].sum() for rows in groups], np.float32)
    return PosePrior(weight, centre, spread, rest, *_population(source))


def _component(
    bone: Float[np.ndarray, "m 48"], weight: Float[np.ndarray, " m"], rank: int
) -> tuple[Float[np.ndarray, "48"], Float[np.ndarray, "rank 48"], Float[np.ndarray, ""]]:
    """Mean, main directions and what they leave (probabilistic principal components, Tipping and Bishop 1999)."""
    share = (weight / weight.sum())[:, None]
    centre = (share * bone).sum(0)
    _, size, direction = np.linalg.svd((bone - centre) * np.sqrt(share), full_matrices=False)
    kept = min(rank, len(size))
    spread = np.zeros((rank, 48))
    spread[:kept] = size[:kept, None] * direction[:kept]
    rest = np.sqrt(np.square(size[kept:]).sum() / max(48 - kept, 1))
    return centre, spread, np.asarray(max(rest, LEAST_REST))


def _population(source: SourcePoses) -> tuple[Float[np.ndarray, "9"], Float[np.ndarray, "9 9"]]:
    """Each person counts once, however many frames there are of them."""
    length_m = bone_lengths_m(source.pose_m)
    people = np.unique(source.subject)
    log_m = np.log([np.median(length_m[source.subject == person], axis=0) for person in people])
    off = log_m - log_m.mean(0)
    _, size, direction = np.linalg.svd(off / np.sqrt(max(len(people) - 1, 1)), full_matrices=False)
    spread = np.zeros((9, 9))
    spread[: len(size)] = size[:, None] * direction
    return log_m.mean(0).astype(np.float32), spread.astype(np.float32)


def prior_report(prior: PosePrior, source: SourcePoses, samples: int = 500) -> dict[str, Any]:
    """What can be said of the samples beside the source: joint limits, and how near the nearest source pose is."""
    drawn = prior.sample(20_000, seed=1)
    own, theirs = (
        {name: round(100 * float((broken * weight).sum()), 3) for name, broken in broken_limits(pose).items()}
        for pose, weight in ((drawn, np.full(len(drawn), 1 / len(drawn))), (source.pose_m, source.weight))
    )
    near_mm = nearest_mm(drawn[:samples], source.pose_m)
    quantiles = np.quantile(near_mm, (0.05, 0.5, 0.95))
    return {
        "components": len(prior.weight),
        "people": len(np.unique(source.subject)),
        "source_poses": len(source.pose_m),
        "broken_limits_percent": own,
        "broken_limits_of_source_percent": theirs,
        "nearest_source_mm": dict(zip(("p5", "p50", "p95"), np.round(quantiles, 1).tolist(), strict=True)),
    }


def nearest_mm(pose_m: Float[np.ndarray, "n 17 3"], others_m: Float[np.ndarray, "m 17 3"]) -> Float[np.ndarray, " n"]:
    """Mean joint distance to the nearest of the others, both turned to face along z and given the same bone lengths."""
    mine, theirs = (facing_forward(pose).reshape(len(pose), -1) for pose in (pose_m, others_m))
    squared = np.square(theirs).sum(1)
    nearest = [int(np.argmin(squared - 2 * theirs @ row)) for row in mine]
    off = (mine - theirs[nearest]).reshape(-1, 16, 3) * np.median(bone_lengths_m(others_m), 0)[_GROUP_OF_BONE, None]
    return np.linalg.norm(JOINT_FROM_BONE @ off, axis=-1)[:, 1:].mean(1) * 1000
