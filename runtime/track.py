"""Who is who from frame to frame: each detection goes to the track whose predicted keypoints it agrees with best.

Agreement is object keypoint similarity (OKS) of the COCO keypoint challenge (cocodataset.org/#keypoints-eval):

    OKS = mean over joints known to both of exp(-d^2 / (2 s^2 k^2)),  k = 2 sigma

with COCO's sigmas, for s^2 the area of the person. No segment is known here, so s^2 is AREA_SHARE of the larger of
both keypoint boxes. A track that was not seen for a while may be further off than detectors scatter, so k^2 grows by
drift^2, drift = DRIFT_PER_S times the seconds unseen. That alone would let a lost track take the detection of a person
in plain view, so pairs are chosen (together, `scipy.optimize.linear_sum_assignment`) by OKS times the mean of
k^2 / (k^2 + drift^2), about a probability density: 240 crossings where one of two is hidden for 0.3 s had 263 switches
without, none with it. Detectors take left for right in some frames; OKS is therefore the better of both readings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from poseda_deploy.calibrate import MIN_JOINTS
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.sides import box_px2, swapped_sides, with_sides
from poseda_deploy.skeleton import H36M17, to_h36m17

from .pace import Pace

# A middle of two joints (pelvis, thorax, head) scatters like them; spine and neck, which few detectors give, like those
# they lie next to.
_SIGMA = {
    **{"pelvis": 0.107, "hip": 0.107, "knee": 0.087, "ankle": 0.089, "spine": 0.107},
    **{"thorax": 0.079, "neck": 0.079, "head": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062},
}
_K = np.array([2 * _SIGMA[joint.split("_")[-1]] for joint in H36M17.joints])
AREA_SHARE = 0.53
"""Of a COCO person's box that the person covers, as evaluation tools assume where there is no segment."""
DRIFT_PER_S = 3.0
"""In units of s: 10 m/s off the prediction pass the gate from one frame of 30 fps to the next."""
GATE = 0.1
"""Least OKS between a track and its detection."""
DUPLICATE = 0.75
"""OKS from which two detections of one frame are one person; at 0.65 people who cross begin to be taken for one."""
BORN_AFTER = 3
"""Frames in which a person is seen before it has an identity: a detector's ghosts flicker."""
WITHIN, WITHIN_S = 0.8, 0.5
"""Whose box lies in another person's by so much is born after so long only: detectors see a second person in one."""
GHOST_S, STAMP_S = 0.1, 0.002
"""In a clip, where it is known how long somebody stayed: three frames on a bush of the demo video, no more. Stamps may
be rounded to 1 ms at either end."""
MAX_GAP_S = 1.0
"""An identity ends when it was not seen for longer; frames further apart than this have nobody in common."""
PATIENCE = 3.0
"""Nor is it waited for longer than so many times as long as it lived: a ghost that was born attracts the next ghost."""
REPLACED_AFTER_S = 0.3
"""Unseen for this long, an identity already ends if a newcomer needs its place."""
_VELOCITY_S = 0.1  # velocity is a running mean over about this long
_DAMPING_S = 1.0  # and lasts about this long unseen: 0 switches in 120 crossings blind for 0.6 s, 38 with 0.5


@dataclass(eq=False)
class Track:
    """One person as far as it is known."""

    xy_px: Float[np.ndarray, "17 2"]
    """Each joint where it was last seen, moved along with the body since."""
    known: Bool[np.ndarray, "17"]
    """Joints that were ever seen."""
    first_s: float
    last_s: float
    velocity_px_s: Float[np.ndarray, "2"] = field(default_factory=lambda: np.zeros(2))
    """Of the whole body: limbs swing back, a body goes on."""
    sightings: int = 1
    identity: int = -1
    """-1 until it is born."""

    @property
    def patience_s(self) -> float:
        """How long it may go unseen."""
        return min(MAX_GAP_S, PATIENCE * (self.last_s - self.first_s)) if self.identity >= 0 else MAX_GAP_S

    def predicted_px(self, time_s: float) -> Float[np.ndarray, "17 2"]:
        """Where its joints should be: constant velocity that dies away."""
        gap_s = time_s - self.last_s
        return self.xy_px + self.velocity_px_s * _DAMPING_S * -np.expm1(-gap_s / _DAMPING_S)

    def see(self, time_s: float, xy_px: Float[np.ndarray, "17 2"], seen: Bool[np.ndarray, "17"]) -> None:
        """Take a detection."""
        gap_s = max(time_s - self.last_s, 0)
        predicted_px, both = self.predicted_px(time_s), self.known & seen
        if both.any() and gap_s:
            moved_px = np.median((xy_px - self.xy_px)[both], 0)
            predicted_px += np.median((xy_px - predicted_px)[both], 0)
            newness = -np.expm1(-gap_s / _VELOCITY_S)
            self.velocity_px_s = self.velocity_px_s + newness * (moved_px / gap_s - self.velocity_px_s)
        self.xy_px = np.where(seen[:, None], xy_px, predicted_px)
        self.known = self.known | seen
        self.last_s = max(time_s, self.last_s)
        self.sightings += 1


