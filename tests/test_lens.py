"""Lens models: every pixel to its ray and back, to the corners of real wide lenses; and where a model has no answer."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poseda_deploy.bundle import Manifest
from poseda_deploy.camera import Camera
from poseda_deploy.errors import CameraError, InputError
from poseda_deploy.keypoints import Keypoints2D, load_keypoints
from poseda_deploy.opencv import cv2
from poseda_deploy.skeleton import H36M17

WIDE = {
    # Published calibrations of data sets: EuRoC MAV cam0, KITTI raw 2011_09_26 camera 0, TUM RGB-D freiburg1.
    "euroc": Camera(
        (752, 480), (458.654, 457.296), (367.215, 248.375), (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05)
    ),
    "kitti": Camera(
        (1392, 512),
        (984.2439, 980.8141),
        (690.0, 233.1966),
        (-0.3728755, 0.2037299, 0.002219027, 0.001383707, -0.07233722),
    ),
    "freiburg1": Camera(
        (640, 480),
        (517.306408, 516.469215),
        (318.643040, 255.313989),
        (0.262383, -0.953104, -0.005358, 0.002628, 1.163314),
    ),
    # Not measured: what action cameras at 1080p are about, and every term of the model at once.
    "action 0.30": Camera((1920, 1080), (850.0, 850.0), (960.0, 540.0), (-0.30, 0.10, 0.0, 0.0)),
    "action 0.35": Camera((1920, 1080), (900.0, 900.0), (960.0, 540.0), (-0.35, 0.15, 0.0, 0.0)),
    "all terms": Camera(
        (1280, 720),
        (900.0, 900.0),
        (640.0, 360.0),
        (-0.2, 0.05, 0.001, -0.002, 0.01, 0.1, -0.01, 0.002, 0.001, -0.002, 0.001, 0.0005, 0.05, -0.03),
    ),
}
# Published calibration of TUM VI's cam0, 512 x 512, whose lens sees 195 degrees.
FISHEYE = Camera(
    (512, 512),
    (190.97847715128717, 190.9733070521226),
    (254.93170605935475, 256.8974428996504),
    (0.0034823894022493434, 0.0007150348452162257, -0.0020532361418706202, 0.00020293673591811182),
    lens="fisheye",
)
FOLDS = Camera((1920, 1080), (850.0, 850.0), (960.0, 540.0), (-0.35, 0.0, 0.0, 0.0))
"""r - 0.35 r^3 is largest at r = 0.976: nothing is seen beyond 553 px from the middle."""

shares = st.floats(0, 1)


def projected_by_opencv(camera: Camera, ideal_px: np.ndarray) -> np.ndarray:
    """Where OpenCV puts points that an ideal camera has at these pixels."""
    rays = np.column_stack([(ideal_px - camera.center_px) / camera.focal_px, np.ones(len(ideal_px))])
    points, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion))
    return np.asarray(points[:, 0])


@pytest.mark.parametrize("name", WIDE)
@settings(max_examples=60, deadline=None)
@given(across=shares, down=shares)
def test_projection_undoes_undistortion_to_the_corners(name: str, across: float, down: float) -> None:
    camera = WIDE[name]
    pixel = np.array([[across, down], [0, 0], [1, 0], [0, 1], [1, 1]]) * camera.size_wh
    ideal_px = camera.undistorted(pixel)
    np.testing.assert_allclose(projected_by_opencv(camera, ideal_px), pixel, atol=1e-5)
    rays = np.column_stack([camera.rays(pixel), np.ones(len(pixel))])
    np.testing.assert_allclose(camera.project(rays * 3), pixel, atol=1e-5)


def test_where_a_lens_model_folds_there_is_no_ray() -> None:
    pixels = np.array([[960.0, 540], [960 + 500, 540], [960, 540 + 530], [960 + 560, 540], [0, 0], [1e6, -1e6]])
    ideal_px = FOLDS.undistorted(pixels)
    assert np.isfinite(ideal_px).all(-1).tolist() == [True, True, True, False, False, False]
    np.testing.assert_allclose(projected_by_opencv(FOLDS, ideal_px[:3]), pixels[:3], atol=1e-5)
    folded = np.array([[1.2, 0, 1.0], [0.9, 0, 1.0]])
    assert np.isnan(FOLDS.project(folded)).all(-1).tolist() == [True, False], (
        "no pixel either, where it would fold back"
    )


def test_a_joint_without_a_ray_is_missing() -> None:
    xy_px = np.full((1, 1, 17, 2), (960.0, 540.0), np.float32)
    xy_px[0, 0, 3] = 5.0
    seen = Keypoints2D(xy_px, np.ones((1, 1, 17), np.float32), FOLDS.size_wh, H36M17, np.zeros(1))
    inputs = seen.model_input(FOLDS)
    assert np.isfinite(inputs).all()
    assert (inputs[0, 0, :, 2] == 0).nonzero()[0].tolist() == [3]


def test_undistortion_keeps_shape_type_and_nothing_at_all() -> None:
    camera = WIDE["euroc"]
    assert camera.undistorted(np.zeros((0, 2, 17, 2), np.float32)).shape == (0, 2, 17, 2)
    ideal_px = camera.undistorted(np.full((3, 17, 2), 100, np.float32))
    assert ideal_px.shape == (3, 17, 2) and ideal_px.dtype == np.float32


@settings(max_examples=60, deadline=None)
@given(shares, shares)
def test_a_fisheye_is_opencv_s(across: float, down: float) -> None:
    pixel = np.array([[256, 256], [256, 20], [110, 400], [across * 360 + 76, down * 360 + 76]])
    rays = np.column_stack([FISHEYE.rays(pixel), np.ones(4)])
    zero = np.zeros(3)
    points, _ = cv2.fisheye.projectPoints(rays[:, None], zero, zero, FISHEYE.matrix, np.array(FISHEYE.distortion))
    np.testing.assert_allclose(points[:, 0], pixel, atol=1e-5)
    np.testing.assert_allclose(FISHEYE.project(rays * 2), pixel, atol=1e-5)


def test_a_fisheye_gives_no_ideal_pixel_near_90_degrees_and_beyond() -> None:
    angle = np.radians([84, 86, 95])
    places = FISHEYE.project(np.stack([np.sin(angle), 0 * angle, np.cos(angle)], -1))
    assert np.isfinite(places).all(-1).tolist() == [True, False, False]
    edge = np.array([[254.93 + 190.98 * degrees, 256.9] for degrees in np.radians([83, 88, 95])])
    assert np.isfinite(FISHEYE.undistorted(edge)).all(-1).tolist() == [True, False, False]
    assert 0.1 < FISHEYE.blind_share < 0.15, "the corners, and a rim"


def test_a_fisheye_stays_one_in_files_and_other_sizes(tmp_path: Path) -> None:
    seen = np.zeros((1, 1, 17, 2), np.float32) + 300
    kept = Keypoints2D(seen, np.ones((1, 1, 17), np.float32), (512, 512), H36M17, np.zeros(1), FISHEYE)
    kept.save(tmp_path / "a.npz")
    camera = load_keypoints(tmp_path / "a.npz").camera
    assert camera is not None
    assert (camera.lens, camera.distortion, camera.focal_px) == ("fisheye", FISHEYE.distortion, FISHEYE.focal_px)
    np.testing.assert_allclose(camera.rays(seen), FISHEYE.rays(seen), atol=1e-6)
    np.testing.assert_allclose(FISHEYE.resized((1024, 1024)).rays(seen * 2), FISHEYE.rays(seen), atol=1e-6)
    manifest = Manifest({}, camera=json.loads(json.dumps(asdict(FISHEYE))))
    assert manifest.known_camera == FISHEYE


def test_keypoints_of_an_unknown_lens_model_are_refused(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "xy": np.ones((1, 17, 2)),
        "score": np.ones((1, 17)),
        "image_size": (512, 512),
        "skeleton": "h36m17",
    }
    np.savez(tmp_path / "a.npz", **arrays, K=FISHEYE.matrix, dist=FISHEYE.distortion, lens="mirror")
    with pytest.raises(InputError, match="unknown lens model 'mirror'"):
        load_keypoints(tmp_path / "a.npz")


def test_a_skewed_fisheye_is_refused() -> None:
    skewed = FISHEYE.matrix
    skewed[0, 1] = 2
    with pytest.raises(CameraError, match="skew"):
        Camera.from_matrix(skewed, (512, 512), np.array(FISHEYE.distortion), lens="fisheye")


def test_a_circle_inside_a_wide_picture_is_no_impossible_focal_length() -> None:
    assert Camera((1920, 1080), (290.0, 290.0), (960.0, 540.0), lens="fisheye").blind_share > 0.5
    with pytest.raises(CameraError, match="impossible"):
        Camera((1920, 1080), (290.0, 290.0), (960.0, 540.0))


def test_what_is_drawn_of_a_camera_spans_what_its_lens_sees() -> None:
    plain = Camera((1280, 720), (1000.0, 1000.0), (640.0, 360.0))
    assert plain.pyramid == pytest.approx((0.64, 0.36))
    assert np.degrees(FISHEYE.view_rad) == pytest.approx((153, 153), abs=5)
    assert FISHEYE.pyramid == pytest.approx((1.73, 1.73), abs=0.01), "no further than can be drawn"
