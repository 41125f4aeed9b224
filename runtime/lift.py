"""A tracked clip of one camera in, metric people out: calibrate what is unknown, lift, smooth without lag."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from poseda_deploy.backend import Backend, with_camera
from poseda_deploy.calibrate import MIN_JOINTS, Known, Lift, calibrate, contradicted_deg, tiled, unit, without_scene
from poseda_deploy.camera import Camera
from poseda_deploy.poses import PosedFrame, Poses3D
from poseda_deploy.sides import with_sides
from poseda_deploy.skeleton import BONE_GROUPS
from poseda_deploy.terminal import say

from .smooth import fillable, smoothed
from .timing import StageClock
from .track import TrackedClip

BATCH = 256
"""Rows in one call of the lifter: 10 ms, 40 us each; one row alone takes 440."""


@dataclass(frozen=True)
class SceneCalibration:
    """Up of the camera and bone lengths of each person, and where they came from."""

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


def lift_tracked(
    backend: Backend,
    clip: TrackedClip,
    camera: Camera,
    known: Known,
    clock: StageClock,
    on_frame: Callable[[int], None],
    *,
    bones: bool = True,
    smooth: bool = True,
) -> tuple[Poses3D, SceneCalibration]:
    """Everybody who was tracked, with identities in `person`; `on_frame` is told of the frames done, batch by batch.

    `bones=False` lifts with unknown bone lengths; `smooth=False` leaves each frame as it was lifted, and gaps open.
    """
    keypoints, identity = clip.keypoints, clip.identity
    inputs = with_sides(keypoints.model_input(camera), clip.swapped)
    frame, slot = np.nonzero((identity >= 0) & ((inputs[..., 2] > 0).sum(-1) >= MIN_JOINTS))
    order = np.lexsort((identity[frame, slot], frame))
    frame, slot = frame[order], slot[order]
    person, inputs = identity[frame, slot], inputs[frame, slot]
    lift = with_camera(backend, camera)
    with clock.stage("calibrate"):
        scene = calibrate_scene(lift, inputs, person, known, bones=bones)
    up, bones_m = tiled(scene.up, inputs), scene.bones_m[person]
    pose_m, root_m = np.zeros((len(inputs), 17, 3), np.float32), np.zeros((len(inputs), 3), np.float32)
    done = 0
    for start in range(0, len(inputs), BATCH):
        part, end = slice(start, start + BATCH), start + BATCH
        with clock.stage("lift"):
            pose_m[part], root_m[part] = lift(inputs[part], up[part], bones_m[part])
        told, done = done, int(frame[end]) if end < len(inputs) else len(keypoints)
        on_frame(done - told)
    poses = Poses3D(frame, person, keypoints.time_s[frame], pose_m, root_m, inputs[..., 2])
    if not smooth or not len(poses):
        return poses, scene
    with clock.stage("smooth"):
        return smooth_and_fill(poses, keypoints.time_s), scene


def calibrate_scene(
    lift: Lift, keypoints: Float[np.ndarray, "m 17 3"], person: Int[np.ndarray, " m"], known: Known, *, bones: bool
) -> SceneCalibration:
    """Up from everybody, bones for each person apart; what is known of either is taken into account."""
    off_deg = contradicted_deg(lift, keypoints, known)
    if off_deg:
        known = tilt_refused(known, off_deg)
    everyone = calibrate(lift, keypoints, known)
    count = int(person.max()) + 1 if len(person) else 0
    of_people = replace(known, up=everyone.up)
    own = [calibrate(lift, keypoints[person == who], of_people).bones_m for who in range(count if bones else 0)]
    seen = f"estimated from {everyone.frames} frames of this run"
    return SceneCalibration(
        everyone.up,
        np.stack(own) if own else np.zeros((count, 9), np.float32),
        up_origin(seen, known, everyone.up_spread_deg, off_deg),
        bones_origin(seen, known) if bones else "switched off",
    )


def tilt_refused(known: Known, off_deg: float) -> Known:
    """What is left of it; said, with how to have it back."""
    assert known.up is not None
    back = " ".join(f"{x:.3f}" for x in unit(known.up))
    say(
        f"the bundle's tilt is {off_deg:.0f} degrees off what the people of this run show, so it is not taken, nor its "
        f"heights: the camera was moved, or is another, or nobody stands up. --up {back} takes it all the same"
    )
    return without_scene(known)


def up_origin(seen: str, known: Known, spread_deg: float, off_deg: float) -> str:
    """In words, for the summary."""
    if known.up is not None:
        return known.up_from
    refused = f"; the bundle's not taken, {off_deg:.0f} degrees off" if off_deg else ""
    return f"{seen}, scatter {spread_deg:.1f} degrees{refused}"


def bones_origin(seen: str, known: Known) -> str:
    """In words, for the summary."""
    if known.person_height_m is not None:
        return f"{seen}, scaled to people of {known.person_height_m:g} m"
    if known.camera_height_m is not None:
        return f"{seen}, scaled to a camera {known.camera_height_m:g} m above the floor"
    return seen


def smooth_and_fill(poses: Poses3D, time_s: Float[np.ndarray, " t"]) -> Poses3D:
    """Each identity smoothed on its own, its short gaps filled with rows of score 0; `time_s` of every frame."""
    parts = [_one_smoothed(poses, poses.person == who, time_s) for who in np.unique(poses.person)]
    frame, person = np.concatenate([p.frame for p in parts]), np.concatenate([p.person for p in parts])
    order = np.lexsort((person, frame))
    return Poses3D(
        frame[order],
        person[order],
        time_s[frame[order]],
        *(np.concatenate([getattr(p, name) for p in parts])[order] for name in ("pose_m", "root_m", "score")),
    )


def _one_smoothed(poses: Poses3D, mine: Bool[np.ndarray, " m"], time_s: Float[np.ndarray, " t"]) -> Poses3D:
    seen_s = poses.time_s[mine]
    frame = np.flatnonzero(fillable(seen_s, time_s))
    pose_m, root_m = smoothed(seen_s, poses.pose_m[mine], poses.root_m[mine], time_s[frame])
    score = np.zeros((len(frame), 17), np.float32)
    score[np.isin(frame, poses.frame[mine])] = poses.score[mine]
    return Poses3D(frame, np.full(len(frame), poses.person[mine][0]), time_s[frame], pose_m, root_m, score)


def posed_frames(clip: TrackedClip, poses: Poses3D) -> Iterator[PosedFrame]:
    """One for every frame of the clip, also where nobody is, from the poses that `lift_tracked` made of it."""
    seen_px = clip.seen_px[poses.frame, clip.slot_of(poses.frame, poses.person)]
    time_s = clip.keypoints.time_s
    first_row = np.searchsorted(poses.frame, np.arange(len(time_s) + 1))
    for index, at_s in enumerate(time_s.tolist()):
        part = slice(int(first_row[index]), int(first_row[index + 1]))
        parts = (rows[part] for rows in (poses.person, poses.pose_m, poses.root_m, poses.score, seen_px))
        yield PosedFrame(index, at_s, *parts)
