"""What lifted poses are measured against: each camera's 2D beside the true joints in its own axes.

Read from a calibrated target file of this project, or from the MPI-INF-3DHP test set as it is distributed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from poseda_deploy.camera import LARGEST_SIDE_PX, Camera
from poseda_deploy.errors import InputError, MissingDependency
from poseda_deploy.files import require_file
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.npz import MAX_BYTES, load_npz, naming, numbers, texts, whole_numbers
from poseda_deploy.skeleton import H36M17, MEDIAPIPE33

from .units import FARTHEST_M

Annotation = Literal["annot3", "univ_annot3"]

_TARGET_SHAPES = {"K": (3, 3), "R": (3, 3), "T": (3,), "image_size": (2,)}  # behind the axis of cameras
_TARGET_POINTS = ("keypoints_2d", "keypoints_2d_det", "mediapipe33_px")
_SKELETON_OF_SIZE = {17: H36M17, 33: MEDIAPIPE33}

PARTS = tuple(f"TS{i}" for i in range(1, 7))
_PART_SIZE_WH = dict.fromkeys(PARTS, (2048, 2048)) | dict.fromkeys(("TS5", "TS6"), (1920, 1080))
# Their names and the nearest joint of ours, in their order. Their "head" lies between neck and head top, as our neck.
_MPI_JOINTS = (
    *(("head_top", "head"), ("neck", "thorax")),
    *(("right_shoulder", "right_shoulder"), ("right_elbow", "right_elbow"), ("right_wrist", "right_wrist")),
    *(("left_shoulder", "left_shoulder"), ("left_elbow", "left_elbow"), ("left_wrist", "left_wrist")),
    *(("right_hip", "right_hip"), ("right_knee", "right_knee"), ("right_ankle", "right_ankle")),
    *(("left_hip", "left_hip"), ("left_knee", "left_knee"), ("left_ankle", "left_ankle")),
    *(("pelvis", "pelvis"), ("spine", "spine"), ("head", "neck")),
)
_MPI_ORDER = [[ours for _, ours in _MPI_JOINTS].index(joint) for joint in H36M17.joints]
MOST_SEQUENCES = 100_000  # where the file has no names of them
_MPI_FIT_LIMIT_PX = 5.0  # the six parts fit to 0.2 to 0.6 px; univ_annot3 in the place of annot3 gives 4.9


@dataclass(frozen=True)
class Points:
    """Which 2D the lifter is given, and how good it is."""

    name: str
    detected: bool
    """By a detector, with scores; else exact."""
    noise_share: float = 0.0
    """Standard deviation of the noise added to each coordinate, as a share of the longer side of the person's box."""
    seed: int = 0

    def summary(self) -> dict[str, object]:
        """For the report."""
        noise = f"sigma {self.noise_share:g} of the person's box, seed {self.seed}" if self.noise_share else "none"
        return {"from": self.name, "kind": "detected" if self.detected else "exact", "noise_added": noise}


@dataclass(frozen=True)
class View:
    """One camera's 2D of one person and the truth behind it, T frames."""

    name: str
    camera: Camera
    keypoints: Keypoints2D
    """Pixels of the original image; one person slot."""
    true_m: Float[np.ndarray, "t 17 3"]
    """Joints in camera axes, absolute; NaN where unknown."""
    sequence: Int[np.ndarray, " t"]
    """Index into Truth.sequences."""
    frame: Int[np.ndarray, " t"]
    """Number in the original film, for finding neighbours and matching poses files."""
    fps: float | None = None
    """Of the original film, where the source says it."""


@dataclass(frozen=True)
class Truth:
    """Everything that is scored together."""

    name: str
    views: tuple[View, ...]
    sequences: tuple[str, ...]
    points: Points
    reference: str
    every: int = 1
    """Distance of neighbouring frames in the original film."""
    missing: tuple[str, ...] = ()
    """Parts that were not there, and why."""

    @property
    def frames(self) -> int:
        """Over all views."""
        return sum(len(view.frame) for view in self.views)


