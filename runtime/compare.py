"""--compare mediapipe: MediaPipe's own 3D of the same frames, recorded and drawn beside ours."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.poses import Poses3D
from poseda_deploy.skeleton import DERIVED, H36M17, MEDIAPIPE33

from .detect import MediaPipeDetector
from .draw import DrawnPerson
from .lift import posed_frames
from .video import Frame

BESIDE_M = 1.0
"""To the right of ours, where it is drawn."""
_LIMB_NAMES = [f"{side}_{joint}" for side in ("left", "right") for joint in ("knee", "ankle", "elbow", "wrist")]
_LIMBS, _OWN_LIMBS = ([s.index(name) for name in _LIMB_NAMES] for s in (H36M17, MEDIAPIPE33))
_MIDDLES = {**DERIVED, "spine": ("pelvis", "thorax"), "neck": ("thorax", "head")}


class WithOwn3D:
    """MediaPipe as a detector that remembers what it saw and its own 3D, frame by frame."""

    def __init__(self, detector: MediaPipeDetector) -> None:
        self.skeleton, self.persons, self._detector = detector.skeleton, detector.persons, detector
        self.seen_px: list[Float[np.ndarray, "p 33 2"]] = []
        self.own_m: list[Float[np.ndarray, "p 33 3"]] = []

    def detect(self, frame: Frame) -> tuple[Float[np.ndarray, "p j 2"], Float[np.ndarray, "p j"]]:
        """As MediaPipeDetector."""
        xy_px, score = self._detector.detect(frame)
        self.seen_px.append(xy_px)
        self.own_m.append(self._detector.own_m)
        return xy_px, score

    def beside(self, poses: Poses3D, keypoints: Keypoints2D) -> Poses3D:
        """MediaPipe's pose for each row of ours that it saw. Its pelvis is nowhere: NaN.

        A row is found again by its 2D, because tracking has put the people into another order.
        """
        xy_px = np.concatenate([frame.xy_px for frame in posed_frames(keypoints, poses)])
        own_m = np.full_like(poses.pose_m, np.nan)
        for row in np.flatnonzero((poses.score[:, _LIMBS] > 0).any(1)):
            frame, seen = poses.frame[row], poses.score[row, _LIMBS] > 0
            apart_px = np.linalg.norm(self.seen_px[frame][:, _OWN_LIMBS] - xy_px[row, _LIMBS], axis=-1)
            own_m[row] = own_pose_m(self.own_m[frame][(apart_px * seen).sum(1).argmin()])
        return replace(poses, pose_m=own_m, root_m=np.full_like(poses.root_m, np.nan))


def own_pose_m(own_m: Float[np.ndarray, "33 3"]) -> Float[np.ndarray, "17 3"]:
    """MediaPipe's world landmarks (metres, axes like the camera's) as H36M17 about the pelvis, nothing corrected."""
    at = dict(zip(MEDIAPIPE33.joints, own_m, strict=True))
    for joint, ends in _MIDDLES.items():
        at[joint] = (at[ends[0]] + at[ends[1]]) / 2
    pose_m = np.stack([at[joint] for joint in H36M17.joints])
    return (pose_m - pose_m[:1]).astype(np.float32)


def apart_mm(poses: Poses3D, own: Poses3D) -> float | None:
    """Median distance of the joints of both, pelvis on pelvis; none where MediaPipe saw nobody."""
    distance_mm = np.linalg.norm(poses.pose_m - own.pose_m, axis=-1)[:, 1:] * 1000
    return round(float(np.nanmedian(distance_mm)), 1) if np.isfinite(distance_mm).any() else None


def drawn_beside(own: Poses3D, poses: Poses3D, row: int, right: Float[np.ndarray, "3"]) -> DrawnPerson:
    """As a thin figure to the right of ours, on the 3D side only."""
    root_m = poses.root_m[row] + np.float32(BESIDE_M) * right.astype(np.float32)
    nowhere = np.full((17, 2), np.nan, np.float32)
    return DrawnPerson(int(poses.person[row]), nowhere, np.zeros(17, np.float32), own.pose_m[row], root_m)
