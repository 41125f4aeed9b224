"""One camera: pixels to rays and back, lens distortion, resizing. Axes: x right, y down, z forward."""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import CameraError
from poseda_deploy.lens import COEFFICIENTS, LensModel, lens_of

DEFAULT_FOV_DEG = 60.0
"""Across the longer image side, when nothing is known: between a phone (65) and a webcam (55)."""
LARGEST_SIDE_PX = 16_384
"""Of an image in a file: what cameras have and video encoders take."""
# Of the longer side. 0.2 is 136 degrees for a pinhole; a fisheye whose whole circle lies in a wide picture has 0.15.
_FOCAL_RANGE: dict[LensModel, tuple[float, float]] = {"brown-conrady": (0.2, 20.0), "fisheye": (0.1, 20.0)}
_WIDEST_DRAWN_DEG = 120.0
_SAME_LENS = 0.05  # of the focal length: calibrations of one camera differ by 1 to 2 %, and 5 % is 3 degrees of tilt
_SKEW = 0.002  # of the focal length: a pixel or two at the picture's upper and lower edge


@dataclass(frozen=True)
class Camera:
    """Camera with one of OpenCV's lens models."""

    size_wh: tuple[int, int]
    """Image size in pixels."""
    focal_px: tuple[float, float]
    """fx, fy."""
    center_px: tuple[float, float]
    """Principal point cx, cy."""
    distortion: tuple[float, ...] = ()
    """OpenCV order: k1, k2, p1, p2, k3, ..., or a fisheye's k1, k2, k3, k4; empty for none."""
    origin: str = "given"
    """Where the numbers came from, for the summary."""
    lens: LensModel = "brown-conrady"
    """What `distortion` is of."""

    def __post_init__(self) -> None:
        width, height = self.size_wh
        if width < 2 or height < 2:
            raise CameraError(f"image size must be at least 2x2 pixels, got {width}x{height}")
        numbers = (*self.focal_px, *self.center_px, *self.distortion)
        if not all(math.isfinite(x) for x in numbers):
            raise CameraError(f"intrinsics must be finite numbers, got {numbers}")
        longer = max(self.size_wh)
        low, high = (share * longer for share in _FOCAL_RANGE[self.lens])
        if not all(low <= f <= high for f in self.focal_px):
            raise CameraError(
                f"focal length {self.focal_px[0]:.6g}, {self.focal_px[1]:.6g} px is impossible for a {width}x{height} "
                f"image: expected {low:.0f} to {high:.0f} px",
                hint="give pixels, not millimetres, or use --fov-deg",
            )
        if not (
            -0.5 * width <= self.center_px[0] <= 1.5 * width and -0.5 * height <= self.center_px[1] <= 1.5 * height
        ):
            raise CameraError(
                f"principal point {self.center_px} lies far outside the {width}x{height} image",
                hint="were the intrinsics calibrated at another resolution?",
            )
        allowed = COEFFICIENTS[self.lens]
        if len(self.distortion) not in allowed:
            expected = " or ".join(map(str, allowed[1:]))
            raise CameraError(f"distortion of a {self.lens} lens has {expected} numbers, got {len(self.distortion)}")

    @classmethod
    def from_matrix(
        cls,
        matrix: Float[np.ndarray, "3 3"],
        size_wh: tuple[int, int],
        distortion: Float[np.ndarray, " d"] | None = None,
        origin: str = "given",
        lens: LensModel = "brown-conrady",
    ) -> "Camera":
        """From OpenCV's K and distortion vector."""
        matrix = np.asarray(matrix, np.float64)
        if matrix.shape != (3, 3) or not np.allclose(matrix[2], (0, 0, 1)) or matrix[1, 0] != 0:
            raise CameraError(
                f"K must be 3x3 with rows (fx, 0, cx), (0, fy, cy), (0, 0, 1), got {matrix.tolist()}",
                hint="check that it is not transposed or normalised",
            )
        if abs(matrix[0, 1]) > _SKEW * abs(matrix[0, 0]):
            raise CameraError(
                f"K has a skew of {matrix[0, 1]:g} px, which is not supported",
                hint="calibrate with square axes: cv2.fisheye.CALIB_FIX_SKEW",
            )
        numbers = () if distortion is None else tuple(float(x) for x in np.ravel(distortion))
        focal, center = (float(matrix[0, 0]), float(matrix[1, 1])), (float(matrix[0, 2]), float(matrix[1, 2]))
        return cls(size_wh, focal, center, numbers if any(numbers) else (), origin, lens)

    @classmethod
    def from_focal(cls, focal_px: float, size_wh: tuple[int, int], origin: str) -> "Camera":
        """Square pixels, principal point in the middle."""
        return cls(size_wh, (focal_px, focal_px), (size_wh[0] / 2, size_wh[1] / 2), (), origin)

    @classmethod
    def from_fov(cls, fov_deg: float, size_wh: tuple[int, int], origin: str) -> "Camera":
        """From the angle of view across the longer image side."""
        if not 1 < fov_deg < 150:
            raise CameraError(
                f"angle of view must lie in 1..150 degrees, got {fov_deg:g}",
                hint="a fisheye needs its calibration: --intrinsics FILE",
            )
        return cls.from_focal(max(size_wh) / 2 / math.tan(math.radians(fov_deg) / 2), size_wh, origin)

    @property
    def matrix(self) -> Float[np.ndarray, "3 3"]:
        """K."""
        (fx, fy), (cx, cy) = self.focal_px, self.center_px
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])

    @property
    def vector(self) -> Float[np.ndarray, "4"]:
        """fx, fy, cx, cy: the lifter's `camera` input."""
        return np.array([*self.focal_px, *self.center_px], np.float32)

    def summary(self) -> dict[str, object]:
        """For --json: what was used and where it came from."""
        (fx, fy), (cx, cy) = self.focal_px, self.center_px
        numbers = {"fx": round(fx, 2), "fy": round(fy, 2), "cx": round(cx, 2), "cy": round(cy, 2)}
        return {**numbers, "lens": self.lens, "distortion": list(self.distortion), "from": self.origin}

    @property
    def is_lensed(self) -> bool:
        """Whether straight lines come out bent."""
        return bool(self.distortion) or self.lens == "fisheye"

    @property
    def view_rad(self) -> tuple[float, float]:
        """Angles of view across and down the picture, through its principal point, as far as the lens model sees."""
        (width, height), (cx, cy) = self.size_wh, self.center_px
        edges = np.array([[0, cy], [width, cy], [cx, 0], [cx, height]])
        angles = np.arctan(np.linalg.norm(self.rays(edges), axis=-1))
        left, right, top, bottom = np.nan_to_num(angles, nan=math.radians(self.limit_deg)).tolist()
        return left + right, top + bottom

    @property
    def pyramid(self) -> tuple[float, float]:
        """Half the width and height of the picture at distance 1, where the camera is drawn: of a fisheye a part."""
        across, down = (math.tan(min(angle, math.radians(_WIDEST_DRAWN_DEG)) / 2) for angle in self.view_rad)
        return across, down

    @property
    def limit_deg(self) -> float:
        """How far off its axis the lens model sees."""
        return math.degrees(lens_of(self.lens, self.distortion).limit_rad) if self.is_lensed else 90.0

    @property
    def blind_share(self) -> float:
        """Part of the picture to whose pixels the lens model gives no ray, by a grid of them, edges and corners too."""
        steps = np.stack(np.meshgrid(*(np.linspace(0, side - 1, 33) for side in self.size_wh)), -1)
        return float(np.isnan(self.undistorted(steps)).any(-1).mean())

    def undistorted(self, xy_px: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... 2"]:
        """Where the pixels would be without lens distortion, same K; NaN where the lens model sees no ray."""
        if not self.is_lensed or not xy_px.size:
            return xy_px
        focal, center = np.array(self.focal_px), np.array(self.center_px)
        place = (np.asarray(xy_px, np.float64).reshape(-1, 2) - center) / focal
        ideal = lens_of(self.lens, self.distortion).undistorted(place) * focal + center
        return ideal.reshape(xy_px.shape).astype(xy_px.dtype)

    def rays(self, xy_px: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... 2"]:
        """Pixels to x/z, y/z in camera axes, distortion removed."""
        return (self.undistorted(xy_px) - np.array(self.center_px)) / np.array(self.focal_px)

    def project(self, xyz_m: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 2"]:
        """Points in camera axes to pixels, distortion included; NaN behind the camera and where the lens is blind."""
        flat = np.asarray(xyz_m, np.float64).reshape(-1, 3)
        if self.is_lensed:
            place = lens_of(self.lens, self.distortion).distorted(flat)
        else:
            place = np.full((len(flat), 2), np.nan)
            ahead = flat[:, 2] > 1e-6
            place[ahead] = flat[ahead, :2] / flat[ahead, 2:]
        return (place * self.focal_px + self.center_px).reshape(*xyz_m.shape[:-1], 2)

    def resized(self, size_wh: tuple[int, int]) -> "Camera":
        """The same camera after the whole image was scaled to another size."""
        sx, sy = size_wh[0] / self.size_wh[0], size_wh[1] / self.size_wh[1]
        if not same_shape(self.size_wh, size_wh):
            raise CameraError(
                "intrinsics are for a {}x{} image, this one is {}x{}".format(*self.size_wh, *size_wh),
                hint="another shape is another crop: calibrate at this resolution",
            )
        (fx, fy), (cx, cy) = self.focal_px, self.center_px
        return replace(self, size_wh=size_wh, focal_px=(fx * sx, fy * sy), center_px=(cx * sx, cy * sy))


def unlike(one: Camera, other: Camera) -> str:
    """Why a tilt found with one camera is not the other's: what of them differs; empty where they may be the same."""
    if not same_shape(one.size_wh, other.size_wh):
        return "its pictures are {}x{}, these {}x{}".format(*one.size_wh, *other.size_wh)
    one = one.resized(other.size_wh)
    if one.lens != other.lens:
        return f"its lens is {one.lens}, this {other.lens}"
    ratio = np.divide(one.focal_px, other.focal_px)
    if np.abs(np.log(ratio)).max() > _SAME_LENS:
        return f"its focal length is {one.focal_px[0]:.0f} px, this {other.focal_px[0]:.0f} px"
    if math.dist(one.center_px, other.center_px) > _SAME_LENS * other.focal_px[0]:
        return "its principal point is {:.0f}, {:.0f}, this {:.0f}, {:.0f}".format(*one.center_px, *other.center_px)
    return ""


def same_shape(one_wh: tuple[int, int], other_wh: tuple[int, int]) -> bool:
    """Whether a picture may be the other one scaled."""
    return abs(one_wh[0] * other_wh[1] / (one_wh[1] * other_wh[0]) - 1) <= 0.02


def default_camera(size_wh: tuple[int, int]) -> Camera:
    """The stated guess for a camera nobody calibrated."""
    return Camera.from_fov(DEFAULT_FOV_DEG, size_wh, f"default: {DEFAULT_FOV_DEG:g} degrees across the longer side")
