import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poseda_deploy.calibrate import Known
from poseda_deploy.camera import Camera, default_camera
from poseda_deploy.camera_flags import CameraOptions, SceneOptions, choose_camera, known_scene
from poseda_deploy.errors import CameraError, InputError
from poseda_deploy.intrinsics import load_intrinsics
from poseda_deploy.opencv import cv2

K = np.array([[900.0, 0, 630], [0, 905, 350], [0, 0, 1]])
LENS = (-0.2, 0.05, 0.001, -0.002, 0.01)
LENSED = Camera.from_matrix(K, (1280, 720), np.array(LENS))


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.3, 0.3), st.floats(0.5, 20))
def test_rays_undo_projection(x: float, y: float, z: float) -> None:
    point = np.array([x * z, y * z, z])
    np.testing.assert_allclose(LENSED.rays(LENSED.project(point)), (x, y), atol=2e-5)


def test_optical_axis_hits_the_principal_point() -> None:
    np.testing.assert_allclose(LENSED.project(np.array([0, 0, 3.0])), (630, 350), atol=1e-9)


def test_behind_the_camera_is_nan() -> None:
    assert np.isnan(LENSED.project(np.array([0.1, 0, -2.0]))).all()


def test_agrees_with_opencv() -> None:
    points = np.random.default_rng(0).normal((0, 0, 4), 0.5, (20, 3))
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, np.array(LENS))
    np.testing.assert_allclose(LENSED.project(points), expected[:, 0], atol=1e-9)


def test_resizing_scales_pixels() -> None:
    point = np.array([0.3, -0.2, 3.0])
    np.testing.assert_allclose(LENSED.resized((640, 360)).project(point), LENSED.project(point) / 2, atol=1e-9)


def test_resizing_to_another_shape_is_refused() -> None:
    with pytest.raises(CameraError, match="1280x720 image, this one is 1080x1920"):
        LENSED.resized((1080, 1920))


def test_default_camera_says_what_it_is() -> None:
    camera = default_camera((1280, 720))
    assert camera.origin.startswith("default: 60 degrees")
    left, right = camera.rays(np.array([[0.0, 360], [1280, 360]]))
    assert np.degrees(np.arctan(right[0]) - np.arctan(left[0])) == pytest.approx(60)


@pytest.mark.parametrize(
    ("focal", "center", "message"),
    [
        (4.2, (640.0, 360.0), "focal length 4.2, 4.2 px is impossible"),
        (float("nan"), (640.0, 360.0), "must be finite"),
        (900.0, (9000.0, 360.0), "principal point"),
        (-900.0, (640.0, 360.0), "impossible"),
    ],
)
def test_impossible_intrinsics(focal: float, center: tuple[float, float], message: str) -> None:
    with pytest.raises(CameraError, match=message):
        Camera((1280, 720), (focal, focal), center)


def test_transposed_matrix_is_named() -> None:
    with pytest.raises(CameraError, match="K must be 3x3"):
        Camera.from_matrix(K.T, (1280, 720))


def _opencv_file(path: Path) -> None:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 1280)
    storage.write("image_height", 720)
    storage.write("camera_matrix", K)
    storage.write("distortion_coefficients", np.array(LENS))
    storage.release()


def _json_file(path: Path) -> None:
    path.write_text(json.dumps({"image_size": [1280, 720], "K": K.tolist(), "dist": list(LENS)}))


def _ros_file(path: Path) -> None:
    data = ", ".join(str(x) for x in K.ravel())
    lens = ", ".join(str(x) for x in LENS)
    path.write_text(
        "image_width: 1280\nimage_height: 720\ncamera_matrix:\n  rows: 3\n  cols: 3\n"
        f"  data: [{data}]\ndistortion_coefficients:\n  rows: 1\n  cols: 5\n  data: [{lens}]\n"
    )


def _pose2sim_file(path: Path) -> None:
    path.write_text(
        f'[cam_01]\nname = "left"\nsize = [1280.0, 720.0]\nmatrix = {K.tolist()}\ndistortions = {list(LENS)}\n'
        "rotation = [0.0, 0.0, 0.0]\ntranslation = [0.0, 0.0, 0.0]\n[metadata]\nadjusted = false\n"
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("c.yml", _opencv_file),
        ("c.json", _opencv_file),
        ("d.json", _json_file),
        ("ros.yaml", _ros_file),
        ("calib.toml", _pose2sim_file),
    ],
)
def test_intrinsics_files_agree(name: str, write: object, tmp_path: Path) -> None:
    path = tmp_path / name
    write(path)  # type: ignore[operator]
    camera = load_intrinsics(path, (640, 360))
    np.testing.assert_allclose(camera.matrix[:2], K[:2] / 2)
    np.testing.assert_allclose(camera.distortion, LENS)
    assert camera.origin == name


