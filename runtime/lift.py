"""Keypoints of one camera in, metric people out: calibrate what is unknown, then lift every frame."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from poseda_deploy.backend import Backend, with_camera
from poseda_deploy.bundle import Manifest
from poseda_deploy.calibrate import MIN_JOINTS, Lift, calibrate, tiled, unit
from poseda_deploy.camera import Camera
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.poses import Poses3D
from poseda_deploy.skeleton import BONE_GROUPS

from .timing import StageClock


@dataclass(frozen=True)
class SceneCalibration:
    """Up of the camera and bone lengths of each person slot, and where they came from."""

    up: Float[np.ndarray, "3"]
    """As long as it is sure, 0 = unknown."""
    bones_m: Float[np.ndarray, "p 9"]
    up_origin: str
    bones_origin: str

    def summary(self) -> dict[str, object]:
        """For --json: rounded, with names."""
        return {
            "up": np.round(unit(self.up).astype(float), 4).tolist(),
            "up_certainty": round(float(np.linalg.norm(self.up)), 2),
            "up_from": self.up_origin,
            "bones_m": [
                dict(zip(BONE_GROUPS, np.round(b.astype(float), 3).tolist(), strict=True)) for b in self.bones_m
            ],
            "bones_from": self.bones_origin,
        }


def calibrate_scene(lift: Lift, keypoints: Float[np.ndarray, "t p 17 3"], manifest: Manifest) -> SceneCalibration:
    """What the bundle knows is taken; the rest is estimated from these detections, bones for each person apart."""
    slots = keypoints.shape[1]
    known_up, known_bones = manifest.known_up, manifest.known_bones_m
    everyone = calibrate(lift, keypoints.reshape(-1, 17, 3), known_up, known_bones)
    own = (
        [calibrate(lift, keypoints[:, p], everyone.up, known_bones) for p in range(slots)] if slots > 1 else [everyone]
    )
    estimated = f"estimated from {everyone.frames} frames of this run"
    return SceneCalibration(
        everyone.up,
        np.stack([person.bones_m for person in own]),
        "bundle" if known_up is not None else f"{estimated}, scatter {everyone.up_spread_deg:.1f} degrees",
        "bundle" if known_bones is not None else estimated,
    )


def lift_keypoints(
    backend: Backend,
    keypoints: Keypoints2D,
    camera: Camera,
    manifest: Manifest,
    clock: StageClock,
    on_frame: Callable[[int], None],
) -> tuple[Poses3D, SceneCalibration]:
    """Every frame in order; a person with fewer than MIN_JOINTS joints has no row in that frame."""
    inputs = keypoints.model_input(camera)
    lift = with_camera(backend, camera)
    with clock.stage("calibrate"):
        scene = calibrate_scene(lift, inputs, manifest)
    present = (inputs[..., 2] > 0).sum(-1) >= MIN_JOINTS
    pose_m, root_m = [], []
    for frame_input, here in zip(inputs, present, strict=True):
        on_frame(1)
        if here.any():
            with clock.stage("lift"):
                pose, root = lift(frame_input[here], tiled(scene.up, frame_input[here]), scene.bones_m[here])
            pose_m.append(pose)
            root_m.append(root)
    frame, person = np.nonzero(present)
    return (
        Poses3D(
            frame=frame,
            person=person,
            time_s=keypoints.time_s[frame],
            pose_m=np.concatenate(pose_m) if pose_m else np.zeros((0, 17, 3), np.float32),
            root_m=np.concatenate(root_m) if root_m else np.zeros((0, 3), np.float32),
            score=inputs[frame, person, :, 2],
        ),
        scene,
    )
