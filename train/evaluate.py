"""Measuring against truth: protocols by name, what lifts (a bundle, a foreign ONNX, a poses file), the report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from poseda_deploy import metrics
from poseda_deploy.backend import Backend, open_foreign_onnx, with_camera
from poseda_deploy.bundle import Bundle
from poseda_deploy.calibrate import MIN_JOINTS, Calibration, Known, Lift, calibrate, tiled, unit
from poseda_deploy.errors import InputError
from poseda_deploy.files import require_file
from poseda_deploy.poses import Poses3D
from poseda_deploy.sides import with_sides_put_back
from poseda_deploy.skeleton import BONE_GROUPS, H36M17, to_h36m17

from .truth import Annotation, Truth, View

BATCH = 256
PELVIS = H36M17.index("pelvis")
Advance = Callable[[int], None]

_LIMBS = tuple(
    f"{side}_{joint}" for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist") for side in ("left", "right")
)
_NO_NECK = tuple(joint for joint in H36M17.joints if joint != "neck")


@dataclass(frozen=True)
class Rules:
    """A protocol: which joints and frames count."""

    joints: tuple[str, ...]
    """Of all errors."""
    hit_joints: tuple[str, ...]
    """Of PCK and AUC."""
    annotation: Annotation | None = None
    """The MPI-INF-3DHP annotation that it is defined on; None = any truth."""
    inside_only: bool = False
    """Only frames with every joint inside the image."""


PROTOCOLS = {
    "h36m17": Rules(H36M17.joints, H36M17.joints),
    "h36m16": Rules(_NO_NECK, _NO_NECK),
    "limbs12": Rules(_LIMBS, _LIMBS),
    # PoseAug and its family: 2929 frames, the root counts, bodies rescaled to a common height
    "3dhp-2929": Rules(_NO_NECK, _NO_NECK, "univ_annot3", inside_only=True),
    # P-STMO and D3DP: metric bodies, all valid frames; the 14 are the limbs, neck (our thorax) and head top (our head)
    "3dhp-official": Rules(H36M17.joints, (*_LIMBS, "thorax", "head"), "annot3"),
}


@dataclass(frozen=True)
class Prediction:
    """What was lifted of one view, row by row; NaN where nothing was."""

    pose_m: Float[np.ndarray, "t 17 3"]
    """In camera axes; relative to the pelvis, or to anything."""
    root_m: Float[np.ndarray, "t 3"]
    """Pelvis in camera axes."""
    calibration: Mapping[str, object] = field(default_factory=dict)
    """What was assumed of camera and person."""


@runtime_checkable  # so that shape checks in tests can look at it
class ViewLifter(Protocol):
    """Anything that gives poses for a view."""

    def facts(self) -> Mapping[str, object]:
        """What it is, for the report."""
        ...

    def lift(self, view: View, advance: Advance) -> Prediction:
        """All frames of the view; calls advance(n) for every n frames done."""
        ...


@dataclass(frozen=True)
class BundleLifter:
    """Our own lifter, calibrated from the view's 2D exactly as poseda-run does it for one person."""

    bundle: Bundle
    backend: Backend
    calibrates: bool = True
    """False: what the bundle does not know stays unknown."""

    def facts(self) -> Mapping[str, object]:
        """Bundle and provider; the mirror image is averaged inside the ONNX file."""
        flip = "inside the lifter"
        return {"bundle": str(self.bundle.path), "provider": self.backend.provider, "flip_averaging": flip}

    def lift(self, view: View, advance: Advance) -> Prediction:
        """Calibrate on all frames, then lift those with MIN_JOINTS joints."""
        inputs = view.keypoints.model_input(view.camera)[:, :1]
        nobody = (inputs[..., 2] > 0).sum(-1) < MIN_JOINTS
        keypoints = with_sides_put_back(inputs, view.keypoints.time_s, -1 * nobody)[:, 0]
        lift = with_camera(self.backend, view.camera)
        scene = self._scene(lift, keypoints)
        pose_m, root_m = _nothing(len(keypoints))
        present = np.flatnonzero((keypoints[..., 2] > 0).sum(1) >= MIN_JOINTS)
        for rows in _batches(present):
            some = keypoints[rows]
            pose_m[rows], root_m[rows] = lift(some, tiled(scene.up, some), tiled(scene.bones_m, some))
            advance(len(rows))
        advance(len(keypoints) - len(present))
        return Prediction(pose_m, root_m, _calibration_facts(scene, self.bundle.manifest.known))

    def _scene(self, lift: Lift, keypoints: Float[np.ndarray, "t 17 3"]) -> Calibration:
        known = self.bundle.manifest.known
        if self.calibrates:
            return calibrate(lift, keypoints, known)
        return Calibration(np.zeros(3, np.float32) if known.up is None else known.up, np.zeros(9, np.float32), 0.0, 0)


