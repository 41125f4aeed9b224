"""Source poses: a pose prior or motion capture in, a weighted set of gravity-aligned poses out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from poseda_deploy.errors import InputError
from poseda_deploy.metrics import bone_lengths_m
from poseda_deploy.npz import MAX_BYTES, load_npz, naming, numbers, shape_text, texts, whole_numbers

from .bvh_source import load_bvh_folder
from .config import TrainConfig
from .postures import balanced_weights
from .prior import PRIOR, load_prior
from .units import check_metres
from .views import ViewSampler

PRIOR_SAMPLES = 200_000
"""Drawn once from a prior; 64 MB, and no pose is seen more than a few hundred times."""


@dataclass(frozen=True)
class SourcePoses:
    """Poses to learn from."""

    pose_m: Float[np.ndarray, "n 17 3"]
    """Relative to the pelvis, metres, y up, H36M17 order."""
    weight: Float[np.ndarray, " n"]
    """How often each is drawn; sums to 1."""
    subject: Int[np.ndarray, " n"]
    """Who it is: the same number for the same person."""

    @property
    def bones_m(self) -> Float[np.ndarray, "9"]:
        """Mean lengths, in the order of BONE_GROUPS: what to expect of people of whom nothing is known."""
        return (self.weight @ bone_lengths_m(self.pose_m)).astype(np.float32)


def load_source(
    paths: Sequence[Path], without: Sequence[str], bvh_scale: float = 1.0, max_bytes: int = MAX_BYTES
) -> SourcePoses:
    """Read source files and folders, leave out whole subjects ("cmu13" keeps "cmu131"), favour rare postures.

    A file that takes more than max_bytes of memory is refused.
    """
    parts = [_load_poses(path, without, bvh_scale, max_bytes) for path in paths]
    pose_m = np.concatenate([pose for pose, _ in parts])
    names = np.concatenate([np.char.add(f"{path}:", who) for path, (_, who) in zip(paths, parts, strict=True)])
    return SourcePoses(pose_m, balanced_weights(pose_m), np.unique(names, return_inverse=True)[1])


def sampler_of(source: SourcePoses, config: TrainConfig) -> ViewSampler:
    """Virtual views of those poses, on the device that trains."""
    pose_m, weight = (torch.from_numpy(array).to(config.device) for array in (source.pose_m, source.weight))
    return ViewSampler(pose_m, weight, config.views, config.seed)


def _load_poses(
    path: Path, without: Sequence[str], bvh_scale: float, max_bytes: int
) -> tuple[Float[np.ndarray, "n 17 3"], np.ndarray]:
    """Poses relative to the pelvis, and the subject of each."""
    if (path / PRIOR).is_file():
        # adults only: virtual views make children where the lengths are given; without, a tenth of them costs 2 mm
        return load_prior(path).sample(PRIOR_SAMPLES, children=0.0), np.full(PRIOR_SAMPLES, "prior")
    if path.is_dir():
        data = load_bvh_folder(path, bvh_scale, max_bytes)
    else:
        data = load_npz(path, ("positions", "seq_id", "seq_subject", "valid"), max_bytes)
    with naming(path):
        positions, subject, keep = _checked(data)
    keep &= ~np.isin(subject, list(without))
    check_metres(path, positions[keep])
    return (positions[keep] - positions[keep][:, :1]).astype(np.float32), subject[keep]


def _checked(data: dict[str, np.ndarray]) -> tuple[Float[np.ndarray, "n 17 3"], np.ndarray, Bool[np.ndarray, " n"]]:
    """Positions, the subject of each, and which of them are valid and finite."""
    positions = numbers(data, "positions", (None, 17, 3))
    seq_id, subjects = whole_numbers(data, "seq_id", (len(positions),)), texts(data, "seq_subject", (None,))
    if len(seq_id) and not 0 <= seq_id.min() <= seq_id.max() < len(subjects):
        raise InputError(f"seq_id must lie in 0..{len(subjects) - 1}, the places in seq_subject")
    valid = data["valid"]
    if valid.dtype != bool:
        raise InputError(f"valid must hold yes or no, got {valid.dtype}")
    if valid.shape != seq_id.shape:
        raise InputError(f"valid must be {shape_text(seq_id)}, got {shape_text(valid)}")
    return positions, subjects[seq_id], valid & np.isfinite(positions).all((1, 2))