class Tracker:
    """Gives detections identities, frame after frame; remembers nothing but the people of the last MAX_GAP_S."""

    def __init__(self, persons: int, born_after: int = BORN_AFTER) -> None:
        self.persons, self._born_after = persons, born_after
        """Most identities alive at once; a newcomer waits until one of them has ended."""
        self._tracks: list[Track] = []
        self._born = 0
        self._pace = Pace(MAX_GAP_S)

    def step(
        self, time_s: float, xy_px: Float[np.ndarray, "p 17 2"], score: Float[np.ndarray, "p 17"]
    ) -> Int[np.ndarray, " p"]:
        """Identity of each detection (pixels, H36M17 order, score 0 = missing): 0, 1, ... in order of birth.

        -1 = a duplicate, not a person (fewer than MIN_JOINTS joints), or not yet seen in BORN_AFTER frames.
        A `time_s` that is not later than that of the call before counts as the same moment. Where frames are further
        apart than MAX_GAP_S nobody can be followed: from the second one on everybody who is seen is somebody, the same
        as whoever was last seen at that place.
        """
        return _identities(self.tracks(time_s, xy_px, score))

    def tracks(
        self, time_s: float, xy_px: Float[np.ndarray, "p 17 2"], score: Float[np.ndarray, "p 17"]
    ) -> list[Track | None]:
        """As `step`, but the track itself of each detection, also of one that has no identity yet."""
        time_s = self._pace.moment_s(time_s)
        self._end(time_s)
        seen = score > 0
        people = _people(xy_px, score)
        found: list[Track | None] = [None] * len(xy_px)
        for detection, known in self._matched(time_s, xy_px[people], seen[people]):
            found[people[detection]] = known
        for i in people:
            track = found[i]
            if track is None:
                found[i] = track = Track(xy_px[i].astype(np.float64), seen[i], time_s, time_s)
                self._tracks.append(track)
            else:
                track.see(time_s, xy_px[i], seen[i])
        self._tracks = [track for track in self._tracks if track.identity >= 0 or track.last_s == time_s]
        self._bear(time_s)
        return found

    @property
    def _apart(self) -> bool:
        """Whether frames are too far apart to tell how long anybody lived."""
        return self._born_after == 1 or self._pace.is_slow

    def _end(self, time_s: float) -> None:
        apart = self._apart
        self._tracks = [t for t in self._tracks if time_s - t.last_s <= (MAX_GAP_S if apart else t.patience_s)]

    def _matched(
        self, time_s: float, xy_px: Float[np.ndarray, "n 17 2"], seen: Bool[np.ndarray, "n 17"]
    ) -> list[tuple[int, Track]]:
        if not self._tracks or not len(xy_px):
            return []
        agreement = self._agreement(time_s, xy_px, seen, self._tracks)
        drift = _drift(time_s, self._tracks)
        density = np.where(agreement < GATE, 0, agreement * (_K**2 / (_K**2 + drift[:, None] ** 2)).mean(-1))
        rows, columns = linear_sum_assignment(density, maximize=True)
        return [(int(i), self._tracks[j]) for i, j in zip(rows, columns, strict=True) if density[i, j]]

    @staticmethod
    def _agreement(
        time_s: float, xy_px: Float[np.ndarray, "n 17 2"], seen: Bool[np.ndarray, "n 17"], tracks: Sequence[Track]
    ) -> Float[np.ndarray, "n m"]:
        """OKS of each detection and track."""
        predicted_px = np.stack([track.predicted_px(time_s) for track in tracks])
        known = np.stack([track.known for track in tracks])
        return oks(xy_px, seen, predicted_px, known, _drift(time_s, tracks))

    def _bear(self, time_s: float) -> None:
        """Identities for those seen often enough, the most seen first, while there is room."""
        waiting = [track for track in self._tracks if track.identity < 0 and self._is_somebody(track, time_s)]
        for track in sorted(waiting, key=lambda track: -track.sightings):
            if not self._is_back(track, time_s) and self._make_room(time_s):
                track.identity = self._born
                self._born += 1

    def _is_somebody(self, track: Track, time_s: float) -> bool:
        """Seen often enough, and apart from everybody else or for long."""
        if self._apart:
            return True
        if track.sightings < self._born_after:
            return False
        others = [one for one in self._tracks if one.identity >= 0 and one.last_s == time_s]
        return time_s - track.first_s >= WITHIN_S or not any(_covered(track, one) > WITHIN for one in others)

    def _is_back(self, track: Track, time_s: float) -> bool:
        """Whether it goes on with an identity that was lost where it is now, say to one bad detection."""
        lost = [one for one in self._tracks if one.identity >= 0 and one.last_s < time_s]
        if not lost:
            return False
        agreement = self._agreement(time_s, track.xy_px[None], track.known[None], lost)[0]
        best = int(agreement.argmax())
        if agreement[best] < GATE:
            return False
        track.identity, track.first_s = lost[best].identity, lost[best].first_s
        self._tracks.remove(lost[best])
        return True

    def _make_room(self, time_s: float) -> bool:
        """Whether another identity may live; ends the one unseen longest if that helps."""
        alive = sorted((track for track in self._tracks if track.identity >= 0), key=lambda track: track.last_s)
        if len(alive) == self.persons and time_s - alive[0].last_s >= REPLACED_AFTER_S:
            self._tracks.remove(alive.pop(0))
        return len(alive) < self.persons


