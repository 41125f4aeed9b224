"""Can this be people? Of 2D before any work and of poses after lifting; what is wrong, with its likely reason."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from poseda_deploy.calibrate import MIN_JOINTS, stature_m
from poseda_deploy.camera import Camera
from poseda_deploy.errors import InputError
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.limits import broken_limits
from poseda_deploy.metrics import bone_lengths_m
from poseda_deploy.skeleton import to_h36m17

OUTSIDE, OFTEN_OUTSIDE = 0.1, 0.05
"""Share of the image by which a detector may extrapolate past its edge, and share of the joints that may be further."""
CORNER = 0.1
"""Of the image: joints that never leave it are of a smaller one, or shares."""
SMALLEST_PX, FURTHEST = 2.0, 100.0
"""No person is smaller; no joint is further from the origin, in longer sides of the image."""
LONGEST_STEP_S = 1.0
NEAREST_M, FURTHEST_M = 0.3, 100.0
SHORTEST_M, TALLEST_M = 0.5, 2.5
ODD_POSES = 0.5
"""Of all poses, breaking a joint's limit: captured and detected people do in 0 to 13 %, COCO's order under another name
in 80 to 100 %."""


class Doubt(NamedTuple):
    """Something that people's 2D hardly is."""

    what: str
    hint: str

    def __str__(self) -> str:
        return f"{self.what} ({self.hint})"


def check_possible(keypoints: Keypoints2D) -> None:
    """InputError where the 2D cannot be people in pixels."""
    xy_px, seen = keypoints.xy_px, keypoints.score > 0
    far_px = np.where(seen, np.abs(np.nan_to_num(xy_px)).max(-1), 0)
    if far_px.max(initial=0) > FURTHEST * max(keypoints.size_wh):
        t, p, j = (int(i) for i in np.unravel_index(far_px.argmax(), far_px.shape))
        raise InputError(
            f"joint {keypoints.skeleton.joints[j]} of person {p} in frame {t} lies at {far_px.max():.3g} px",
            hint="set score 0 where a joint is missing",
        )
    whole = seen.sum(-1) >= MIN_JOINTS
    if not whole.any():
        return
    low = np.where(seen[..., None], xy_px, np.inf)[whole].min(1)
    high = np.where(seen[..., None], xy_px, -np.inf)[whole].max(1)
    if far_px.max() <= SMALLEST_PX < min(keypoints.size_wh) / 10:
        raise InputError(
            f"all joints lie within {far_px.max():.2g} px of the origin: shares of the picture, not pixels?",
            hint="multiply xy by the image's width and height",
        )
    if (high - low).max() < SMALLEST_PX:
        raise InputError("all joints of a person lie in one point", hint="xy must be (..., joints, 2) in pixels")


def pixel_doubts(keypoints: Keypoints2D) -> tuple[Doubt, ...]:
    """Where the 2D looks like that of another image: outside this one, or crowded into its corner."""
    xy_px, (width, height) = keypoints.xy_px[keypoints.score > 0], keypoints.size_wh
    if not len(xy_px):
        return ()
    share = np.array(keypoints.size_wh) * OUTSIDE
    outside = ((xy_px < -share) | (xy_px > np.array(keypoints.size_wh) + share)).any(-1).mean()
    reach = np.quantile(xy_px, 0.99, axis=0) / np.array(keypoints.size_wh)
    if outside > OFTEN_OUTSIDE:
        what = f"{outside:.0%} of the joints lie outside the {width}x{height} image"
        return (Doubt(what, "image_size must be that of the frames the 2D was found in; xy in pixels, not centred"),)
    if reach.max() < CORNER:
        what = f"all joints lie in the upper left {reach.max():.1%} of the {width}x{height} image"
        return (Doubt(what, "xy must be in pixels, not in shares of the image"),)
    return ()


def time_doubts(time_s: Float[np.ndarray, " t"]) -> tuple[Doubt, ...]:
    """Frames so far apart that nobody can be followed from one to the next."""
    step_s = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0
    if step_s <= LONGEST_STEP_S:
        return ()
    unit = "time_s must be in seconds, not in milliseconds; or fps is wrong"
    return (Doubt(f"frames are {step_s:.3g} s apart", unit),)


def why_nobody(keypoints: Keypoints2D) -> Doubt:
    """The likely reason why nobody was lifted."""
    if not keypoints.score.any():
        return Doubt(
            "nobody is in the 2D: no joint has a score above 0", "0 means missing; is somebody in the picture?"
        )
    _, score = to_h36m17(np.nan_to_num(keypoints.xy_px), keypoints.score, keypoints.skeleton)
    most = int((score > 0).sum(-1).max())
    if most < MIN_JOINTS:
        return Doubt(
            f"nobody was lifted: at most {most} joints are seen, not {MIN_JOINTS} joints of a person", "0 means missing"
        )
    if doubts := time_doubts(keypoints.time_s):
        return Doubt(f"nobody was lifted: {doubts[0].what}", doubts[0].hint)
    return Doubt("nobody was lifted: nobody is seen in some frames in a row", "check the joints and the scores")


@dataclass
class PoseCheck:
    """Counts poses that nobody takes; bounded, so that a live run may add to it for ever."""

    poses: int = 0
    wrong: dict[str, int] = field(default_factory=dict)

    def add(self, pose_m: Float[np.ndarray, "n 17 3"], root_m: Float[np.ndarray, "n 3"]) -> None:
        """More people, root-relative and their pelvises in camera axes."""
        finite = np.isfinite(pose_m).all((1, 2)) & np.isfinite(root_m).all(-1)
        self.poses += len(pose_m)
        self._count("not finite", ~finite)
        pose_m, away_m = pose_m[finite].astype(np.float64), np.linalg.norm(root_m[finite].astype(np.float64), axis=-1)
        self._count("distance", (away_m < NEAREST_M) | (away_m > FURTHEST_M))
        tall_m = np.array([stature_m(bones_m) for bones_m in bone_lengths_m(pose_m)])
        self._count("height", (tall_m < SHORTEST_M) | (tall_m > TALLEST_M))
        if len(pose_m):
            self._count("joints", np.any(list(broken_limits(pose_m).values()), axis=0))

    def warnings(self) -> tuple[str, ...]:
        """What the user should know."""
        said = {
            "not finite": "have joints that are not finite",
            "distance": f"stand less than {NEAREST_M:g} or more than {FURTHEST_M:g} m away: are xy and K in pixels of "
            "the same picture?",
            "height": f"are of bodies shorter than {SHORTEST_M:g} or taller than {TALLEST_M:g} m: do joints coincide?",
            "joints": "bend joints further than people can: is `skeleton` the file's joint order?",
        }
        counts = {name: self.wrong.get(name, 0) for name in said}
        counts["joints"] *= counts["joints"] > ODD_POSES * self.poses  # a few are acrobats, or a detector's slips
        return tuple(f"{n} of {self.poses} poses {said[name]}" for name, n in counts.items() if n)

    def _count(self, name: str, wrong: np.ndarray) -> None:
        self.wrong[name] = self.wrong.get(name, 0) + int(wrong.sum())


def lens_doubts(keypoints: Keypoints2D, camera: Camera) -> tuple[str, ...]:
    """How many joints lie where the lens model has no ray."""
    seen_px = keypoints.xy_px[keypoints.score > 0]
    lost = int(np.isnan(camera.undistorted(seen_px)).any(-1).sum())
    return (f"{lost} of {len(seen_px)} joints lie where the lens has no ray, and count as missing",) if lost else ()
