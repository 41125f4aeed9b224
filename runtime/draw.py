"""The overlay: the skeleton on the picture and, beside it, the same people in 3D on a floor with a metre grid."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from poseda_deploy.opencv import Image, cv2
from poseda_deploy.poses import PosedFrame
from poseda_deploy.skeleton import H36M17

from .strokes import BITS, FULL_HEIGHT_PX, Colour, Point, blended, draw_dot, draw_line, sub_pixel, write_text

Array = np.ndarray

# Okabe and Ito's colours, told apart with any colour vision (blue, green, red as OpenCV has them). Left and right mean
# the same on everybody; the trunk tells people apart.
LEFT, RIGHT = (233, 180, 86), (0, 159, 230)
PEOPLE = ((232, 232, 232), (140, 190, 40), (189, 140, 224), (66, 228, 240))
BACKGROUND, HORIZON = (40, 36, 34), (26, 23, 22)
GRID, SHADOW, CAMERA, INK = (104, 98, 94), (20, 18, 17), (170, 164, 160), (225, 222, 220)

ANKLE_HEIGHT_M = 0.08  # of the joint above the sole
BONE_WIDTH_M, HEAD_RADIUS_M = 0.042, 0.075
AZIMUTH_RAD, ELEVATION_RAD = np.deg2rad([32.0, 17.0])
DISTANCE_PER_SPAN = 2.6  # of the virtual camera: far enough for a mild perspective
MIN_SPAN_M, MAX_SPAN_M, MAX_GRID_M = 2.7, 12.0, 6.0
EYE_HEIGHT_M = 0.88  # above the floor: where the panel's middle looks
NEAR_M, FAR_M = 0.3, 100.0  # what is outside is not drawn
HISTORY_FRAMES, FLOOR_QUANTILE = 90, 0.1
FLOOR_RATE, FOLLOW_RATE = 0.1, 0.05  # share of the way gone in one frame

# No detector has a landmark for these; they lie between two joints that can be seen.
_BETWEEN = {"spine": ("pelvis", "thorax"), "neck": ("thorax", "head")}
_NO_LANDMARK = {H36M17.index(joint): [H36M17.index(end) for end in ends] for joint, ends in _BETWEEN.items()}
_BONES, _HEAD = H36M17.edges, H36M17.index("head")
_ANKLES = [H36M17.index("left_ankle"), H36M17.index("right_ankle")]


@dataclass(frozen=True)
class DrawnPerson:
    """One person in one frame, joints in H36M17 order."""

    person: int
    """Number of the track; picks the hue."""
    xy_px: Float[Array, "17 2"]
    """Pixels of the picture as filmed (distorted)."""
    score: Float[Array, "17"]
    """0 = the detector did not see it."""
    pose_m: Float[Array, "17 3"]
    """Metres relative to the pelvis, camera axes (x right, y down, z forward)."""
    root_m: Float[Array, "3"]
    """The pelvis in metres, camera axes."""

    @property
    def hue(self) -> Colour:
        """The colour of trunk and caption."""
        return PEOPLE[self.person % len(PEOPLE)]

    @property
    def is_placed(self) -> bool:
        """Whether the 3D pose is finite and near enough to draw."""
        return bool(np.abs(self.pose_m + self.root_m).max() < FAR_M)


def drawn(people: PosedFrame) -> list[DrawnPerson]:
    """The people of one frame."""
    rows = zip(people.person.tolist(), people.xy_px, people.score, people.pose_m, people.root_m, strict=True)
    return [DrawnPerson(*row) for row in rows]


@dataclass(frozen=True)
class View:
    """A virtual camera looking at the scene; world axes are right, up, forward (left-handed)."""

    axes: Float[Array, "3 3"]
    """Rows: its x right, y down, z forward."""
    eye_m: Float[Array, "3"]
    distance_m: float
    """From the eye to the point of interest."""
    focal_px: float
    centre_px: float

    def project(self, xyz_m: Float[Array, "n 3"]) -> tuple[Float[Array, "n 2"], Float[Array, " n"]]:
        """Pixels in the panel and depth in metres; what lies behind the eye gets depth NEAR_M."""
        seen_m = (xyz_m - self.eye_m) @ self.axes.T
        depth_m = np.maximum(seen_m[:, 2], NEAR_M)
        return seen_m[:, :2] / depth_m[:, None] * self.focal_px + self.centre_px, depth_m


class Scene:
    """Where the floor is and where to look: both follow the people slowly, so that motion shows and noise does not."""

    def __init__(self) -> None:
        self.floor_m = 0.0  # height in world axes, where the camera is at 0
        self.centre_m: Array = np.array([0.0, 3.0])  # point of interest, right and forward
        self.span_m = MIN_SPAN_M  # what the panel spans at the centre
        self._feet_m: deque[float] = deque(maxlen=HISTORY_FRAMES)

    def follow(self, people_m: Sequence[Float[Array, "17 3"]]) -> None:
        """Take in one frame's people, world axes."""
        if not people_m:
            return
        joints_m = np.stack(people_m)
        follow, sink = (FOLLOW_RATE, FLOOR_RATE) if self._feet_m else (1.0, 1.0)
        self._feet_m.append(float(joints_m[:, _ANKLES, 1].min()))
        floor_m = float(np.quantile(self._feet_m, FLOOR_QUANTILE)) - ANKLE_HEIGHT_M
        self.floor_m += sink * (floor_m - self.floor_m)
        roots_m = joints_m[:, 0, ::2]
        self.centre_m = self.centre_m + follow * ((roots_m.min(0) + roots_m.max(0)) / 2 - self.centre_m)
        reach_m = np.linalg.norm(roots_m - self.centre_m, axis=1).max()
        top_m = float(joints_m[..., 1].max()) - self.floor_m - EYE_HEIGHT_M  # someone may stand on a roof
        span_m = float(np.clip(max(1.5 + 2 * reach_m, 2.4 * top_m), MIN_SPAN_M, MAX_SPAN_M))
        self.span_m += follow * (span_m - self.span_m)

    def view(self, side_px: int) -> View:
        """From behind the camera's right shoulder, a little above."""
        right = np.array([np.cos(AZIMUTH_RAD), 0, np.sin(AZIMUTH_RAD)])
        back = np.array([right[2], np.tan(ELEVATION_RAD), -right[0]]) * np.cos(ELEVATION_RAD)
        middle_m = np.array([self.centre_m[0], self.floor_m + EYE_HEIGHT_M, self.centre_m[1]])
        eye_m = middle_m + DISTANCE_PER_SPAN * self.span_m * back
        axes = np.stack([right, np.cross(back, right), -back])
        return View(axes, eye_m, DISTANCE_PER_SPAN * self.span_m, DISTANCE_PER_SPAN * side_px, side_px / 2)


