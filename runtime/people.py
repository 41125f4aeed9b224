"""The live path: what a detector saw in one frame in, the people of that frame out, knowing the past only."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from poseda_deploy.backend import Backend, with_camera
from poseda_deploy.calibrate import (
    MIN_JOINTS,
    Known,
    RunningSample,
    contradicted_deg,
    estimate_up,
    expected_bones_m,
    person_bones_m,
    tiled,
)
from poseda_deploy.camera import Camera
from poseda_deploy.keypoints import model_input
from poseda_deploy.plausible import PoseCheck
from poseda_deploy.poses import PosedFrame
from poseda_deploy.sides import LiveSides, with_sides
from poseda_deploy.skeleton import Skeleton, to_h36m17

from .lift import SceneCalibration, bones_origin, tilt_refused, up_origin
from .smooth import LiveSmoother
from .track import MAX_GAP_S, Tracker
from .video import Frame

CHECK_EVERY = 10
"""Frames with people of which one is checked for being possible: as costly as lifting."""


@dataclass(eq=False)
class _Person:
    """What is remembered of one identity."""

    bones_m: Float[np.ndarray, "9"]
    sample: RunningSample = field(default_factory=RunningSample)
    smoother: LiveSmoother = field(default_factory=LiveSmoother)
    last_s: float = 0.0


class LivePeople:
    """Tracks, calibrates as it goes, lifts and smooths; remembers a bounded sample of the keypoints of those in view.

    Up (where the bundle has none) is estimated from everybody, bone lengths from each person alone, first after 8
    frames and again whenever there are half as many more: at most one estimate a frame, of at most 128 rows (6 ms).
    """

    def __init__(
        self,
        backend: Backend,
        camera: Camera,
        known: Known,
        skeleton: Skeleton,
        persons: int,
        *,
        bones: bool = True,
        smooth: bool = True,
    ) -> None:
        self._lift, self._camera, self._skeleton = with_camera(backend, camera), camera, skeleton
        self._known, self._bones, self._smooth = known, bones, smooth
        self._tracker, self._sides = Tracker(persons), LiveSides()
        self._everyone, self._check, self._posed_frames = RunningSample(), PoseCheck(), 0
        self._people: dict[int, _Person] = {}
        self._spread_deg = self._off_deg = 0.0
        self.up = np.zeros(3, np.float32) if known.up is None else known.up
        """Of the camera as far as it is known, as long as it is sure."""

    def step(self, frame: Frame, xy_px: Float[np.ndarray, "p j 2"], score: Float[np.ndarray, "p j"]) -> PosedFrame:
        """The people of one frame, from the detector's joints in pixels of the picture; frames come in order of time.

        Who is hidden is absent, not held; somebody new appears with the third frame in which he is seen.
        """
        xy_px = np.nan_to_num(xy_px)
        seen_px, seen = to_h36m17(xy_px, score, self._skeleton)
        identity = self._tracker.step(frame.time_s, seen_px, seen)
        inputs = model_input(xy_px, score, self._skeleton, self._camera)
        rows = np.flatnonzero((identity >= 0) & ((inputs[..., 2] > 0).sum(-1) >= MIN_JOINTS))
        rows = rows[np.argsort(identity[rows])]
        swapped = self._sides.step(frame.time_s, identity[rows], seen_px[rows], seen[rows])
        keypoints = with_sides(inputs[rows], swapped)
        seen_px = with_sides(seen_px[rows], swapped)
        people = [self._meet(int(who), row, frame.time_s) for who, row in zip(identity[rows], keypoints, strict=True)]
        self._forget(frame.time_s)
        self._calibrate()
        pose_m, root_m = self._posed(people, keypoints, frame.time_s)
        if self._posed_frames % CHECK_EVERY == 0:
            self._check.add(pose_m, root_m)
        self._posed_frames += bool(len(rows))
        return PosedFrame(frame.index, frame.time_s, identity[rows], pose_m, root_m, keypoints[..., 2], seen_px)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the people so far."""
        if not self._check.poses:
            return (f"nobody was lifted: is somebody seen, with {MIN_JOINTS} joints or more, in some frames in a row?",)
        return self._check.warnings()

    @property
    def scene(self) -> SceneCalibration:
        """What is known by now of the camera and of the people in view."""
        bones = [person.bones_m for _, person in sorted(self._people.items())]
        running = f"estimated from {self._everyone.frames} frames of this run"
        return SceneCalibration(
            self.up,
            np.stack(bones) if bones else np.zeros((0, 9), np.float32),
            up_origin(running, self._known, self._spread_deg, self._off_deg),
            bones_origin(running, self._known) if self._bones else "switched off",
        )

    def _meet(self, identity: int, keypoints: Float[np.ndarray, "17 3"], time_s: float) -> _Person:
        """Who this is, with what was seen of him noted."""
        if identity not in self._people:
            self._people[identity] = _Person(expected_bones_m(self._known if self._bones else Known()))
        person = self._people[identity]
        person.last_s = time_s
        person.sample.add(keypoints)
        self._everyone.add(keypoints)
        return person

    def _forget(self, time_s: float) -> None:
        """Identities that have ended do not come back."""
        self._people = {who: p for who, p in self._people.items() if time_s - p.last_s <= MAX_GAP_S}

    def _calibrate(self) -> None:
        """At most one estimate: up before bones, which depend on it; a bundle's up is held against what is seen."""
        if self._known.up_from == "bundle" and self._known.up is not None and self._everyone.is_due:
            self._off_deg = contradicted_deg(self._lift, self._everyone.take(), self._known)
            if self._off_deg:
                self._known = tilt_refused(self._known, self._off_deg)
                self._everyone.ask_again()
        elif self._known.up is None and self._everyone.is_due:
            sample = self._everyone.take()
            expected = tiled(expected_bones_m(self._known), sample)
            self.up, self._spread_deg = estimate_up(self._lift(sample, tiled(self.up, sample), expected)[0])
        elif self._bones:
            due = next((person for person in self._people.values() if person.sample.is_due), None)
            if due is not None:
                rows, frames = due.sample.take(), due.sample.frames
                due.bones_m = person_bones_m(self._lift, rows, self.up, self._known, frames)

    def _posed(
        self, people: list[_Person], keypoints: Float[np.ndarray, "n 17 3"], time_s: float
    ) -> tuple[Float[np.ndarray, "n 17 3"], Float[np.ndarray, "n 3"]]:
        if not people:
            return np.zeros((0, 17, 3), np.float32), np.zeros((0, 3), np.float32)
        bones_m = np.stack([person.bones_m for person in people])
        pose_m, root_m = self._lift(keypoints, tiled(self.up, keypoints), bones_m)
        if self._smooth:
            steady = [p.smoother(time_s, *row) for p, row in zip(people, zip(pose_m, root_m, strict=True), strict=True)]
            pose_m, root_m = np.stack([pose for pose, _ in steady]), np.stack([root for _, root in steady])
        return pose_m, root_m
