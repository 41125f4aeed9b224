"""--compare mediapipe: MediaPipe's own 3D of the same frames, recorded and drawn beside ours."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from poseda_deploy.poses import Poses3D
from poseda_deploy.skeleton import DERIVED, H36M17, MEDIAPIPE33

from .detect import MediaPipeDetector
from .draw import DrawnPerson
from .track import TrackedClip
from .video import Frame

BESIDE_M = 1.0
"""To the right of ours, where it is drawn."""
_MIDDLES = {**DERIVED, "spine": ("pelvis", "thorax"), "neck": ("thorax", "head")}


class WithOwn3D:
    """MediaPipe as a detector that remembers its own 3D, frame by frame."""

    def __init__(self, detector: MediaPipeDetector) -> None:
        self.skeleton, self.persons, self._detector = detector.skeleton, detector.persons, detector
        self._own_m: list[Float[np.ndarray, "p 33 3"]] = []

    def detect(self, frame: Frame) -> tuple[Float[np.ndarray, "p j 2"], Float[np.ndarray, "p j"]]:
        """As MediaPipeDetector."""
        found = self._detector.detect(frame)
        self._own_m.append(self._detector.own_m)
        return found

    def beside(self, poses: Poses3D, clip: TrackedClip) -> Poses3D:
        """MediaPipe's pose for each row of ours that it saw. Its pelvis is nowhere: NaN."""
        own_m = np.full_like(poses.pose_m, np.nan)
        slot = clip.slot_of(poses.frame, poses.person)
        for row in np.flatnonzero(poses.score.any(1)):
            own_m[row] = own_pose_m(self._own_m[poses.frame[row]][slot[row]])
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