def _calibration_facts(scene: Calibration, known: Known) -> dict[str, object]:
    estimated = f"estimated from {scene.frames} frames of this view" if scene.frames else "nothing: left unknown"
    return {
        "up": np.round(unit(scene.up).astype(float), 4).tolist(),
        "up_from": "bundle" if known.up is not None else f"{estimated}, scatter {scene.up_spread_deg:.1f} degrees",
        "bones_m": dict(zip(BONE_GROUPS, np.round(scene.bones_m.astype(float), 3).tolist(), strict=True)),
        "bones_from": estimated,
    }


PEER_JOINTS = _NO_NECK
"""The 16 joints of the PoseAug family: H36M17 in its order, less the neck."""


@dataclass(frozen=True)
class PeerLifter:
    """A foreign 16-joint lifter: screen coordinates (N,16,2) in, metres (N,16,3) out; knows no camera."""

    path: Path
    session: Any
    batch: int
    """Rows that it takes at once."""
    flip: bool
    """Average with the mirrored image, as its family does on MPI-INF-3DHP."""

    def facts(self) -> Mapping[str, object]:
        """File and provider."""
        flip = "yes" if self.flip else "no"
        return {"peer_onnx": self.path.name, "provider": self.session.get_providers()[0], "flip_averaging": flip}

    def lift(self, view: View, advance: Advance) -> Prediction:
        """Frames with all 16 joints; others have no pose."""
        order = [H36M17.index(joint) for joint in PEER_JOINTS]
        points = view.keypoints
        xy_px, score = to_h36m17(points.xy_px[:, 0], points.score[:, 0], points.skeleton)
        width, height = points.size_wh
        screen = (xy_px[:, order] * (2 / width) - (1, height / width)).astype(np.float32)
        pose_m, root_m = _nothing(len(screen))
        present = np.flatnonzero((score[:, order] > 0).all(1))
        for rows in _batches(present, self.batch):
            pose_m[rows[:, None], order] = self._lift(screen[rows])
            advance(len(rows))
        advance(len(screen) - len(present))
        return Prediction(pose_m, root_m, {"from": "none: it takes no camera"})

    def _lift(self, screen: Float[np.ndarray, "n 16 2"]) -> Float[np.ndarray, "n 16 3"]:
        pose_m = self._run(screen)
        if not self.flip:
            return pose_m
        mirror = [PEER_JOINTS.index(H36M17.joints[H36M17.mirror[H36M17.index(joint)]]) for joint in PEER_JOINTS]
        flipped_m = self._run(screen[:, mirror] * np.array((-1, 1), np.float32))
        return (pose_m + flipped_m[:, mirror] * np.array((-1, 1, 1), np.float32)) / 2

    def _run(self, screen: Float[np.ndarray, "n 16 2"]) -> Float[np.ndarray, "n 16 3"]:
        (pose_m, *_) = self.session.run(None, {self.session.get_inputs()[0].name: screen})
        if np.shape(pose_m) != (len(screen), 16, 3):
            raise InputError(f"{self.path}: gives {np.shape(pose_m)}, expected (N,16,3)", hint="export it so")
        return np.asarray(pose_m, np.float32)


def open_peer(path: Path, *, flip: bool) -> PeerLifter:
    """A foreign lifter on the CPU; refuses one with other inputs."""
    session = open_foreign_onnx(require_file(path, "ONNX file"))
    shapes = [tuple(given.shape) for given in session.get_inputs()]
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][1:] != (16, 2):
        raise InputError(
            f"{path}: has inputs {shapes}, expected one of (N,16,2)", hint="joints in the order of PoseAug"
        )
    rows = shapes[0][0]
    return PeerLifter(path, session, rows if isinstance(rows, int) else BATCH, flip)