def read_target(
    path: Path,
    points: str | None = None,
    reference: str = "positions_world",
    cameras: Sequence[int] = (),
    every: int = 1,
    max_bytes: int = MAX_BYTES,
) -> Truth:
    """A calibrated target file: positions_world (T,17,3) m, x_cam = R x_world + T, and points (T,C,J,2) pixels.

    `points` defaults to the exact ones where the file has them, else to the detector's. Cameras count from 1.
    """
    data = load_npz(path, (*_TARGET_SHAPES, reference), max_bytes)
    found = [key for key in _TARGET_POINTS if key in data]
    name = points or (found[0] if found else "keypoints_2d")
    if name not in data:
        raise InputError(f"{path}: has no points {name!r}", hint=f"--points {' or '.join(found) or 'NAME of an array'}")
    with naming(path):
        data |= {key: numbers(data, key) for key in (reference, name, *_TARGET_SHAPES)}
    _check_target(data, path, name, reference)
    with naming(path):
        _check_extras(data, name, reference)
    chosen = _chosen(cameras, len(data["K"]), path)
    score, (sequence, sequences) = _scores(data, name), _sequences(data, path, reference)
    with naming(path):
        views = tuple(_target_view(data, path, name, score, reference, sequence, camera, every) for camera in chosen)
    return Truth(path.name, views, sequences, Points(name, score is not None), reference, every)


def _check_target(data: dict[str, np.ndarray], path: Path, points: str, reference: str) -> None:
    true_shape, points_shape = data[reference].shape, data[points].shape
    if true_shape[1:] != (17, 3):
        raise InputError(f"{path}: {reference} must be (T,17,3) metres, got {true_shape}", hint="another --reference?")
    if len(points_shape) != 4 or points_shape[2] not in _SKELETON_OF_SIZE or points_shape[3] not in (2, 3):
        raise InputError(f"{path}: {points} must be (T,C,17,2) or (T,C,33,3), got {points_shape}")
    frames, count = points_shape[:2]
    if frames != true_shape[0]:
        raise InputError(f"{path}: {points} has {frames} frames, {reference} {true_shape[0]}")
    for key, shape in _TARGET_SHAPES.items():
        if data[key].shape != (count, *shape):
            raise InputError(f"{path}: {key} must be {(count, *shape)} for {count} cameras, got {data[key].shape}")


def _check_extras(data: dict[str, np.ndarray], points: str, reference: str) -> None:
    """What a target may have besides, and what its numbers must be."""
    frames, count = data[points].shape[:2]
    if not (np.isfinite(data["R"]).all() and np.isfinite(data["T"]).all()):
        raise InputError("R and T must be finite")
    for key in ("R", "T", reference, points):
        far = np.abs(data[key]) > FARTHEST_M
        if (far & np.isfinite(data[key])).any() if key == points else far.any():  # a missing point may be infinite
            raise InputError(f"{key} must lie within {FARTHEST_M:g} of 0")
    if not ((data["image_size"] >= 2) & (data["image_size"] <= LARGEST_SIDE_PX)).all():
        raise InputError("image_size must be (width, height) in pixels for each camera")
    if "dist" in data:
        numbers(data, "dist", (count, None))
    if (confidence := _confidence(points)) in data:
        data[confidence] = numbers(data, confidence, data[points].shape[:3], np.float32)
    if "cam_name" in data:
        texts(data, "cam_name", (count,))
    if "seq_id" in data:
        _check_sequences(data, frames)
    if "fps" in data and (numbers(data, "fps").size != 1 or not 0 < data["fps"].item() < np.inf):
        raise InputError("fps must be above 0, one number")


def _check_sequences(data: dict[str, np.ndarray], frames: int) -> None:
    ids = whole_numbers(data, "seq_id", (None,))
    if len(ids) != frames:
        raise InputError(f"seq_id has {len(ids)} frames, the points {frames}")
    most = len(texts(data, "seq_name", (None,))) if "seq_name" in data else MOST_SEQUENCES
    if len(ids) and not 0 <= ids.min() <= ids.max() < most:
        raise InputError(f"seq_id must lie in 0..{most - 1}")


def _confidence(points: str) -> str:
    return points.removesuffix("_det") + "_conf"


def _chosen(cameras: Sequence[int], count: int, path: Path) -> list[int]:
    """Indices from 0 of cameras that count from 1; none given = all."""
    wrong = [camera for camera in cameras if not 1 <= camera <= count]
    if wrong:
        raise InputError(f"{path}: no camera {wrong[0]}", hint=f"--camera counts from 1 to {count}")
    return [camera - 1 for camera in cameras] or list(range(count))


def _scores(data: dict[str, np.ndarray], points: str) -> np.ndarray | None:
    """(T,C,J) of a detector; None for exact points."""
    if data[points].shape[-1] == 3:
        return data[points][..., 2]
    return data.get(_confidence(points)) if points.endswith("_det") else None


