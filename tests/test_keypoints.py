from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poseda_deploy.errors import InputError
from poseda_deploy.keypoints import Keypoints2D, load_keypoints
from poseda_deploy.poses import Poses3D, load_poses


def good() -> dict[str, Any]:
    return {
        "xy": np.full((4, 17, 2), 100.0, np.float32),
        "score": np.ones((4, 17), np.float32),
        "image_size": np.array([1280, 720]),
        "skeleton": np.array("coco17"),
        "fps": np.array(25),
    }


def test_a_file_may_have_any_name(walker: Keypoints2D, tmp_path: Path) -> None:
    """numpy would write kp.npz, beside which the name asked for never comes."""
    walker.save(tmp_path / "kp")
    assert [path.name for path in tmp_path.iterdir()] == ["kp"]
    assert len(load_keypoints(tmp_path / "kp")) == len(walker)


def test_round_trip(walker: Keypoints2D, tmp_path: Path) -> None:
    walker.save(tmp_path / "k.npz")
    again = load_keypoints(tmp_path / "k.npz")
    np.testing.assert_allclose(again.xy_px, walker.xy_px)
    np.testing.assert_allclose(again.time_s, walker.time_s)
    assert again.camera is not None and walker.camera is not None
    assert again.camera.matrix.tolist() == walker.camera.matrix.tolist()
    assert again.skeleton == walker.skeleton


def test_one_person_needs_no_person_axis(tmp_path: Path) -> None:
    np.savez(tmp_path / "k.npz", **good())
    keypoints = load_keypoints(tmp_path / "k.npz")
    assert keypoints.xy_px.shape == (4, 1, 17, 2)
    np.testing.assert_allclose(keypoints.time_s, [0, 0.04, 0.08, 0.12])


def test_nan_is_fine_where_the_joint_is_missing(tmp_path: Path) -> None:
    arrays = good()
    arrays["xy"][1, 5], arrays["score"][1, 5] = np.nan, 0
    np.savez(tmp_path / "k.npz", **arrays)
    keypoints = load_keypoints(tmp_path / "k.npz")
    assert keypoints.camera is None
    from poseda_deploy.camera import default_camera

    assert np.isfinite(keypoints.model_input(default_camera(keypoints.size_wh))).all()


def with_nan() -> dict[str, Any]:
    arrays = good()
    arrays["xy"][2, 9] = np.inf
    return arrays


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "missing key": ({"score": None}, "lacks score"),
    "no image size": ({"image_size": None}, "lacks image_size"),
    "shape of xy": (
        {"xy": np.zeros((4, 16, 2))},
        r"xy must be \(T,17,2\) or \(T,P,17,2\) for coco17, got \(4,1,16,2\)",
    ),
    "shape of score": ({"score": np.ones((4, 16))}, "score must be"),
    "score in percent": ({"score": np.full((4, 17), 90.0)}, "score must lie in 0..1"),
    "infinite": ({"xy": with_nan()["xy"]}, "xy is not finite at frame 2, person 0, joint left_wrist"),
    "skeleton": ({"skeleton": np.array("body25")}, "unknown skeleton 'body25'"),
    "text in xy": ({"xy": np.full((4, 17, 2), "a")}, "xy must hold numbers"),
    "image size": ({"image_size": np.array([0, 720])}, "image_size must be"),
    "objects": ({"xy": np.array([{"a": 1}] * 4, object)}, "holds Python objects"),
    "K": ({"K": np.eye(3)}, "focal length 1, 1 px is impossible"),
    "time": ({"time_s": np.array([0, 1, 1, 2.0])}, "strictly increasing"),
    "no frames": ({"xy": np.zeros((0, 17, 2)), "score": np.zeros((0, 17))}, "no frames"),
    "fps": ({"fps": np.array(0)}, "fps must be above 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_files_say_what_is_wrong_in_one_line(case: str, tmp_path: Path) -> None:
    change, message = CASES[case]
    arrays = {key: value for key, value in {**good(), **change}.items() if value is not None}
    path = tmp_path / "k.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load_keypoints(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04broken", b"\x93NUMPY"])
def test_not_an_npz(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "k.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"k\.npz"):
        load_keypoints(tmp_path / "k.npz")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file not found"):
        load_keypoints(tmp_path / "nothing.npz")


def test_poses_round_trip(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    poses = Poses3D(
        np.array([0, 0, 2]), np.array([0, 1, 0]), np.array([0, 0, 0.1]), random.normal(size=(3, 17, 3)),
        random.normal(size=(3, 3)), random.random((3, 17)),
    )  # fmt: skip
    poses.save(tmp_path / "a.poses.npz")
    poses.save_jsonl(tmp_path / "a.poses.jsonl")
    np.testing.assert_array_equal(load_poses(tmp_path / "a.poses.npz").pose_m, poses.pose_m)
    lines = (tmp_path / "a.poses.jsonl").read_text().splitlines()
    assert len(lines) == 3
    import json

    row = json.loads(lines[1])
    assert (row["frame"], row["person"]) == (0, 1)
    np.testing.assert_allclose(row["pose"], poses.pose_m[1], atol=1e-4)


def test_scores_that_rounding_took_past_one_are_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "k.npz", **good() | {"score": np.full((4, 17), 1.00002)})
    assert load_keypoints(tmp_path / "k.npz").score.max() == 1
    np.savez(tmp_path / "k.npz", **good() | {"score": np.full((4, 17), 1.02)})
    with pytest.raises(InputError, match=r"score must lie in 0\.\.1"):
        load_keypoints(tmp_path / "k.npz")
