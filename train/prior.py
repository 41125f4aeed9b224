"""The pose prior: people to learn from without a data set, learnt once from free motion capture and shipped.

Bone directions come from a mixture of small Gaussians, gravity-aligned, so that lying, crawling and upside-down poses
keep their orientation; bone lengths come apart from them, from a population of adults and children. A simple model that
wins: its samples are as near to poses of unseen clips as real poses of the other clips are (docs/experiments.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.bundle import Bundle, load_bundle, write_manifest
from poseda_deploy.calibrate import unit
from poseda_deploy.npz import load_npz
from poseda_deploy.skeleton import JOINT_FROM_BONE, LENGTH_FROM_GROUP
from poseda_deploy.swap import replaced

PRIOR, PICTURE = "prior.npz", "samples.png"
CHUNK = 8192
CHILDREN = 0.1
CHILD_STATURE = (0.6, 0.95)
"""Of an adult's."""
# A bone of a child of stature s is s**growth of an adult's. Sitting height falls from 0.555 of stature at five years to
# 0.52 (Fredriks et al. 2005): legs grow most, the head least. Order of BONE_GROUPS.
GROWTH = (1.0, 1.15, 1.15, 0.9, 0.9, 0.6, 0.95, 1.05, 1.05)


@dataclass(frozen=True)
class PosePrior:
    """Mixture of k Gaussians over the 16 bone directions of a person who faces along z, y up; and log bone lengths."""

    weight: Float[np.ndarray, " k"]
    """How often each component is drawn; rare postures are as well served as in balanced source poses."""
    centre: Float[np.ndarray, "k 48"]
    spread: Float[np.ndarray, "k rank 48"]
    """Directions of largest scatter, as long as one standard deviation."""
    rest: Float[np.ndarray, " k"]
    """Standard deviation of what is left, per coordinate."""
    log_length_mean: Float[np.ndarray, "9"]
    """Of adults' bone lengths in metres, order of BONE_GROUPS."""
    log_length_spread: Float[np.ndarray, "9 9"]
    """Its rows times independent normal numbers give a person's deviation from the mean."""

    def sample(self, n: int, seed: int = 0, children: float = CHILDREN) -> Float[np.ndarray, "n 17 3"]:
        """n poses of as many people, relative to the pelvis, metres, y up, facing along z; a share are children."""
        random = np.random.default_rng(seed)
        component = random.choice(len(self.weight), n, p=self.weight / self.weight.sum())
        pose_m = np.empty((n, 17, 3), np.float32)
        for start in range(0, n, CHUNK):
            rows = slice(start, min(start + CHUNK, n))
            length_m = self.sample_lengths_m(len(component[rows]), random, children)
            bone_m = self._directions(component[rows], random) * (length_m @ LENGTH_FROM_GROUP.T)[..., None]
            pose_m[rows] = JOINT_FROM_BONE @ bone_m
        return pose_m

    def _directions(self, component: np.ndarray, random: np.random.Generator) -> Float[np.ndarray, "n 16 3"]:
        along = random.standard_normal((len(component), 1, self.spread.shape[1]), np.float32)
        rest = random.standard_normal((len(component), 48), np.float32) * self.rest[component, None]
        bone = self.centre[component] + (along @ self.spread[component])[:, 0] + rest
        return unit(bone.reshape(-1, 16, 3))

    def sample_lengths_m(self, n: int, random: np.random.Generator, children: float) -> Float[np.ndarray, "n 9"]:
        """Bone lengths of n people in the order of BONE_GROUPS."""
        adult = np.exp(self.log_length_mean + random.standard_normal((n, 9), np.float32) @ self.log_length_spread)
        stature = np.where(random.random((n, 1)) < children, random.uniform(*CHILD_STATURE, (n, 1)), 1.0)
        return (adult * stature ** np.array(GROWTH)).astype(np.float32)


def save_prior(
    prior: PosePrior,
    folder: Path,
    *,
    overwrite: bool = False,
    config: Mapping[str, Any],
    report: Mapping[str, Any],
    picture: bytes,
) -> Bundle:
    """Half-precision arrays, a picture of samples, and a manifest with their hashes."""
    arrays = {field.name: getattr(prior, field.name).astype(np.float16) for field in fields(prior)}
    with replaced(folder, overwrite=overwrite) as new:
        np.savez_compressed(new / PRIOR, **arrays)
        (new / PICTURE).write_bytes(picture)
        write_manifest(new, (PRIOR, PICTURE), name="prior", config=config, report=report)
    return load_bundle(folder)


def load_prior(folder: Path) -> PosePrior:
    """Read a prior whose hash the manifest confirms."""
    names = [field.name for field in fields(PosePrior)]
    arrays = load_npz(load_bundle(folder).file(PRIOR), required=names)
    return PosePrior(*(arrays[name].astype(np.float32) for name in names))


def default_prior_path() -> Path:
    """The prior that ships with the package."""
    return Path(str(files("poseda_deploy.models"))) / "prior"