def _sequences(
    data: dict[str, np.ndarray], path: Path, reference: str
) -> tuple[Int[np.ndarray, " t"], tuple[str, ...]]:
    """Sequence of each frame, and their names; one for all where the file does not tell them apart."""
    if "seq_id" not in data:
        return np.zeros(len(data[reference]), int), (path.stem,)
    ids = data["seq_id"].astype(int)
    names = tuple(str(name) for name in data["seq_name"]) if "seq_name" in data else ()
    return ids, names or tuple(f"sequence {i}" for i in range(ids.max(initial=-1) + 1))


def _target_view(
    data: dict[str, np.ndarray],
    path: Path,
    points: str,
    score: np.ndarray | None,
    reference: str,
    sequence: Int[np.ndarray, " t"],
    index: int,
    every: int,
) -> View:
    xy_px = data[points][::every, index, :, :2].astype(np.float32)
    seen = np.ones(xy_px.shape[:2]) if score is None else score[::every, index]
    seen = np.where(np.isfinite(xy_px).all(-1) & np.isfinite(seen), seen, 0).astype(np.float32)
    size_wh = (int(data["image_size"][index][0]), int(data["image_size"][index][1]))
    distortion = data["dist"][index] if "dist" in data else None
    camera = Camera.from_matrix(data["K"][index], size_wh, distortion, f"K of {path.name}")
    world_m = data[reference].astype(np.float64)
    frame = np.arange(len(world_m))[::every]
    fps = float(data["fps"].item()) if "fps" in data else None
    skeleton = _SKELETON_OF_SIZE[xy_px.shape[1]]
    return View(
        name=str(data["cam_name"][index]) if "cam_name" in data else f"camera {index + 1}",
        camera=camera,
        keypoints=Keypoints2D(xy_px[:, None], seen[:, None], size_wh, skeleton, _times(frame, fps), camera),
        true_m=(world_m @ data["R"][index].T + data["T"][index])[::every],
        sequence=sequence[::every],
        frame=frame,
        fps=fps,
    )


def _times(frame: Int[np.ndarray, " t"], fps: float | None) -> Float[np.ndarray, " t"]:
    """Only their order matters here, so an unknown rate does no harm."""
    return frame / (fps or 30.0)


def read_mpi_inf_3dhp(
    folder: Path,
    annotation: Annotation = "annot3",
    parts: Sequence[int] = (),
    every: int = 1,
    *,
    inside_only: bool = False,
) -> Truth:
    """The test set: folders TS1..TS6 with annot_data.mat; valid frames, or only those with all joints in the image.

    Parts that are not there are named in the result.
    """
    if not folder.is_dir():
        raise InputError(f"MPI-INF-3DHP folder not found: {folder}", hint="the one that holds TS1 to TS6")
    names = [PARTS[i] for i in _chosen(parts, len(PARTS), folder)]
    there = [name for name in names if (folder / name / "annot_data.mat").is_file()]
    if not there:
        raise InputError(
            f"{folder}: holds none of {', '.join(f'{name}/annot_data.mat' for name in names)}",
            hint="name the folder mpi_inf_3dhp_test_set, unpacked",
        )
    views = tuple(_mpi_view(folder / name / "annot_data.mat", name, annotation, every, inside_only) for name in there)
    missing = tuple(f"{name}: no {name}/annot_data.mat" for name in names if name not in there)
    return Truth(folder.name, views, PARTS, Points("annot2", False), annotation, every, missing)


def _mpi_view(path: Path, name: str, annotation: Annotation, every: int, inside_only: bool) -> View:
    arrays = _read_mat(path, ("annot2", "annot3", annotation, "valid_frame"))
    xy_px, xyz_m = _joints_last(arrays["annot2"], 2, path), _joints_last(arrays["annot3"], 3, path) / 1000
    true_m = _joints_last(arrays[annotation], 3, path) / 1000
    valid = np.flatnonzero(arrays["valid_frame"].ravel() > 0)
    if not len(xy_px) == len(xyz_m) == len(true_m) == arrays["valid_frame"].size:
        raise InputError(f"{path}: annot2, {annotation} and valid_frame have different numbers of frames")
    if not len(valid):
        raise InputError(f"{path}: no frame is valid", hint="valid_frame must be 1 where a frame counts")
    camera = _pinhole_fit(xyz_m[valid], xy_px[valid], _PART_SIZE_WH[name], path)
    inside = ((xy_px[valid] >= 0) & (xy_px[valid] < camera.size_wh)).all((1, 2))
    frame = (valid[inside] if inside_only else valid)[::every]
    if not len(frame):
        raise InputError(f"{path}: no valid frame has all joints inside the image")
    ones = np.ones((len(frame), 1, 17), np.float32)
    points = xy_px[frame][:, None, _MPI_ORDER].astype(np.float32)
    return View(
        name=name,
        camera=camera,
        keypoints=Keypoints2D(points, ones, camera.size_wh, H36M17, _times(frame, None), camera),
        true_m=true_m[frame][:, _MPI_ORDER],
        sequence=np.full(len(frame), PARTS.index(name)),
        frame=frame,
    )


