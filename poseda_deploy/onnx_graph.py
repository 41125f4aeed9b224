"""Lifter -> lifter.onnx, and the golden vectors that go with it. Needs torch, onnx and onnxscript."""

import io
import logging
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from poseda_deploy.files import write_aside
from poseda_deploy.model import TYPICAL_BONES_M, Lifter
from poseda_deploy.skeleton import BONE_GROUPS, H36M17

OPSET = 20
INPUTS = ("keypoints", "camera", "up", "bones")
METADATA = {
    "skeleton": H36M17.name,
    "joints": " ".join(H36M17.joints),
    "bones": " ".join(BONE_GROUPS),
    "units": "keypoints px px score (0 = missing); camera px; up unit vector (0 = unknown); bones m (0 = unknown)",
    "axes": "camera: x right, y down, z forward; pose (m) relative to the pelvis, root (m) absolute",
}


def write_onnx(lifter: Lifter, path: Path) -> None:
    """The whole lifter as one file with a free batch size, checked by onnx.checker."""
    import onnx

    lifter = lifter.eval().cpu()
    example = tuple(torch.from_numpy(value) for value in example_inputs(2).values())
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            lifter,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=["pose", "root"],
            dynamic_shapes=tuple({0: batch} for _ in INPUTS),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = without_traces(program.model_proto)
    for key, value in METADATA.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    with write_aside(path) as aside:
        aside.write_bytes(model.SerializeToString())


def without_traces(model: Any) -> Any:
    """The exporter notes the source lines of every node, with the paths of the machine that trained."""
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph, model):
        part.ClearField("metadata_props")
    return model


def write_golden(lifter: Lifter, path: Path, rows: int = 32) -> None:
    """Inputs of every kind (up and bones known or not, joints missing) and what torch makes of them."""
    inputs = example_inputs(rows)
    with torch.no_grad():
        pose, root = lifter.eval().cpu()(*(torch.from_numpy(value) for value in inputs.values()))
    with write_aside(path) as aside:
        np.savez_compressed(aside, **inputs, pose=pose.numpy(), root=root.numpy())  # type: ignore[arg-type]


def example_inputs(rows: int, seed: int = 0) -> dict[str, Float[np.ndarray, "rows ..."]]:
    """A standing figure with random limbs seen by a 1280x720 camera; every third row lacks up, bones or joints."""
    random = np.random.default_rng(seed)
    pose_m = _STANDING + random.normal(0, 0.06, (rows, 17, 3))
    placed = pose_m + random.uniform((-1.0, -0.4, 2.5), (1.0, 0.4, 6.0), (rows, 1, 3))
    camera = np.tile(np.array([1000, 1000, 640, 360], np.float32), (rows, 1))
    xy_px = placed[..., :2] / placed[..., 2:] * 1000 + (640, 360)
    keypoints = np.concatenate([xy_px, random.uniform(0.5, 1, (rows, 17, 1))], -1)
    keypoints[2::3] *= random.random((len(keypoints[2::3]), 17, 1)) > 0.2
    up = np.tile(np.array([0, -1, 0], np.float32), (rows, 1))
    bones = np.tile(np.array(TYPICAL_BONES_M, np.float32), (rows, 1))
    up[1::3], bones[::3] = 0, 0
    return {"keypoints": keypoints.astype(np.float32), "camera": camera, "up": up, "bones": bones}


_STANDING = np.array(
    [
        *((0, 0, 0), (-0.1, 0, 0), (-0.1, 0.42, 0), (-0.1, 0.84, 0), (0.1, 0, 0), (0.1, 0.42, 0), (0.1, 0.84, 0)),
        *((0, -0.22, 0), (0, -0.48, 0), (0, -0.58, 0), (0, -0.68, 0)),
        *((0.17, -0.48, 0), (0.2, -0.2, 0), (0.2, 0.05, 0), (-0.17, -0.48, 0), (-0.2, -0.2, 0), (-0.2, 0.05, 0)),
    ],
    np.float32,
)
"""A standing person facing the camera, H36M17, metres, camera axes."""
