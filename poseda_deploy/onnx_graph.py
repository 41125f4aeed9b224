"""Lifter -> lifter.onnx, and the golden vectors that go with it. Needs torch, onnx and onnxscript.

Nodes are called `rays/...`, `network/...` or `placement/...` after the part of the lifter they belong to, and the
tensors between the parts `features` and `joints`, so that a wrong conversion can be found and an engine be read.
"""

import io
import json
import logging
import warnings
from ast import literal_eval
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from poseda_deploy.bundle import made_with
from poseda_deploy.errors import BundleError
from poseda_deploy.files import write_aside
from poseda_deploy.model import Lifter
from poseda_deploy.networks import TYPICAL_BONES_M
from poseda_deploy.skeleton import BONE_GROUPS, H36M17

OPSET = 20
OLDEST_OPSET = 18
"""What the exporter makes at least; before 18 the axes of a reduction were attributes."""
INPUTS = ("keypoints", "camera", "up", "bones")
SHAPES = {
    "inputs": {"keypoints": (17, 3), "camera": (4,), "up": (3,), "bones": (9,)},
    "outputs": {"pose": (17, 3), "root": (3,)},
}
"""Without the batch."""
METADATA = {
    "skeleton": H36M17.name,
    "joints": " ".join(H36M17.joints),
    "bones": " ".join(BONE_GROUPS),
    "units": "keypoints px px score (0 = missing); camera px; up unit vector (0 = unknown); bones m (0 = unknown)",
    "axes": "camera: x right, y down, z forward; pose (m) relative to the pelvis, root (m) absolute",
    "licence": "Apache-2.0",
}


def write_onnx(lifter: Lifter, path: Path, facts: Mapping[str, str] | None = None) -> None:
    """The whole lifter as one file with a free batch size, checked by onnx.checker; `facts` join its metadata."""
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
    model = program.model_proto
    name_parts(model)
    without_traces(model)
    for key, value in {**METADATA, "versions": json.dumps(made_with()), **(facts or {})}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    with write_aside(path) as aside:
        aside.write_bytes(model.SerializeToString())


def name_parts(model: Any) -> None:
    """Name every node after its part and the two tensors between the parts; the exporter's notes say which is which."""
    nodes = model.graph.node
    network = [_in_network(node) for node in nodes]
    last = max(i for i, inside in enumerate(network) if inside)
    joints = nodes[last].output[0]
    inner = {
        name for node, inside in zip(nodes, network, strict=True) if inside for name in (*node.input, *node.output)
    }
    outer = [node for node, inside in zip(nodes[:last], network, strict=False) if not inside]
    features = next(node.output[0] for node in reversed(outer) if node.output[0] in inner and node.op_type == "Concat")
    after = {joints}
    for node, inside in zip(nodes, network, strict=True):
        if not inside and after.intersection(node.input):
            after.update(node.output)
        part = "network" if inside else "placement" if after.intersection(node.output) else "rays"
        node.name = f"{part}/{node.name.removeprefix('node_')}"
    _rename(model.graph, {features: "features", joints: "joints"})


def _in_network(node: Any) -> bool:
    scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
    return "network" in literal_eval(scopes)


def _rename(graph: Any, new: Mapping[str, str]) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new.get(name, name) for name in names]
    for info in graph.value_info:
        info.name = new.get(info.name, info.name)


def without_traces(model: Any) -> None:
    """The exporter notes the source lines of every node, with the paths of the machine that trained."""
    graph = model.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, graph, model):
        part.ClearField("metadata_props")


def read_onnx(path: Path) -> Any:
    """The model of that file; BundleError unless it has a lifter's inputs, outputs and a known opset."""
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's DecodeError has no public base class
        raise BundleError(f"{path}: not an ONNX file", hint="make the bundle again") from error
    wrong = "; ".join(_mismatches(model))
    if wrong:
        raise BundleError(f"{path} is not a lifter of this project: {wrong}", hint="see docs/conventions.md")
    return model


