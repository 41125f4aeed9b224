"""JSON, TOML, YAML and XML of other tools: whatever they hold, a camera or keypoints come of it, or one line."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from poseda_deploy.errors import InputError
from poseda_deploy.intrinsics import load_intrinsics
from poseda_deploy.runtime.importers import from_coco, from_openpose
from poseda_deploy.skeleton import COCO17, OPENPOSE25
from poseda_deploy.terminal import with_config

MATRIX = "[[900, 0, 640], [0, 900, 360], [0, 0, 1]]"
READ = """
import sys
from pathlib import Path
from poseda_deploy.errors import InputError
from poseda_deploy.intrinsics import load_intrinsics
try:
    load_intrinsics(Path(sys.argv[1]), (1280, 720))
except InputError:
    print("refused")
"""

CAMERAS: dict[str, tuple[str, str]] = {
    "size of one": ("a.json", f'{{"K": {MATRIX}, "size": [1]}}'),
    "size that is a number": ("a.json", f'{{"K": {MATRIX}, "size": 5}}'),
    "size that is text": ("a.json", f'{{"K": {MATRIX}, "size": "1280x720"}}'),
    "a width without a height": ("a.json", f'{{"K": {MATRIX}, "width": 1280}}'),
    "an infinite size": ("a.json", f'{{"K": {MATRIX}, "size": [Infinity, 720]}}'),
    "a size of 400 digits": ("a.json", f'{{"K": {MATRIX}, "size": [{10**400}, 720]}}'),
    "a focal length of 400 digits": ("a.json", f'{{"K": [[{10**400}, 0, 640], [0, 900, 360], [0, 0, 1]]}}'),
    "a number of 5,000 digits": ("a.json", f'{{"K": {"9" * 5000}}}'),
    "JSON nested deep": ("a.json", "[" * 100_000),
    "objects nested deep": ("a.json", '{"a":' * 50_000),
    "a matrix in a matrix": ("a.json", '{"K": {"data": {"data": [1]}}}'),
    "a matrix of nothing": ("a.json", '{"K": {}}'),
    "a distortion that is an object": ("a.json", f'{{"K": {MATRIX}, "dist": {{"k1": 1}}}}'),
    "TOML arrays nested deep": ("a.toml", "a = " + "[" * 60_000),
    "TOML tables nested deep": ("a.toml", "a = " + "{a=" * 60_000),
    "TOML with a number of 5,000 digits": ("a.toml", f"a = {'9' * 5000}"),
    "TOML tables, dotted": ("a.toml", f"[{'a.' * 100_000}a]"),
    "TOML keys, dotted": ("a.toml", f"{'a.' * 100_000}a = 1"),
    "TOML keys, dotted with spaces": ("a.toml", f"{'a . ' * 50_000}a = 1"),
    "TOML keys, dotted and quoted": ("a.toml", f"""{"'a'." * 50_000}"a" = 1"""),
    "TOML keys, dotted in a table": ("a.toml", f"b = {{ {'a.' * 100_000}a = 1 }}"),
    "YAML that is no UTF-8": ("a.yml", "\udcff\udcfe"),
    "YAML of a list": ("a.yml", "- 1\n- 2\n"),
    "YAML with a text for K": ("a.yml", "%YAML:1.0\n---\nK: !!binary |\n   AAAA\n"),
    "XML with lines of text in a matrix": ("a.xml", f"<a><K>1 2 x{'9' * 5000}\n3 4</K></a>"),
    "XML of nothing": ("a.xml", "<?xml version='1.0'?>"),
    "XML with entities": ("a.xml", '<!DOCTYPE a [<!ENTITY b "cc">]><a><K>&b;</K></a>'),
}


@pytest.mark.parametrize("name", CAMERAS)
def test_a_damaged_camera_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / CAMERAS[name][0]
    path.write_text(CAMERAS[name][1], encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError) as caught:
        load_intrinsics(path, (1280, 720))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("brackets.yml", "%YAML:1.0\n---\na: " + "[" * 64_000),
        ("braces.yml", "%YAML:1.0\n---\na: " + "{a: " * 64_000),
        ("dashes.yml", "%YAML:1.0\n---\na:\n " + "- " * 64_000),
        ("indents.yml", "%YAML:1.0\n---\n" + "".join(f"{' ' * depth}a:\n" for depth in range(1000))),
        (
            "tags.xml",
            "<?xml version='1.0'?>\n<opencv_storage>" + "<a>" * 64_000 + "</a>" * 64_000 + "</opencv_storage>",
        ),
        ("open.xml", "<?xml version='1.0'?>\n<opencv_storage>" + "<a>" * 64_000),
        ("huge.yml", "%YAML:1.0\n---\nK: !!opencv-matrix\n  rows: 100000\n  cols: 100000\n  dt: d\n  data: [ 1. ]\n"),
    ],
)
def test_nesting_does_not_take_the_process_along(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")


OPENCV_XML = """<?xml version="1.0"?>
<opencv_storage>
<calibration_time>"Tue 1 Jan"</calibration_time>
<image_width>1280</image_width>
<image_height>720</image_height>
<camera_matrix type_id="opencv-matrix">
  <rows>3</rows> <cols>3</cols> <dt>d</dt>
  <data>
    9.0000000000000000e+02 0. 640. 0. 905. 360. 0.
    0. 1.</data></camera_matrix>
