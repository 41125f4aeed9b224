"""Whole files of every kind that is read, small, made by code."""

import io
import json
import pickle
from collections.abc import Callable
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

MATRIX = [[900.0, 0.0, 640.0], [0.0, 900.0, 360.0], [0.0, 0.0, 1.0]]
COCO = [{"image_id": i, "keypoints": [100.0, 100.0, 0.9] * 17, "score": 0.5} for i in range(3)]
OPENPOSE = {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": [100, 100, 0.9] * 25}]}
CAMERA = {"camera_matrix": MATRIX, "dist": [0.1, 0, 0, 0, 0], "image_size": [1280, 720], "left": {"K": MATRIX}}
ROW = {"frame": 1, "person": 0, "time_s": 0.5, "pose": [[0.1] * 3] * 17, "root": [0, 0, 2], "score": [1] * 17}
TOML = f"""# cameras
[cam_01]
name = "left"
size = [1280.0, 720.0]
matrix = {MATRIX}
distortions = [0.0, 0.0, 0.0, 0.0]
fisheye = false
[metadata]
adjusted = false
"""
CONFIG = "steps = 600\nbatch = 64\nout = 'models/a'\nsource = ['a.npz', 'b.npz']\nquiet = true\n"
YAML = """%YAML:1.0
---
calibration_time: "Tue 1 Jan: noon"  # said by OpenCV
image_width: 1280
image_height: 720
distortion_model: plumb_bob
grid:
   - { x: 1, y: [ 2, 3 ] }
   -
      x: 1
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 900., 0., 640., 0., 9.05e+02,
       360., 0., 0., 1. ]
distortion_coefficients: {rows: 1, cols: 5, dt: d, data: [ -0.15, 0, 0, 0, 0 ]}
"""
XML = """<?xml version="1.0"?>
<opencv_storage>
<image_width>1280</image_width>
<image_height>720</image_height>
<camera_matrix type_id="opencv-matrix">
  <rows>3</rows><cols>3</cols><dt>d</dt>
  <data> 900. 0. 640. 0. 905. 360. 0. 0. 1.</data></camera_matrix>
<dist>-0.15 0. 0. 0. 0.</dist>
</opencv_storage>
"""
BVH = "\n".join(
    (
        *("HIERARCHY", "ROOT Hips", "{", "OFFSET 0 0 0", "CHANNELS 3 Zrotation Xrotation Yrotation"),
        *("JOINT Knee", "{", "OFFSET 0 1 0", "CHANNELS 1 Xrotation", "End Site", "{", "OFFSET 0 1 0", "}", "}", "}"),
        *("MOTION", "Frames: 2", "Frame Time: 0.04", "1 2 3 4", "5 6 7 8"),
    )
)


def keypoints() -> dict[str, Any]:
    return {
        "xy": np.full((3, 17, 2), 100.0, np.float32),
        "score": np.ones((3, 17), np.float32),
        "image_size": np.array([1280, 720]),
        "skeleton": np.array("coco17"),
        "K": np.array(MATRIX),
        "dist": np.zeros(5),
        "fps": np.array(25.0),
    }


def poses() -> dict[str, Any]:
    rows = {"frame": np.arange(3), "person": np.zeros(3, int), "time_s": np.arange(3) / 30}
    return {**rows, "pose": np.zeros((3, 17, 3)), "root": np.zeros((3, 3)), "score": np.ones((3, 17))}


def source() -> dict[str, Any]:
    standing = np.linspace(0, 1.7, 17)[:, None] * [0.0, 1.0, 0.0] + np.eye(17, 3) * 0.1
    standing[[5, 6]] = [[0, 0.5, 0], [0, 0.1, 0]]
    who = {"seq_id": np.array([0, 0, 1, 1]), "seq_subject": np.array(["a", "b"]), "valid": np.ones(4, bool)}
    return {"positions": np.tile(standing, (4, 1, 1)), **who}


def target() -> dict[str, Any]:
    cameras = {"K": np.array([MATRIX] * 2), "R": np.tile(np.eye(3), (2, 1, 1)), "T": np.zeros((2, 3))}
    names = {"seq_id": np.array([0, 1]), "seq_name": np.array(["a", "b"]), "cam_name": np.array(["l", "r"])}
    points = {"keypoints_2d_det": np.full((2, 2, 17, 2), 300.0), "keypoints_2d_conf": np.ones((2, 2, 17))}
    sizes = {"image_size": np.array([[1280, 720]] * 2), "dist": np.zeros((2, 5)), "fps": np.array(30)}
    return {"positions_world": np.zeros((2, 17, 3)), **points, **cameras, **names, **sizes}


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with ZipFile(out, "w", ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return out.getvalue()


def npz(arrays: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    np.savez(out, allow_pickle=True, **arrays)
    return out.getvalue()


def pickled(program: bytes) -> bytes:
    """As an .npz whose one member is that pickle."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    return zipped({"positions_3d.npy": header.getvalue() + program})


def h36m(protocol: int) -> bytes:
    raw = np.zeros((2, 32, 3), np.float32)
    raw[:, [3, 8], 2] = 0.1
    raw[:, [2, 7], 2] = 0.5
    return pickle.dumps(np.array({"S1": {"a": raw, "b": raw[:1]}}, dtype=object), protocol)


NPZ: dict[str, Callable[[], dict[str, Any]]] = {
    "keypoints": keypoints,
    "poses": poses,
    "source": source,
    "target": target,
}
JSON: dict[str, Any] = {"coco": COCO, "openpose": OPENPOSE, "camera_json": CAMERA, "rows": ROW}
TEXT = {"camera_toml": TOML, "config": CONFIG, "camera_yaml": YAML, "camera_xml": XML, "bvh": BVH}
PICKLES = (2, 4, 5)


def seeds_of(reader: str) -> list[bytes]:
    """Whole files that the reader takes."""
    if reader in NPZ:
        return [npz(NPZ[reader]())]
    if reader in JSON:
        return [json.dumps(JSON[reader]).encode() + b"\n"]
    if reader in TEXT:
        return [TEXT[reader].encode()]
    return [pickled(h36m(protocol)) for protocol in PICKLES]
