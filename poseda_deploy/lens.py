"""Lenses: where on the sensor a ray arrives, and which ray arrives at a place. OpenCV's two models, in focal lengths.

Undistortion is Newton's method from a table. OpenCV's own stops after 5 steps of a fixed-point iteration, up to 47 px
short near the edge of a wide lens, and does not say where a lens model has no answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import CameraError

LensModel = Literal["brown-conrady", "fisheye"]
"""OpenCV's calib3d (radial, tangential, rational, thin prism, tilt) and cv2.fisheye (equidistant, Kannala-Brandt)."""
COEFFICIENTS: dict[LensModel, tuple[int, ...]] = {"brown-conrady": (0, 4, 5, 8, 12, 14), "fisheye": (0, 4)}
"""How many numbers each has; 0 = none, all zero."""
_NAMES: dict[str, LensModel] = {
    **dict.fromkeys(("brown-conrady", "plumb-bob", "rational-polynomial", "radtan", "opencv"), "brown-conrady"),
    **dict.fromkeys(("fisheye", "equidistant", "kannala-brandt", "opencv-fisheye"), "fisheye"),
}
FARTHEST_DEG = 85.0
"""Off the axis. The lifter takes pixels of a pinhole, which go to infinity at 90 degrees."""
LEAST_SLOPE = 0.1
"""Of the sensor's radius, in focal lengths a radian: below it a pixel of error is ten, and soon the model folds."""
_SAMPLES, _STEPS = 1024, 8
_CONVERGED = 1e-7  # the last step, in focal lengths: Newton squares what is left, so that is rounding


