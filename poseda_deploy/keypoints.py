"""Keypoints2D: what a detector saw, and the .npz that carries it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from poseda_deploy.camera import LARGEST_SIDE_PX, Camera
from poseda_deploy.errors import InputError
from poseda_deploy.files import write_aside
from poseda_deploy.lens import lens_named
from poseda_deploy.npz import MAX_BYTES, load_npz, numbers, shape_text, texts
from poseda_deploy.skeleton import Skeleton, skeleton_named, to_h36m17

_REQUIRED = ("xy", "score", "image_size", "skeleton")
LARGEST_SCORE = 1.01
"""Of what is still taken for 1."""


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
                f"xy must be (T,{joints},2) or (T,P,{joints},2) for {self.skeleton.name}, got {shape_text(self.xy_px)}",
                hint=f"{self.skeleton.name} is: {' '.join(self.skeleton.joints)}",
            )
        if self.score.shape != self.xy_px.shape[:3]:
            raise InputError(
                f"score must be {shape_text(self.xy_px[..., 0])} to match xy, got {shape_text(self.score)}"
            )
        if self.time_s.shape != self.xy_px.shape[:1]:
            raise InputError(f"time_s must have {len(self.xy_px)} entries, one a frame, got {shape_text(self.time_s)}")
        if not len(self.xy_px):
            raise InputError("no frames", hint="expected at least one row in xy")
        object.__setattr__(self, "score", clipped_score(self.score))
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
        """The lifter's `keypoints` of every frame and person slot."""
        return model_input(self.xy_px, self.score, self.skeleton, camera)

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
            distortion, lens = np.array(self.camera.distortion), np.array(self.camera.lens)
            arrays |= {"K": self.camera.matrix, "dist": distortion, "lens": lens}
        with write_aside(path) as aside, aside.open("wb") as stream:  # to a name numpy would add .npz
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def clipped_score(score: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The same within 0..1: detectors' rounding goes a little beyond 1; what goes further is no score."""
    if not np.isfinite(score).all() or score.min(initial=0) < 0 or score.max(initial=0) > LARGEST_SCORE:
        raise InputError("score must lie in 0..1", hint="0 = missing; divide percentages by 100")
    return np.minimum(score, 1)


def model_input(
    xy_px: Float[np.ndarray, "*batch j 2"], score: Float[np.ndarray, "*batch j"], skeleton: Skeleton, camera: Camera
) -> Float[np.ndarray, "*batch 17 3"]:
    """The lifter's `keypoints`: undistorted pixels and score in H36M17 order; missing where the lens has no ray."""
    ideal_px = camera.undistorted(np.nan_to_num(xy_px))
    score = np.where(np.isfinite(ideal_px).all(-1), score, np.float32(0))
    ideal_px, score = to_h36m17(np.nan_to_num(ideal_px), score, skeleton)
    return np.concatenate([ideal_px, score[..., None]], -1)


def load_keypoints(path: str | Path, max_bytes: int = MAX_BYTES) -> Keypoints2D:
    """Read and check a Keypoints2D file; every complaint names the file. More than max_bytes of arrays are refused."""
    path = Path(path)
    data = load_npz(path, _REQUIRED, max_bytes)
    try:
        return _from_arrays(data, path)
    except InputError as error:
        raise type(error)(f"{path}: {error}", hint=error.hint) from error


def _from_arrays(data: dict[str, np.ndarray], path: Path) -> Keypoints2D:
    size_wh = _size(numbers(data, "image_size", (2,), np.float64))
    xy_px, score = numbers(data, "xy", dtype=np.float32), numbers(data, "score", dtype=np.float32)
    if xy_px.ndim == 3:
        xy_px, score = xy_px[:, None], score[:, None] if score.ndim == 2 else score
    camera = None
    if "K" in data:
        distortion = numbers(data, "dist") if "dist" in data else None
        lens = lens_named(str(texts(data, "lens", ()))) if "lens" in data else "brown-conrady"
        camera = Camera.from_matrix(numbers(data, "K", (3, 3)), size_wh, distortion, f"K of {path.name}", lens)
    skeleton = skeleton_named(str(texts(data, "skeleton", ())))
    frames = len(xy_px) if xy_px.ndim else 0
    return Keypoints2D(xy_px, score, size_wh, skeleton, _times(data, frames), camera)


def _size(size_wh: Float[np.ndarray, "2"]) -> tuple[int, int]:
    if not ((size_wh >= 2) & (size_wh <= LARGEST_SIDE_PX)).all():
        raise InputError(f"image_size must be (width, height) in pixels, got ({size_wh[0]:g}, {size_wh[1]:g})")
    return int(size_wh[0]), int(size_wh[1])


def _times(data: dict[str, np.ndarray], frames: int) -> Float[np.ndarray, " t"]:
    if "time_s" in data:
        return numbers(data, "time_s", (frames,), np.float64)
    if "fps" not in data:
        return np.arange(frames) / 30
    fps = numbers(data, "fps")
    if fps.size != 1 or not 0 < fps.item() < 1e6:
        got = f"{fps.item():g}" if fps.size == 1 else shape_text(fps)
        raise InputError(f"fps must be above 0, one number, got {got}")
    return np.arange(frames) / fps.item()