def world_axes(up: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Rows right, up, forward in camera axes, from the direction up (zeros or not finite: the camera's own up).

    Forward is where the camera looks, along the floor; for one that looks straight down, where its picture's top is.
    """
    length = float(np.linalg.norm(up))
    up = up / length if np.isfinite(length) and length > 0 else np.array([0.0, -1.0, 0.0])
    ahead = np.array([0.0, 0.0, 1.0]) if abs(up[2]) < 0.98 else np.array([0.0, np.sign(up[2]), 0.0])
    forward = ahead - (ahead @ up) * up
    forward /= np.linalg.norm(forward)
    return np.stack([np.cross(forward, up), up, forward])


class OverlayPainter:
    """Paints the frames of one video; keeps a floor and a point of view that follow the people.

    `size_wh` is that of the frames, `up` the unit vector pointing up in camera axes (zeros = unknown: as the picture).
    """

    def __init__(self, size_wh: tuple[int, int], up: Float[Array, "3"]) -> None:
        self.size_wh = size_wh
        height_px = min(FULL_HEIGHT_PX, size_wh[1]) // 2 * 2
        self._picture_wh = (round(size_wh[0] * height_px / size_wh[1] / 2) * 2, height_px)
        self._axes = world_axes(np.asarray(up, float))
        self._scene = Scene()
        self._background = _background(height_px)

    @property
    def canvas_size_wh(self) -> tuple[int, int]:
        """Size of what `paint` returns: the picture and a square panel, both even."""
        return self._picture_wh[0] + self._picture_wh[1], self._picture_wh[1]

    def paint(self, bgr: Image, people: Sequence[DrawnPerson], time_s: float | None = None) -> Image:
        """The canvas for the next frame; `time_s` is shown if given."""
        width_px, height_px = self._picture_wh
        canvas = np.empty((height_px, width_px + height_px, 3), np.uint8)
        picture, panel = canvas[:, :width_px], canvas[:, width_px:]
        shrink(bgr, picture)
        for person in people:
            draw_flat(picture, person, height_px / self.size_wh[1])
        panel[:] = self._background
        placed = [person for person in people if person.is_placed]
        self._draw_panel(panel, placed)
        _draw_captions(panel, placed, time_s)
        return canvas

    def _draw_panel(self, panel: Image, people: Sequence[DrawnPerson]) -> None:
        joints_m = [(person.pose_m + person.root_m) @ self._axes.T for person in people]
        self._scene.follow(joints_m)
        view = self._scene.view(len(panel))
        _draw_grid(panel, view, self._scene)
        _draw_camera(panel, view, self._axes, self.size_wh, self._scene.floor_m)
        for xyz_m in joints_m:
            _draw_shadow(panel, view, xyz_m, self._scene.floor_m)
        solids = [_solid(view, person, xyz_m) for person, xyz_m in zip(people, joints_m, strict=True)]
        bones = [(solid.depth_m[i] + solid.depth_m[j], n, i, j) for n, solid in enumerate(solids) for i, j in _BONES]
        for _, n, i, j in sorted(bones, reverse=True):  # far ones first
            solids[n].draw_bone(panel, i, j)


def draw_flat(picture: Image, person: DrawnPerson, scale: float) -> None:
    """The 2D skeleton, at `scale` picture pixels per pixel of the keypoints; joints not seen are left out."""
    seen = (person.score > 0) & np.isfinite(person.xy_px).all(-1)
    if not seen.any():
        return
    xy_px = np.where(seen[:, None], person.xy_px * scale, 0)
    at, bones = sub_pixel(xy_px), _flat_bones(seen)
    width_px = float(np.clip(np.ptp(xy_px[seen], axis=0).max() / 85, 1.6, 5.0))
    for colour, border_px in ((HORIZON, 2), (None, 0)):  # first all the outlines, then the colours
        for parent, child in bones:
            draw_line(picture, at[parent], at[child], colour or tint(child, person.hue), width_px + border_px)
        for joint in np.flatnonzero(seen).tolist():
            draw_dot(picture, at[joint], colour or tint(joint, person.hue), width_px * 0.5 + 1.6 + border_px / 2)


def _flat_bones(seen: Array) -> list[tuple[int, int]]:
    """Bones between seen joints; the trunk is drawn straight through the joints that no detector has."""
    bones = []
    for child in np.flatnonzero(seen).tolist():
        parent = H36M17.parents[child]
        while parent in _NO_LANDMARK and not seen[parent]:
            parent = H36M17.parents[parent]
        if parent >= 0 and seen[parent]:
            bones.append((parent, child))
    return bones


@dataclass(frozen=True)
class _Solid:
    """One person as it appears on the panel, by joint; what the detector did not see is thin and hollow."""

    at: list[Point]
    depth_m: Float[Array, "17"]
    radius_px: Float[Array, "17"]
    width_px: Float[Array, "17"]
    colours: list[Colour]
    seen: Bool[Array, "17"]

    def draw_bone(self, panel: Image, parent: int, child: int) -> None:
        """A bone and the joints at its ends, which all their bones draw again, so that no outline cuts them."""
        width_px = min(self.width_px[parent], self.width_px[child])
        draw_line(panel, self.at[parent], self.at[child], HORIZON, width_px * 1.4)
        draw_line(panel, self.at[parent], self.at[child], self.colours[child], width_px)
        for joint in (parent, child):
            draw_dot(panel, self.at[joint], self.colours[joint], self.radius_px[joint])
            if not self.seen[joint]:
                draw_dot(panel, self.at[joint], BACKGROUND, self.radius_px[joint] * 0.6)


def _solid(view: View, person: DrawnPerson, xyz_m: Float[Array, "17 3"]) -> _Solid:
    xy_px, depth_m = view.project(xyz_m)
    seen, scale = seen_or_spanned(person.score), view.focal_px / depth_m
    # darker behind the point of interest, which gives the eye the order in depth
    shade = np.clip(0.12 + 0.3 * (depth_m - view.distance_m), 0, 0.45)
    colours = [blended(tint(joint, person.hue), BACKGROUND, shade[joint]) for joint in range(17)]
    radius_px = np.where(np.arange(17) == _HEAD, HEAD_RADIUS_M, 0.75 * BONE_WIDTH_M) * scale
    width_px = np.where(seen, 1, 0.35) * BONE_WIDTH_M * scale
    return _Solid(sub_pixel(xy_px), depth_m, radius_px, width_px, colours, seen)


def seen_or_spanned(score: Float[Array, "17"]) -> Bool[Array, "17"]:
    """Seen joints; one that no detector has counts as seen when both its neighbours are."""
    seen = score > 0
    for joint, ends in _NO_LANDMARK.items():
        seen[joint] |= seen[ends].all()
    return seen


def _draw_grid(panel: Image, view: View, scene: Scene) -> None:
    """One-metre squares, whole metres from the camera, fading out around the people, and those metres in writing."""
    radius_m = min(1.5 * scene.span_m, MAX_GRID_M)
    steps_m = np.arange(-int(radius_m), int(radius_m) + 1)
    right_m, forward_m = np.meshgrid(*(steps_m + np.round(scene.centre_m)[:, None]), indexing="ij")
    floor_m = np.stack([right_m, np.full_like(right_m, scene.floor_m), forward_m], -1)
    near = np.clip(1 - np.linalg.norm(floor_m[..., ::2] - scene.centre_m, axis=-1) / radius_m, 0, 1)
    at = np.array(sub_pixel(view.project(floor_m.reshape(-1, 3))[0]), np.int32).reshape(*near.shape, 2)
    for a, b, share in ((at[:-1], at[1:], near[:-1] * near[1:]), (at[:, :-1], at[:, 1:], near[:, :-1] * near[:, 1:])):
        lines, level = np.stack([a, b], -2), np.ceil(share**0.5 * 12)
        for k in np.unique(level[level > 0]):
            cv2.polylines(
                panel, list(lines[level == k]), False, blended(BACKGROUND, GRID, k / 12), 1, cv2.LINE_AA, BITS
            )
    column = len(steps_m) // 2 - 1
    for j in np.flatnonzero((near[column] > 0.3) & (forward_m[column] > 0)):
        x_px, y_px = at[column, j] / (1 << BITS) + (6, -5)
        if x_px > 6:
            write_text(
                panel, f"{forward_m[column, j]:.0f} m", (x_px, y_px), blended(BACKGROUND, INK, near[column, j]), 0.42
            )


def _draw_shadow(panel: Image, view: View, xyz_m: Float[Array, "17 3"], floor_m: float) -> None:
    xy_px, depth_m = view.project(np.where([False, True, False], floor_m, xyz_m))
    at, width_px = sub_pixel(xy_px), 1.6 * BONE_WIDTH_M * view.focal_px / depth_m
    for parent, child in _BONES:
        draw_line(panel, at[parent], at[child], SHADOW, width_px[child])


def _draw_camera(panel: Image, view: View, axes: Float[Array, "3 3"], size_wh: tuple[int, int], floor_m: float) -> None:
    """The filming camera as a small pyramid on a stick, if it is in view."""
    x_m, y_m = 0.16 * np.array(size_wh) / max(size_wh)
    pyramid_m = np.array([[0, 0, 0], [-x_m, -y_m, 0.26], [x_m, -y_m, 0.26], [x_m, y_m, 0.26], [-x_m, y_m, 0.26]])
    xy_px, depth_m = view.project(np.vstack([pyramid_m @ axes.T, [[0.0, floor_m, 0.0]]]))
    if (depth_m <= NEAR_M).any() or (xy_px[:5] < 0).any() or (xy_px[:5] >= len(panel)).any():
        return
    tip, *base, foot = sub_pixel(xy_px)
    draw_line(panel, tip, foot, GRID, 1.0)
    for corner, following in zip(base, base[1:] + base[:1], strict=True):
        draw_line(panel, tip, corner, CAMERA, 1.0)
        draw_line(panel, corner, following, CAMERA, 2.0)


def _draw_captions(panel: Image, people: Sequence[DrawnPerson], time_s: float | None) -> None:
    """The people's distances from the camera, the time, and what the colours mean."""
    unit_px = len(panel) / FULL_HEIGHT_PX
    x_px = 24 * unit_px
    for person in [person for person in people if person.score.any()][:4]:
        (dot,) = sub_pixel(np.array([[x_px + 6 * unit_px, 32 * unit_px]]))
        draw_dot(panel, dot, person.hue, 6 * unit_px)
        metres = f"{np.linalg.norm(person.root_m):.2f} m"
        x_px = write_text(panel, metres, (x_px + 20 * unit_px, 40 * unit_px), INK, 0.75) + 26 * unit_px
    if time_s is not None:
        write_text(panel, f"{time_s:.2f} s", (620 * unit_px, 40 * unit_px), CAMERA, 0.55)
    x_px = write_text(panel, "left", (24 * unit_px, 700 * unit_px), LEFT, 0.5)
    write_text(panel, "right", (x_px + 14 * unit_px, 700 * unit_px), RIGHT, 0.5)


def _background(side_px: int) -> Image:
    """Dark, a little lighter towards the viewer, with an edge against the picture."""
    share = np.linspace(0, 1, side_px)[:, None, None] ** 0.8
    panel = np.repeat(HORIZON + share * np.subtract(BACKGROUND, HORIZON), side_px, axis=1).round().astype(np.uint8)
    panel[:, : max(side_px // 360, 1)] = HORIZON
    return panel


def shrink(bgr: Image, out: Image) -> None:
    """Scale into `out`: halves by area (fast, no moire), the rest linear."""
    while bgr.shape[0] >= 2 * out.shape[0]:
        bgr = cv2.resize(bgr, (bgr.shape[1] // 2, bgr.shape[0] // 2), interpolation=cv2.INTER_AREA)
    cv2.resize(bgr, (out.shape[1], out.shape[0]), dst=out, interpolation=cv2.INTER_LINEAR)


def tint(joint: int, middle: Colour) -> Colour:
    """The colour of a joint: of its side, or that of the person."""
    return {"left": LEFT, "right": RIGHT}.get(H36M17.joints[joint].partition("_")[0], middle)
