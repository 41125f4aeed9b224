"""The comparison itself: what it measures, what it lets through, and that it finds the part that is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lifters import striding_lifter

from poseda_deploy.backend import open_foreign_onnx
from poseda_deploy.bundle import ONNX, Bundle, load_bundle, shipped_bundle_path
from poseda_deploy.errors import BundleError, CheckFailed
from poseda_deploy.export import parity
from poseda_deploy.export.precision import in_precision
from poseda_deploy.model import Lifter, load_lifter
from poseda_deploy.onnx_graph import exact_poses, example_inputs, read_onnx
from poseda_deploy.skeleton import H36M17

INPUTS = example_inputs(256)


@pytest.fixture(scope="module")
def lifter() -> Any:
    return striding_lifter("conditioned")


@pytest.fixture(scope="module")
def onnx_file(tiny: Bundle) -> Path:
    return tiny.file(ONNX)


def poses() -> parity.Poses:
    random = np.random.default_rng(0)
    return random.normal(0, 0.3, (50, 17, 3)), np.tile((0.0, 0.0, 5.0), (50, 1))


def known(truth: parity.Poses) -> parity.Reference:
    """Poses that fp32 holds exactly."""
    return parity.Reference(truth, np.zeros(len(truth[1])))


def test_distances_are_millimetres() -> None:
    pose, root = poses()
    result = parity.compare(
        "x", "fp16", "drawn", known((pose, root)), (pose + np.array([0.003, 0, 0.004]), root + np.array([0, 0.001, 0]))
    )
    assert (result.pose_p99_mm, result.root_p99_mm) == pytest.approx((5, 1), rel=1e-6)
    assert not result.passed


def test_far_roots_count_in_proportion() -> None:
    pose, root = poses()
    result = parity.compare("x", "fp16", "drawn", known((pose, 4 * root)), (pose, 4 * root + np.array([0, 0.004, 0])))
    assert result.root_p99_mm == pytest.approx(1, rel=1e-3) and result.passed


def test_two_swapped_joints_are_caught() -> None:
    pose, root = poses()
    wrong = pose.copy()
    left, right = H36M17.index("left_knee"), H36M17.index("right_knee")
    wrong[:, [left, right]] = pose[:, [right, left]]
    result = parity.compare("x", "bf16", "drawn", known((pose, root)), (wrong, root))
    with pytest.raises(CheckFailed, match="x differs from torch on drawn"):
        parity.require([result], "cause")


def test_an_overflow_names_joint_and_distance() -> None:
    pose, root = poses()
    wrong = pose.copy()
    wrong[7, H36M17.index("left_wrist")] = np.inf
    result = parity.compare("x", "fp16", "drawn", known((pose, root)), (wrong, root))
    with pytest.raises(CheckFailed, match=r"fp16 overflows \(left_wrist of person 7, 5.0 m away is no number\)"):
        parity.require([result], "cause")


def least_certain(lifter: Lifter, count: int) -> parity.Inputs:
    """Of many people those in whom rounding is multiplied most."""
    inputs = example_inputs(1024, seed=1, spread_m=0.1, farthest_m=6.0)
    worst = np.argsort(-parity.rounding_mm(lifter, inputs))[:count]
    return {name: value[worst] for name, value in inputs.items()}


def test_rounding_in_ill_conditioned_people_is_no_wrong_conversion(lifter: Lifter, onnx_file: Path) -> None:
    inputs = least_certain(lifter, 16)
    pose, root = open_foreign_onnx(onnx_file).run(["pose", "root"], inputs)
    result = parity.compare("x", "fp32", "uncertain", parity.reference(lifter, inputs), (pose, root))
    assert result.passed
    assert result.rounding_p99_mm > parity.LIMITS_MM["fp32"] / 4, "people as meant"


def test_a_wrong_conversion_is_caught_even_where_people_are_ill_conditioned(lifter: Lifter) -> None:
    inputs = least_certain(lifter, 16)
    truth, (pose, root) = parity.reference(lifter, inputs), parity.torch_poses(lifter, inputs)
    left, right = H36M17.index("left_wrist"), H36M17.index("right_wrist")
    wrong = pose.copy()
    wrong[:, [left, right]] = pose[:, [right, left]]
    assert not parity.compare("x", "fp32", "uncertain", truth, (wrong, root)).passed
    assert not parity.compare("x", "fp32", "uncertain", truth, (pose * 1.01, root)).passed, "a hundredth too large"


def test_people_of_tests_and_golden_vectors_are_well_conditioned(lifter: Lifter) -> None:
    """Less than a tenth of the limit, so that no processor's rounding decides a test."""
    for lifts in (lifter, load_lifter(load_bundle(shipped_bundle_path()))):
        lost_mm = parity.compare(
            "fp32", "fp32", "x", known(exact_poses(lifts, INPUTS)), parity.torch_poses(lifts, INPUTS)
        )
        assert max(lost_mm.pose_p99_mm, lost_mm.root_p99_mm) < parity.LIMITS_MM["fp32"] / 10