@dataclass(frozen=True)
class Lens:
    """One lens: a model and its coefficients in OpenCV's order."""

    model: LensModel
    coefficients: tuple[float, ...]

    def distorted(self, xyz: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Where rays arrive, in focal lengths from the principal point; NaN where the lens sees none of them."""
        radius = np.hypot(xyz[:, 0], xyz[:, 1])
        angle = np.arctan2(radius, xyz[:, 2])
        seen = angle <= self.limit_rad
        place = np.full((len(xyz), 2), np.nan)
        if self.model == "fisheye":
            scale = self._profile(angle[seen]) / np.maximum(radius[seen], 1e-12)
            place[seen] = xyz[seen, :2] * scale[:, None]
        else:
            place[seen] = self._tilted(self._brown(*(xyz[seen, :2] / xyz[seen, 2:]).T)[0])
        return place

    def undistorted(self, place: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """x/z, y/z of the rays that arrive there; NaN where none does, or only beyond `limit_rad`."""
        with np.errstate(all="ignore"):  # what is far outside runs away, and is found out at the end
            if self.model == "fisheye":
                return self._fisheye_rays(place)
            return self._brown_rays(self._tilted(place, back=True))

    @cached_property
    def limit_rad(self) -> float:
        """Largest angle off the axis up to which the radius grows, and fast enough to tell angles apart."""
        return float(self._table[0][-1])

    @cached_property
    def _table(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Angles off the axis and the radius at each, both rising; tangential terms left out."""
        angle = np.linspace(0, np.radians(FARTHEST_DEG), _SAMPLES)
        with np.errstate(all="ignore"):  # a pole of the rational model ends the table like a fold
            radius = self._profile(angle)
            rises = np.diff(radius) >= LEAST_SLOPE * angle[1]
        last = _SAMPLES if rises.all() else int(rises.argmin()) + 1
        return angle[:last], radius[:last]

    def _profile(self, angle: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
        """Radius on the sensor at an angle off the axis."""
        if self.model == "fisheye":
            square = angle**2
            return angle * (1 + square * _polynomial(self._padded, square))
        tan = np.tan(angle)
        k1, k2, _, _, k3, k4, k5, k6 = self._padded[:8]
        return tan * (1 + tan**2 * _polynomial((k1, k2, k3), tan**2)) / (1 + tan**2 * _polynomial((k4, k5, k6), tan**2))

    @cached_property
    def _padded(self) -> tuple[float, ...]:
        """All coefficients of the model, absent ones 0."""
        return (*self.coefficients, *(0.0,) * (max(COEFFICIENTS[self.model]) - len(self.coefficients)))

    def _fisheye_rays(self, place: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        radius = np.hypot(*place.T)
        angle = np.interp(radius, *reversed(self._table))
        slopes = tuple(power * k for power, k in zip((3, 5, 7, 9), self._padded, strict=True))
        for _ in range(_STEPS):
            square = angle**2
            step = (self._profile(angle) - radius) / (1 + square * _polynomial(slopes, square))
            angle = angle - step
            solved = np.abs(step) < _CONVERGED
            if solved.all():
                break
        good = solved & (angle <= self.limit_rad) & (angle >= 0)
        rays = place * (np.tan(angle) / np.maximum(radius, 1e-12))[:, None]
        return np.where(good[:, None], rays, np.nan)

    def _brown_rays(self, place: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Newton in two dimensions, from the ray that only the radial part would give."""
        farthest = np.tan(self.limit_rad)
        radius = np.hypot(*place.T)
        x, y = place.T * (np.tan(np.interp(radius, *reversed(self._table))) / np.maximum(radius, 1e-12))
        for _ in range(_STEPS):
            found, (xx, xy, yx, yy) = self._brown(x, y)
            off_x, off_y = (found - place).T
            determinant = xx * yy - xy * yx
            step_x, step_y = (yy * off_x - xy * off_y) / determinant, (xx * off_y - yx * off_x) / determinant
            x, y = x - step_x, y - step_y
            solved = np.maximum(np.abs(step_x), np.abs(step_y)) < _CONVERGED
            if solved.all():
                break
        good = solved & (np.hypot(x, y) <= farthest)
        return np.where(good[:, None], np.stack([x, y], -1), np.nan)

    def _brown(
        self, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, "n 2"], tuple[Float[np.ndarray, " n"], ...]]:
        """Sensor coordinates before the tilt, and their derivatives: x by x, x by y, y by x, y by y."""
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = self._padded[:12]
        square, cross = x * x + y * y, x * y
        above, below = 1 + square * _polynomial((k1, k2, k3), square), 1 + square * _polynomial((k4, k5, k6), square)
        radial = above / below
        growth = 2 * (_polynomial((k1, 2 * k2, 3 * k3), square) - radial * _polynomial((k4, 2 * k5, 3 * k6), square))
        growth = growth / below
        place = np.stack(
            [
                x * radial + 2 * p1 * cross + p2 * (square + 2 * x * x) + square * (s1 + s2 * square),
                y * radial + p1 * (square + 2 * y * y) + 2 * p2 * cross + square * (s3 + s4 * square),
            ],
            -1,
        )
        prism_x, prism_y = 2 * (s1 + 2 * s2 * square), 2 * (s3 + 2 * s4 * square)
        mixed = cross * growth + 2 * (p1 * x + p2 * y)
        return place, (
            radial + x * x * growth + 2 * p1 * y + 6 * p2 * x + x * prism_x,
            mixed + y * prism_x,
            mixed + x * prism_y,
            radial + y * y * growth + 6 * p1 * y + 2 * p2 * x + y * prism_y,
        )

    def _tilted(self, place: Float[np.ndarray, "n 2"], *, back: bool = False) -> Float[np.ndarray, "n 2"]:
        """On a sensor that is tilted (Scheimpflug), as in OpenCV's computeTiltProjectionMatrix; or off it again."""
        if self._tilt is None:
            return place
        matrix = np.linalg.inv(self._tilt) if back else self._tilt
        moved = np.column_stack([place, np.ones(len(place))]) @ matrix.T
        return moved[:, :2] / moved[:, 2:]

    @cached_property
    def _tilt(self) -> Float[np.ndarray, "3 3"] | None:
        if not any(self._padded[12:]):
            return None
        (cos_x, cos_y), (sin_x, sin_y) = np.cos(self._padded[12:]), np.sin(self._padded[12:])
        about_x = np.array([[1, 0, 0], [0, cos_x, sin_x], [0, -sin_x, cos_x]])
        turn = np.array([[cos_y, 0, -sin_y], [0, 1, 0], [sin_y, 0, cos_y]]) @ about_x
        return np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1]]) @ turn


def lens_named(name: str) -> LensModel:
    """The model that a camera file calls so: OpenCV's, ROS's, Kalibr's and COLMAP's names."""
    plain = name.strip().lower().replace("_", "-")
    if plain not in _NAMES:
        raise CameraError(f"unknown lens model {name!r}", hint=f"one of {', '.join(_NAMES)}; or calibrate with OpenCV")
    return _NAMES[plain]


@lru_cache(maxsize=32)
def lens_of(model: LensModel, coefficients: tuple[float, ...]) -> Lens:
    """The lens, with its table kept for the next frame."""
    return Lens(model, coefficients)


def _polynomial(coefficients: Sequence[float], x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """c0 + c1 x + c2 x^2 + ..."""
    total = np.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total