def test_several_cameras_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "calib.toml"
    table = f"size = [1280.0, 720.0]\nmatrix = {K.tolist()}\ndistortions = [0.0, 0.0, 0.0, 0.0]\n"
    path.write_text(f'[a]\nname = "left"\n{table}[b]\nname = "right"\n{table}')
    with pytest.raises(CameraError, match="holds 2 cameras") as caught:
        load_intrinsics(path, (1280, 720))
    assert "left, right" in caught.value.hint
    assert load_intrinsics(path, (1280, 720), "right").focal_px == (900, 905)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("a.json", text) for text in ("[1, 2", "[1]", "{}", '{"K": [1, 2]}', '{"K": "x"}')],
        ("a.json", '{"K": [[1,0,0],[0,1,0],[0,0,1]]}'),
        ("a.yml", "nonsense: ["),
        ("a.toml", "x = "),
        ("a.txt", "K"),
    ],
)
def test_bad_files_name_themselves(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(CameraError, match=str(path)):
        load_intrinsics(path, (1280, 720))


FISHEYE_K, FISHEYE = (
    np.array([[190.978, 0, 254.932], [0, 190.973, 256.897], [0, 0, 1]]),
    (0.0035, 0.0007, -0.0021, 2e-4),
)
_ROS = (
    "image_width: 512\nimage_height: 512\ncamera_name: wide\ncamera_matrix:\n  rows: 3\n  cols: 3\n"
    f"  data: {FISHEYE_K.ravel().tolist()}\ndistortion_model: MODEL\n"
    f"distortion_coefficients:\n  rows: 1\n  cols: 4\n  data: {list(FISHEYE)}\n"
)
_POSE2SIM = (
    f"[cam]\nsize = [512.0, 512.0]\nmatrix = {FISHEYE_K.tolist()}\ndistortions = {list(FISHEYE)}\nfisheye = MODEL\n"
)
_OPENCV = f"%YAML:1.0\n---\nMODEL\nimage_width: 512\nimage_height: 512\nK: {FISHEYE_K.tolist()}\nD: {list(FISHEYE)}\n"


@pytest.mark.parametrize(
    ("name", "text", "lens"),
    [
        ("c.toml", _POSE2SIM.replace("MODEL", "true"), "fisheye"),
        ("c.toml", _POSE2SIM.replace("MODEL", "false"), "brown-conrady"),
        ("c.yaml", _ROS.replace("MODEL", "equidistant"), "fisheye"),
        ("c.yaml", _ROS.replace("MODEL", "plumb_bob"), "brown-conrady"),
        ("c.yml", _OPENCV.replace("MODEL", "fisheye_model: 1"), "fisheye"),
        ("c.yml", _OPENCV.replace("MODEL", "fisheye: true"), "fisheye"),
        ("c.yml", _OPENCV.replace("MODEL", "camera_model: pinhole\ndistortion_model: equidistant"), "fisheye"),
        ("c.yml", _OPENCV.replace("MODEL", "fisheye_model: 0"), "brown-conrady"),
        (
            "c.json",
            json.dumps({"lens_model": "OPENCV_FISHEYE", "size": [512, 512], "K": FISHEYE_K.tolist(), "dist": FISHEYE}),
            "fisheye",
        ),
    ],
)
def test_a_file_s_lens_model_is_read(name: str, text: str, lens: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    camera = load_intrinsics(tmp_path / name, (1024, 1024))
    assert camera.summary()["lens"] == lens and camera.distortion == pytest.approx(FISHEYE)
    assert camera.focal_px == pytest.approx((381.956, 381.946)), "scaled with the picture"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.yaml", _ROS.replace("MODEL", "double_sphere"), "unknown lens model 'double_sphere'"),
        ("c.yaml", _ROS.replace("MODEL", "plumb_bob") + "fisheye: true\n", "two lens models"),
        ("c.toml", _POSE2SIM.replace("MODEL", '"perhaps"'), "fisheye must be true or false"),
        ("c.json", json.dumps({"fisheye": True, "K": K.tolist(), "dist": LENS}), "fisheye lens has 4 numbers, got 5"),
    ],
)
def test_a_lens_model_that_is_none_of_ours_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CameraError, match=message):
        load_intrinsics(tmp_path / name, (512, 512))


@pytest.mark.parametrize(
    ("options", "size_wh", "focal_px", "origin"),
    [
        (CameraOptions(), (1280, 720), 900, "bundle (K of gym.npz)"),
        (CameraOptions(), (640, 360), 450, "bundle (K of gym.npz)"),
        (CameraOptions(), (720, 1280), 1108.5, "default"),
        (CameraOptions(focal_px=700.0), (1280, 720), 700, "--focal-px"),
    ],
)
def test_a_bundle_s_camera_serves_pictures_of_its_shape(
    options: CameraOptions, size_wh: tuple[int, int], focal_px: float, origin: str
) -> None:
    gym = Camera.from_focal(900.0, (1280, 720), "K of gym.npz")
    chosen = choose_camera(options, None, size_wh, "poseda-run", gym)
    assert chosen.focal_px[0] == pytest.approx(focal_px, abs=0.1) and chosen.origin.startswith(origin)


def test_flags_of_the_scene_win_over_the_bundle() -> None:
    bundle = Known(np.array([0, -1, 0], np.float32), np.full(9, 0.3, np.float32), camera_height_m=2.5)
    assert known_scene(SceneOptions(), bundle) is bundle
    given = known_scene(SceneOptions(up=(0.0, -3.0, 4.0), person_height=1.2), bundle)
    assert given.up is not None and given.bones_m is bundle.bones_m
    np.testing.assert_allclose(given.up, [0, -0.6, 0.8], rtol=1e-6)
    assert (given.person_height_m, given.camera_height_m) == (1.2, None), "one scale"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SceneOptions(up=(0.0, 0.0, 0.0)), "must point somewhere"),
        (SceneOptions(person_height=120.0), "expected 0.5 to 2.5"),
        (SceneOptions(camera_height=0.1), "expected 0.3 to 50"),
        (SceneOptions(person_height=1.2, camera_height=2.0), "at most one of"),
    ],
)
def test_impossible_scenes(options: SceneOptions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        options.check()