def identities(
    time_s: Float[np.ndarray, " t"], xy_px: Float[np.ndarray, "t p 17 2"], score: Float[np.ndarray, "t p 17"]
) -> Int[np.ndarray, "t p"]:
    """Identity of every detection of a clip, as `Tracker.step`, but known from a person's first frame on.

    In a clip shorter than a ghost, whoever is there throughout is somebody. Of frames further apart than MAX_GAP_S
    nobody can be followed: everybody who is seen is somebody, the same as whoever was last seen at that place.
    """
    if len(time_s) > 1 and np.median(np.diff(time_s)) > MAX_GAP_S:
        return _followed(np.arange(len(time_s)) * MAX_GAP_S / 2, xy_px, score, born_after=1)
    identity = _followed(time_s, xy_px, score, min(BORN_AFTER, len(time_s)))
    return _without_ghosts(time_s, identity)


def _followed(
    time_s: Float[np.ndarray, " t"],
    xy_px: Float[np.ndarray, "t p 17 2"],
    score: Float[np.ndarray, "t p 17"],
    born_after: int,
) -> Int[np.ndarray, "t p"]:
    tracker = Tracker(xy_px.shape[1], born_after)
    frames = [tracker.tracks(float(t), xy, s) for t, xy, s in zip(time_s, xy_px, score, strict=True)]
    return np.stack([_identities(found) for found in frames])


def _without_ghosts(time_s: Float[np.ndarray, " t"], identity: Int[np.ndarray, "t p"]) -> Int[np.ndarray, "t p"]:
    """Whoever was there for less than GHOST_S, or all of a shorter clip, is nobody; the others are numbered anew."""
    least_s = min(GHOST_S, float(np.ptp(time_s))) - STAMP_S
    people = np.unique(identity[identity >= 0]).tolist()
    seen_s = {who: time_s[(identity == who).any(1)] for who in people}
    real = [who for who in people if seen_s[who][-1] - seen_s[who][0] >= least_s]
    renumbered = np.full_like(identity, -1)
    for number, who in enumerate(real):
        renumbered[identity == who] = number
    return renumbered