def _mismatches(model: Any) -> Iterator[str]:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        yield f"opset {opset}, expected {OLDEST_OPSET} or newer"
    for side, values in (("inputs", model.graph.input), ("outputs", model.graph.output)):
        found = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim[1:]) for v in values}
        if found != SHAPES[side]:
            yield f"{side} {_listed(found)}, expected {_listed(SHAPES[side])}"


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} (n,{','.join(map(str, shape))})" for name, shape in shapes.items())


def write_golden(lifter: Lifter, path: Path, rows: int = 32) -> None:
    """Inputs of every kind (up and bones known or not, joints missing) and what torch makes of them."""
    inputs = example_inputs(rows)
    pose, root = exact_poses(lifter, inputs)
    with write_aside(path) as aside:
        np.savez_compressed(aside, **inputs, pose=pose.astype(np.float32), root=root.astype(np.float32))  # type: ignore[arg-type]


def exact_poses(
    lifter: Lifter, inputs: Mapping[str, Float[np.ndarray, "n ..."]]
) -> tuple[Float[np.ndarray, "n 17 3"], Float[np.ndarray, "n 3"]]:
    """(pose, root) by torch in double precision, on the CPU: the same on every processor, to nanometres."""
    exact = deepcopy(lifter).eval().cpu().double()
    with torch.no_grad():
        pose, root = exact(*(torch.from_numpy(value).double() for value in inputs.values()))
    return pose.numpy(), root.numpy()


def example_inputs(
    rows: int, seed: int = 0, *, spread_m: float = 0.03, farthest_m: float = 4.0
) -> dict[str, Float[np.ndarray, "rows ..."]]:
    """A striding figure, joints moved by up to `spread_m`, seen by a 1280x720 camera from 2.5 m to `farthest_m`.

    Every third row lacks up, bones or joints. As they are by default, people are well-conditioned: what fp32 loses
    against fp64 in the lifters of this project is under 0.005 mm (99 in 100). A figure that stands flat before the
    camera, with joints moved by 0.1 m, lost 0.06: bones that end up short in the refinement turn freely, and each round
    multiplies rounding errors by up to 8. Uniform numbers only, so that every machine draws the same bits.
    """
    random = np.random.default_rng(seed)
    pose_m = _STRIDING + random.uniform(-spread_m, spread_m, (rows, 17, 3))
    placed = pose_m + random.uniform((-1.0, -0.4, 2.5), (1.0, 0.4, farthest_m), (rows, 1, 3))
    camera = np.tile(np.array([1000, 1000, 640, 360], np.float32), (rows, 1))
    xy_px = placed[..., :2] / placed[..., 2:] * 1000 + (640, 360)
    keypoints = np.concatenate([xy_px, random.uniform(0.5, 1, (rows, 17, 1))], -1)
    keypoints[2::3] *= random.random((len(keypoints[2::3]), 17, 1)) > 0.2
    up = np.tile(np.array([0, -1, 0], np.float32), (rows, 1))
    bones = np.tile(np.array(TYPICAL_BONES_M, np.float32), (rows, 1))
    up[1::3], bones[::3] = 0, 0
    return {"keypoints": keypoints.astype(np.float32), "camera": camera, "up": up, "bones": bones}


_STRIDING_M = {
    **{"right_hip": (-0.1, 0, -0.03), "right_knee": (-0.1, 0.42, -0.12), "right_ankle": (-0.1, 0.84, 0.25)},
    **{"left_hip": (0.1, 0, 0.03), "left_knee": (0.1, 0.42, -0.2), "left_ankle": (0.1, 0.84, 0.1)},
    **{"spine": (0, -0.22, 0.03), "thorax": (0, -0.48, 0), "neck": (0, -0.58, -0.04), "head": (0, -0.68, -0.09)},
    **{"left_shoulder": (0.17, -0.48, -0.05), "left_elbow": (0.2, -0.2, 0.12), "left_wrist": (0.2, 0.05, -0.1)},
    **{"right_shoulder": (-0.17, -0.48, 0.05), "right_elbow": (-0.2, -0.2, 0.1), "right_wrist": (-0.2, 0.05, -0.08)},
}
_STRIDING = np.array([_STRIDING_M.get(joint, (0, 0, 0)) for joint in H36M17.joints], np.float32)
"""Somebody who walks towards the camera: H36M17, metres from the pelvis, camera axes."""