def _read_mat(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of a MATLAB 7.3 file, which is HDF5."""
    try:
        import h5py
    except ImportError as error:
        raise MissingDependency("h5py is not installed", hint="pip install 'poseda-deploy[train]'") from error
    try:
        with h5py.File(require_file(path, "annotation"), "r") as archive:
            missing = [name for name in names if name not in archive]
            if missing:
                raise InputError(f"{path}: lacks {', '.join(missing)}; it holds {', '.join(archive) or 'nothing'}")
            return {name: np.asarray(archive[name], np.float64) for name in names}
    except (OSError, TypeError) as error:
        raise InputError(f"{path}: not a readable MATLAB 7.3 file ({error})", hint="download it again") from error


def _joints_last(array: np.ndarray, axes: int, path: Path) -> Float[np.ndarray, "f 17 k"]:
    """(F,17,axes) from (F,1,17,axes), or from MATLAB's own order (axes,17,1,F), where a converter kept it."""
    if array.shape[-2:] != (17, axes) and array.shape[:2] == (axes, 17):
        array = array.transpose()
    if array.shape[1:] not in ((1, 17, axes), (17, axes)):
        raise InputError(f"{path}: expected (F,1,17,{axes}), got {array.shape}")
    return array.reshape(len(array), 17, axes)


def _pinhole_fit(
    xyz_m: Float[np.ndarray, "f 17 3"], xy_px: Float[np.ndarray, "f 17 2"], size_wh: tuple[int, int], path: Path
) -> Camera:
    """The test set has no intrinsics: least squares of u = f x/z + c for each axis, over all joints."""
    slope = (xyz_m[..., :2] / xyz_m[..., 2:]).reshape(-1, 2)
    pixels = xy_px.reshape(-1, 2)
    fits = [np.polyfit(slope[:, axis], pixels[:, axis], 1) for axis in (0, 1)]
    (fx, cx), (fy, cy) = ((float(f), float(c)) for f, c in fits)
    rms_px = float(np.sqrt(np.mean((slope * (fx, fy) + (cx, cy) - pixels) ** 2)))
    if not rms_px < _MPI_FIT_LIMIT_PX:
        raise InputError(
            f"{path}: annot3 does not project onto annot2: {rms_px:.1f} px off, limit {_MPI_FIT_LIMIT_PX:g}",
            hint="download it again",
        )
    return Camera(size_wh, (fx, fy), (cx, cy), (), f"pinhole fit of annot3 to annot2, rms {rms_px:.2f} px")


def with_noise(truth: Truth, share: float, seed: int) -> Truth:
    """Normal noise on every coordinate of the 2D, sigma a share of the longer side of the person's box in that frame.

    A camera has the same noise whether it is read alone or among others.
    """
    views = tuple(_noisy(view, share, np.random.default_rng([seed, *view.name.encode()])) for view in truth.views)
    return replace(truth, views=views, points=replace(truth.points, noise_share=share, seed=seed))


def _noisy(view: View, share: float, rng: np.random.Generator) -> View:
    xy_px, seen = view.keypoints.xy_px, view.keypoints.score[..., None] > 0
    anyone = seen.any(2, keepdims=True)
    high = np.where(seen, xy_px, -np.inf).max(2, keepdims=True)
    low = np.where(seen, xy_px, np.inf).min(2, keepdims=True)
    side_px = np.where(anyone, high - low, 0).max(-1, keepdims=True)
    moved = xy_px + share * side_px * rng.standard_normal(xy_px.shape)
    return replace(view, keypoints=replace(view.keypoints, xy_px=moved.astype(np.float32)))