<distortion_coefficients type_id="opencv-matrix">
  <rows>1</rows> <cols>5</cols> <dt>d</dt>
  <data> -1.5e-01 0. 0. 0. 0.</data></distortion_coefficients>
</opencv_storage>
"""
YAML = """%YAML:1.0
---
calibration_time: "Tue 1 Jan: noon"  # said by OpenCV
nr_of_frames: 21
image_width: 1280
image_height: 720
flags: 'a # sign'
nothing:
grid:
   - { x: 1, y: [ 2, 3 ] }
   -
      x: 1
      y: 2
   - name: left
     pair: [ 1,
        2 ]
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 900., 0., 640., 0., 9.05e+02,
       360., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix { rows: 1, cols: 5, dt: d, data: [ -0.15, 0, 0, 0, 0 ] }
...
"""
DASHED = "image_width: 1280\nimage_height: 720\ncamera_matrix:\n  data:\n" + "".join(
    f"  - {number}\n" for number in (900, 0, 640, 0, 905, 360, 0, 0, 1)
)


@pytest.mark.parametrize(("name", "text"), [("a.xml", OPENCV_XML), ("a.yaml", YAML), ("b.yaml", DASHED)])
def test_what_opencv_and_ros_write_is_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    camera = load_intrinsics(tmp_path / name, (1280, 720))
    assert camera.focal_px == (900, 905) and camera.center_px == (640, 360)
    assert camera.distortion == ((-0.15, 0, 0, 0, 0) if "-" in text.split("matrix")[-1] and name != "b.yaml" else ())


def test_dotted_keys_of_a_config_are_bounded(tmp_path: Path) -> None:
    for text in (f"{'a.' * 100_000}a = 1", "a = " + "[" * 60_000, f"a = {'9' * 5000}", "a = '\udcff'"):
        (tmp_path / "a.toml").write_text(text, encoding="utf-8", errors="surrogateescape")
        with pytest.raises(InputError, match=r"a\.toml"):
            with_config(["--config", str(tmp_path / "a.toml")])


COCO_PERSON = [100.0, 100.0, 1.0] * 17
COCO: dict[str, str] = {
    "image_id that is a list": f'[{{"image_id": [], "keypoints": {COCO_PERSON}}}]',
    "image_id that is an object": f'[{{"image_id": {{}}, "keypoints": {COCO_PERSON}}}]',
    "no image_id": f'[{{"keypoints": {COCO_PERSON}}}]',
    "image_id of 5,000 digits": f'[{{"image_id": "{"9" * 5000}x", "keypoints": {[1] * 50}}}]',
    "keypoints that are a number": '[{"image_id": 1, "keypoints": 5}]',
    "keypoints that are null": '[{"image_id": 1, "keypoints": null}]',
    "keypoints that are an object": '[{"image_id": 1, "keypoints": {"a": 1}}]',
    "keypoints of text": f'[{{"image_id": 1, "keypoints": {["1"] * 51}}}]'.replace("'", '"'),
    "keypoints of nulls": f'[{{"image_id": 1, "keypoints": [{",".join(["null"] * 51)}]}}]',
    "keypoints of 400 digits": f'[{{"image_id": 1, "keypoints": {[10**400] * 51}}}]',
    "keypoints of 5,000 digits": f'[{{"image_id": 1, "keypoints": [{"9" * 5000}]}}]',
    "keypoints beyond single precision": f'[{{"image_id": 1, "keypoints": {[1e300, 1, 1] * 17}}}]',
    "keypoints that are not finite": f'[{{"image_id": 1, "keypoints": [NaN, {", ".join(["1"] * 50)}]}}]',
    "scores that are not finite": f'[{{"image_id": 1, "keypoints": [1, 1, NaN, {", ".join(["1"] * 48)}]}}]',
    "nested lists": '[{"image_id": 1, "keypoints": [' + ",".join(["[1]"] * 51) + "]}]",
    "nested deep": "[" * 200_000,
    "a number": "5",
    "nobody": "[]",
    "no UTF-8": "\udcff",
}


@pytest.mark.parametrize("name", COCO)
def test_a_damaged_coco_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(COCO[name], encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError) as caught:
        from_coco(path, COCO17, (1280, 720), Fraction(30), 2)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_long_numbers_in_names_of_images_are_put_in_order(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    ids = [f"frame_{'9' * 5000}.jpg", "frame_10.jpg", "frame_009.jpg"]
    rows = [f'{{"image_id": "{name}", "keypoints": {[float(i + 1), 1.0, 1.0] * 17}}}' for i, name in enumerate(ids)]
    path.write_text(f"[{','.join(rows)}]")
    assert from_coco(path, COCO17, (1280, 720), Fraction(30), 1).xy_px[:, 0, 0, 0].tolist() == [3, 2, 1]


def test_coco_scores_within_rounding_of_one_are_one(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(f'[{{"image_id": 1, "keypoints": {[100, 100, 1.00002] * 17}}}]')
    assert np.array_equal(from_coco(path, COCO17, (1280, 720), Fraction(30), 1).score, np.ones((1, 1, 17)))
    path.write_text(f'[{{"image_id": 1, "keypoints": {[100, 100, 1.02] * 17}}}]')
    with pytest.raises(InputError, match=r"score must lie in 0\.\.1"):
        from_coco(path, COCO17, (1280, 720), Fraction(30), 1)


OPENPOSE_PERSON = f'{{"people": [{{"pose_keypoints_2d": {[100, 100, 1] * 25}}}]}}'


@pytest.mark.parametrize("last", ["2000000000", "9" * 200])
def test_openpose_files_far_apart_are_refused(last: str, tmp_path: Path) -> None:
    for number in ("0", last):
        (tmp_path / f"a_{number}_keypoints.json").write_text(OPENPOSE_PERSON)
    with pytest.raises(InputError, match="frames without a file"):
        from_openpose(tmp_path, OPENPOSE25, (1280, 720), Fraction(30), 1)


@pytest.mark.parametrize(
    "people", ["[[]]", "[5]", '[{"pose_keypoints_2d": 5}]', "5", '[{"pose_keypoints_2d": {}}]', "[" * 99999]
)
def test_a_damaged_openpose_file_is_refused(people: str, tmp_path: Path) -> None:
    (tmp_path / "a_0_keypoints.json").write_text(f'{{"people": {people}}}')
    with pytest.raises(InputError, match="a_0_keypoints"):
        from_openpose(tmp_path, OPENPOSE25, (1280, 720), Fraction(30), 1)