def test_nan_never_passes_even_at_wide_angles() -> None:
    pose, root = poses()
    assert not parity.compare("x", "fp32", parity.WIDE, known((pose, root)), (pose, root * np.nan)).passed


@pytest.mark.parametrize(("part", "node"), [("rays", "rays/"), ("network", "network/"), ("placement", "placement/")])
def test_the_part_at_fault_is_found(part: str, node: str, lifter: Any, onnx_file: Path, tmp_path: Path) -> None:
    """A Mul or Add of that part works on twice its first operand."""
    import onnx

    model = read_onnx(onnx_file)
    kinds = ("Mul", "Add", "Gemm")
    hurt = [n for n in model.graph.node if n.name.startswith(node) and n.op_type in kinds][0 if part == "rays" else -1]
    doubled = onnx.helper.make_node("Add", [hurt.input[0], hurt.input[0]], ["doubled"], name=f"{node}doubled")
    where = list(model.graph.node).index(hurt)
    hurt.input[0] = "doubled"
    model.graph.node.insert(where, doubled)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.SerializeToString())
    assert f"{part!r}" in parity.fault(broken, lifter, "fp32", INPUTS, tmp_path)


def test_a_dropped_cast_is_refused(lifter: Any, exported: tuple[Bundle, dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "lifter.fp16.onnx"
    model = read_onnx(exported[0].file(path.name))
    cast = next(n for n in model.graph.node if n.op_type == "Cast" and n.name.startswith("network/"))
    for node in model.graph.node:
        node.input[:] = [cast.input[0] if name == cast.output[0] else name for name in node.input]
    model.graph.node.remove(cast)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="onnxruntime cannot load it"):
        parity.fault(path, lifter, "fp16", INPUTS, tmp_path)


def test_too_large_for_half_is_found(lifter: Any) -> None:
    """Weights past 65504: fp32 takes them, half does not."""
    loud = in_precision(lifter, "fp32")
    wild = type(lifter)(lifter.config).eval()
    wild.load_state_dict(loud.state_dict())
    wild.network.head.weight.data *= 1e9
    truth, got = parity.reference(wild, INPUTS), parity.torch_poses(in_precision(wild, "fp16"), INPUTS)
    result = parity.compare("half", "fp16", "drawn", truth, got)
    assert result.not_finite and not result.passed


def test_half_leaves_the_geometry_alone(lifter: Any) -> None:
    reduced = in_precision(lifter, "fp16")
    kinds = {p.dtype for p in reduced.network.reduced.parameters()}
    assert kinds == {torch.float16}
    assert {b.dtype for n, b in reduced.named_buffers() if "network" not in n} == {torch.float32}
    assert next(lifter.parameters()).dtype == torch.float32
