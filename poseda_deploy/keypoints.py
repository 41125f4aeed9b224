"""Keypoints2D: what a detector saw, and the .npz that carries it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from poseda_deploy.camera import Camera
from poseda_deploy.errors import InputError
from poseda_deploy.files import load_npz, write_aside
from poseda_deploy.skeleton import Skeleton, skeleton_named, to_h36m17

_REQUIRED = ("xy", "score", "image_size", "skeleton")


@dataclass(frozen=True)
class Keypoints2D:
    """Detections of T frames and P person slots; checked when made."""

    xy_px: np.ndarray
    """(T,P,J,2) pixels of the original (distorted) image."""
    score: np.ndarray
    """(T,P,J) in [0, 1]; 0 = missing, and then xy_px means nothing."""
    size_wh: tuple[int, int]
    skeleton: Skeleton
    time_s: np.ndarray
    """(T,) strictly increasing."""
    camera: Camera | None = None
    """Intrinsics, where the file knows them."""

    def __post_init__(self) -> None:
        joints = len(self.skeleton.joints)
        if self.xy_px.ndim != 4 or self.xy_px.shape[2:] != (joints, 2):
            raise InputError(
                f"xy must be (T,{joints},2) or (T,P,{joints},2) for {self.skeleton.name}, got {_shape(self.xy_px)}",
                hint=f"{self.skeleton.name} is: {' '.join(self.skeleton.joints)}",
            )
        if self.score.shape != self.xy_px.shape[:3]:
            raise InputError(f"score must be {_shape(self.xy_px[..., 0])} to match xy, got {_shape(self.score)}")
        if self.time_s.shape != self.xy_px.shape[:1]:
            raise InputError(f"time_s must have {len(self.xy_px)} entries, one a frame, got {_shape(self.time_s)}")
        if not len(self.xy_px):
            raise InputError("no frames", hint="expected at least one row in xy")
        if not np.isfinite(self.score).all() or self.score.min() < 0 or self.score.max() > 1:
            raise InputError("score must lie in 0..1", hint="0 = missing; divide percentages by 100")
        if not np.isfinite(self.time_s).all() or (np.diff(self.time_s) <= 0).any():
            raise InputError("time_s must be finite and strictly increasing")
        self._check_finite()

    def _check_finite(self) -> None:
        bad = ~np.isfinite(self.xy_px).all(-1) & (self.score > 0)
        if bad.any():
            t, p, j = np.argwhere(bad)[0]
            joint = self.skeleton.joints[j]
            raise InputError(
                f"xy is not finite at frame {t}, person {p}, joint {joint} ({int(bad.sum())} such)",
                hint="set score 0 where a joint is missing",
            )

    def __len__(self) -> int:
        return len(self.xy_px)

    @property
    def people(self) -> int:
        """Person slots a frame."""
        return self.xy_px.shape[1]

    def model_input(self, camera: Camera) -> Float[np.ndarray, "t p 17 3"]:
        """The lifter's `keypoints`: undistorted pixels and score in H36M17 order."""
        xy_px, score = to_h36m17(camera.undistorted(np.nan_to_num(self.xy_px)), self.score, self.skeleton)
        return np.concatenate([xy_px, score[..., None]], -1)

    def save(self, path: Path) -> None:
        """Write the .npz of docs/conventions.md."""
        arrays = {
            "xy": self.xy_px.astype(np.float32),
            "score": self.score.astype(np.float32),
            "image_size": np.array(self.size_wh),
            "skeleton": np.array(self.skeleton.name),
            "time_s": self.time_s,
        }
        if self.camera is not None:
            arrays |= {"K": self.camera.matrix, "dist": np.array(self.camera.distortion)}
        with write_aside(path) as aside:
            np.savez_compressed(aside, **arrays)  # type: ignore[arg-type]


def load_keypoints(path: str | Path) -> Keypoints2D:
    """Read and check a Keypoints2D file; every complaint names the file."""
    path = Path(path)
    data = load_npz(path, _REQUIRED)
    try:
        return _from_arrays(data, path)
    except InputError as error:
        raise type(error)(f"{path}: {error}", hint=error.hint) from error


def _from_arrays(data: dict[str, np.ndarray], path: Path) -> Keypoints2D:
    for key in ("xy", "score", "image_size"):
        if data[key].dtype.kind not in "fiu":
            raise InputError(f"{key} must hold numbers, got {data[key].dtype}")
    if data["image_size"].shape != (2,):
        raise InputError(f"image_size must be (width, height), got {_shape(data['image_size'])}")
    size_wh = (int(data["image_size"][0]), int(data["image_size"][1]))
    if min(size_wh) < 2:
        raise InputError(f"image_size must be (width, height) in pixels, got {size_wh}")
    xy_px, score = data["xy"].astype(np.float32), data["score"].astype(np.float32)
    if xy_px.ndim == 3:
        xy_px, score = xy_px[:, None], score[:, None] if score.ndim == 2 else score
    camera = None
    if "K" in data:
        camera = Camera.from_matrix(data["K"], size_wh, data.get("dist"), f"K of {path.name}")
    skeleton = skeleton_named(str(data["skeleton"]))
    return Keypoints2D(xy_px, score, size_wh, skeleton, _times(data, len(xy_px)), camera)


def _times(data: dict[str, np.ndarray], frames: int) -> Float[np.ndarray, " t"]:
    if "time_s" in data:
        return data["time_s"].astype(np.float64)
    fps = float(data["fps"]) if "fps" in data and data["fps"].size == 1 else 30.0
    if not 0 < fps < 1e6:
        raise InputError(f"fps must be above 0, got {fps}")
    return np.arange(frames) / fps


def _shape(array: np.ndarray) -> str:
    return f"({','.join(map(str, array.shape))})"