@dataclass(frozen=True)
class TrackedClip:
    """The detections of a clip and who each of them is."""

    keypoints: Keypoints2D
    seen_px: Float[np.ndarray, "t p 17 2"]
    """The joints in H36M17 order, in pixels of the picture, sides put back; nothing where the score is 0."""
    identity: Int[np.ndarray, "t p"]
    """As of `identities`."""
    swapped: Bool[np.ndarray, "t p 2"]
    """As of `swapped_sides`; the keypoints are as they were detected."""

    def slot_of(self, frame: Int[np.ndarray, " m"], person: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Which detection of its frame is that person; 0 where the person was not seen."""
        return (self.identity[frame] == person[:, None]).argmax(1)


def track_clip(keypoints: Keypoints2D) -> TrackedClip:
    """Follow everybody through a clip."""
    seen_px, score = to_h36m17(np.nan_to_num(keypoints.xy_px), keypoints.score, keypoints.skeleton)
    identity = identities(keypoints.time_s, seen_px, score)
    swapped = swapped_sides(keypoints.time_s, identity, seen_px, score)
    return TrackedClip(keypoints, with_sides(seen_px, swapped), identity, swapped)


def in_steady_slots(clip: TrackedClip) -> Keypoints2D:
    """The keypoints, ordered so that what reads the file slot by slot reads one person as long as it is tracked."""
    keypoints, order = clip.keypoints, steady_slots(clip.identity)
    xy_px = np.take_along_axis(keypoints.xy_px, order[..., None, None], 1)
    return replace(keypoints, xy_px=xy_px, score=np.take_along_axis(keypoints.score, order[..., None], 1))


def steady_slots(identity: Int[np.ndarray, "t p"]) -> Int[np.ndarray, "t p"]:
    """For each frame the order of its detections in which an identity stays in one slot for as long as it lives."""
    last_frame = {int(who): frame for frame, row in enumerate(identity) for who in row if who >= 0}
    slots = np.full(identity.shape[1], -1)
    order = np.zeros_like(identity)
    for frame, row in enumerate(identity):
        slots[[who >= 0 and last_frame[int(who)] < frame for who in slots]] = -1
        for who in row[(row >= 0) & ~np.isin(row, slots)]:
            slots[_free_slot(slots, row)] = who
        order[frame] = _order(slots, row)
    return order


def _free_slot(slots: Int[np.ndarray, " p"], row: Int[np.ndarray, " p"]) -> int:
    """An empty one, else that of somebody who is not in this frame."""
    return int(np.argmin(np.where(np.isin(slots, row[row >= 0]), 2, slots >= 0)))


def _order(slots: Int[np.ndarray, " p"], row: Int[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
    """Index into the row for each slot; slots without their occupant get the detections that are nobody's."""
    at = {int(who): i for i, who in enumerate(row) if who >= 0}
    spare = [i for i, who in enumerate(row) if who < 0]
    return np.array([at[int(who)] if int(who) in at else spare.pop() for who in slots])


def _drift(time_s: float, tracks: Sequence[Track]) -> Float[np.ndarray, " m"]:
    return DRIFT_PER_S * np.array([time_s - track.last_s for track in tracks])


def _covered(inner: Track, outer: Track) -> float:
    """Share of one person's box that lies in the other's."""
    low, high = (np.stack([edge(t.xy_px[t.known], 0) for t in (inner, outer)]) for edge in (np.min, np.max))
    common_px = np.clip(high.min(0) - low.max(0), 0, None)
    return float(common_px.prod() / max((high[0] - low[0]).prod(), 1.0))


def oks(
    a_px: Float[np.ndarray, "n 17 2"],
    a_seen: Bool[np.ndarray, "n 17"],
    b_px: Float[np.ndarray, "m 17 2"],
    b_seen: Bool[np.ndarray, "m 17"],
    drift: Float[np.ndarray, " m"],
) -> Float[np.ndarray, "n m"]:
    """Object keypoint similarity of every a to every b, 0 without a common joint; `drift` in units of s widens it."""
    area_px2 = AREA_SHARE * np.maximum(box_px2(a_px, a_seen)[:, None], box_px2(b_px, b_seen))
    spread = 2 * area_px2[..., None] * (_K**2 + drift[:, None] ** 2)
    readings = []
    for order in (slice(None), H36M17.mirror):
        both = a_seen[:, None, order] & b_seen
        squared_px2 = ((a_px[:, None, order] - b_px) ** 2).sum(-1)
        agreement = np.exp(-squared_px2 / spread) * both
        readings.append(agreement.sum(-1) / np.maximum(both.sum(-1), 1))
    return np.maximum(*readings)


def _people(xy_px: Float[np.ndarray, "p 17 2"], score: Float[np.ndarray, "p 17"]) -> list[int]:
    """Detections that are somebody, each once: of two that agree the one that is seen better."""
    seen = score > 0
    alike = oks(xy_px, seen, xy_px, seen, np.zeros(len(xy_px)))
    kept: list[int] = []
    for i in np.argsort(-score.sum(1), kind="stable"):
        if seen[i].sum() >= MIN_JOINTS and not any(alike[i, j] > DUPLICATE for j in kept):
            kept.append(int(i))
    return sorted(kept)


def _identities(found: Sequence[Track | None]) -> Int[np.ndarray, " p"]:
    return np.array([-1 if track is None else track.identity for track in found], int)