@dataclass(frozen=True)
class PosesFile:
    """Poses that were lifted before, of one view; only the first person of a frame counts."""

    path: Path
    poses: Poses3D

    def facts(self) -> Mapping[str, object]:
        """The file; it does not say what it was lifted from."""
        unknown = "not said by the poses file"
        return {"poses": self.path.name, "points": unknown, "provider": unknown, "flip_averaging": unknown}

    def lift(self, view: View, advance: Advance) -> Prediction:
        """Rows matched by frame number."""
        frame, first = np.unique(self.poses.frame, return_index=True)
        _, row, of_frame = np.intersect1d(view.frame, frame, return_indices=True)
        pose_m, root_m = _nothing(len(view.frame))
        pose_m[row], root_m[row] = self.poses.pose_m[first[of_frame]], self.poses.root_m[first[of_frame]]
        advance(len(view.frame))
        return Prediction(pose_m, root_m, {"from": "not said by the poses file"})


def _nothing(frames: int) -> tuple[Float[np.ndarray, "t 17 3"], Float[np.ndarray, "t 3"]]:
    return np.full((frames, 17, 3), np.nan, np.float32), np.full((frames, 3), np.nan, np.float32)


def _batches(rows: Int[np.ndarray, " n"], size: int = BATCH) -> list[Int[np.ndarray, " m"]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@dataclass(frozen=True)
class Column:
    """One metric in many rows (frames, steps or sequences); its mean is the figure."""

    value: Float[np.ndarray, " m"]
    view: Int[np.ndarray, " m"]
    sequence: Int[np.ndarray, " m"]

    def where(self, rows: Bool[np.ndarray, " m"]) -> "Column":
        """Some of the rows."""
        return Column(self.value[rows], self.view[rows], self.sequence[rows])


@dataclass(frozen=True)
class Scores:
    """Of one view or of all."""

    columns: Mapping[str, Column]
    joint_mm: Float[np.ndarray, "n j"]
    due: int
    """Frames that should have a pose."""


def score_view(view: View, prediction: Prediction, rules: Rules, number: int, every: int) -> Scores:
    """All metrics of one view; a frame counts where the pelvis and every joint of the protocol are known and lifted."""
    joints = [H36M17.index(joint) for joint in rules.joints]
    needed = sorted({PELVIS, *joints})
    due = np.isfinite(view.true_m[:, needed]).all((1, 2))
    rows = np.flatnonzero(due & np.isfinite(prediction.pose_m[:, needed]).all((1, 2)))
    pose_m, root_m = prediction.pose_m[rows].astype(np.float64), prediction.root_m[rows]
    sequence, frame = view.sequence[rows], view.frame[rows]
    lifted_m, true_m = metrics.root_relative(pose_m)[:, joints], metrics.root_relative(view.true_m[rows])[:, joints]
    joint_mm = metrics.mpjpe_mm(lifted_m, true_m)
    hits_mm = joint_mm[:, [rules.joints.index(joint) for joint in rules.hit_joints]]
    frames = {
        "mpjpe_mm": joint_mm,
        "p_mpjpe_mm": metrics.p_mpjpe_mm(lifted_m, true_m),
        "n_mpjpe_mm": metrics.n_mpjpe_mm(lifted_m, true_m),
        "pck150_percent": metrics.pck_percent(hits_mm),
        "auc_percent": metrics.auc_percent(hits_mm),
    }
    if "pelvis" in rules.joints:
        frames["mpjpe_without_root_mm"] = metrics.without_joint(joint_mm, rules.joints.index("pelvis"))
    if np.isfinite(root_m).all() and len(rows):
        frames["root_error_mm"] = metrics.root_error_mm(root_m, view.true_m[rows, PELVIS])[:, None]
    columns = {name: _column(error.mean(1), number, sequence) for name, error in frames.items()}
    run = np.cumsum(np.r_[0, (np.diff(frame) != every) | (np.diff(sequence) != 0)])[: len(rows)]
    step_mm = metrics.velocity_error_mm(lifted_m, true_m, run).mean(1)
    columns["velocity_mm_per_frame"] = _column(step_mm, number, sequence[1:][np.diff(run) == 0])
    columns["bone_drift_mm"] = _drift(pose_m, number, sequence)
    return Scores(columns, joint_mm, int(due.sum()))


def _column(value: Float[np.ndarray, " m"], view: int, sequence: Int[np.ndarray, " m"]) -> Column:
    return Column(value, np.full(len(value), view), sequence)


def _drift(pose_m: Float[np.ndarray, "n 17 3"], view: int, sequence: Int[np.ndarray, " n"]) -> Column:
    """One row for each sequence of two frames or more, whose people may differ."""
    found, count = np.unique(sequence, return_counts=True)
    found = found[count > 1]
    drift_mm = np.array([metrics.bone_drift_mm(pose_m[sequence == one]).mean() for one in found], np.float64)
    return _column(drift_mm, view, found)


def joined(scores: list[Scores]) -> Scores:
    """Several views as one; a metric that a view lacks has the rows of the others."""
    names = dict.fromkeys(name for one in scores for name in one.columns)
    columns = {name: _stacked([one.columns[name] for one in scores if name in one.columns]) for name in names}
    return Scores(columns, np.concatenate([one.joint_mm for one in scores]), sum(one.due for one in scores))


def _stacked(columns: list[Column]) -> Column:
    value, view, sequence = ([getattr(column, key) for column in columns] for key in ("value", "view", "sequence"))
    return Column(np.concatenate(value), np.concatenate(view), np.concatenate(sequence))


def evaluate(truth: Truth, lifter: ViewLifter, protocol: str, advance: Advance) -> dict[str, Any]:
    """Lift every view and score it; the report as one JSON-able mapping."""
    rules = PROTOCOLS[protocol]
    predictions = [lifter.lift(view, advance) for view in truth.views]
    parts = [
        score_view(view, prediction, rules, number, truth.every)
        for number, (view, prediction) in enumerate(zip(truth.views, predictions, strict=True))
    ]
    scores = joined(parts)
    frames = len(scores.joint_mm)
    if not frames:
        raise InputError(
            f"no frame of {truth.name} has both a pose and a truth for all joints of {protocol}",
            hint="another --points, --reference or --protocol: h36m16 needs no neck",
        )
    return {
        "truth": truth.name,
        "reference": truth.reference,
        "protocol": {"name": protocol, "joints": len(rules.joints), "pck_and_auc_joints": len(rules.hit_joints)},
        "points": truth.points.summary(),
        **lifter.facts(),
        "frames": frames,
        "every": truth.every,
        "frames_missing": scores.due - frames,
        "parts_missing": list(truth.missing),
        "overall": {name: _with_interval(column) for name, column in scores.columns.items() if len(column.value)},
        "interval": _interval_kind(scores.columns["mpjpe_mm"]),
        "joints_mm": dict(zip(rules.joints, np.round(scores.joint_mm.mean(0), 3).tolist(), strict=True)),
        "cameras": {view.name: _means(part.columns) for view, part in zip(truth.views, parts, strict=True)},
        "sequences": {
            name: figures
            for i, name in enumerate(truth.sequences)
            if (figures := _means({k: c.where(c.sequence == i) for k, c in scores.columns.items()}))["frames"]
        },
        "calibration": {view.name: p.calibration for view, p in zip(truth.views, predictions, strict=True)},
    }


def _means(columns: Mapping[str, Column]) -> dict[str, int | float]:
    figures = {name: round(float(c.value.mean()), 3) for name, c in columns.items() if len(c.value)}
    return {"frames": len(columns["mpjpe_mm"].value), **figures}


def _with_interval(column: Column) -> dict[str, float]:
    low, high = metrics.bootstrap_interval(column.value, column.sequence)
    figures = {"mean": float(column.value.mean()), "low": low, "high": high}
    return {name: round(figure, 3) for name, figure in figures.items() if np.isfinite(figure)}


def _interval_kind(column: Column) -> str:
    count = len(np.unique(column.sequence))
    return f"95 %, {count} sequences drawn again" if count > 1 else "none: one sequence only"
