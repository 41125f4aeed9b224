"""What was exported against torch in double precision, in millimetres; and where a difference comes from.

A gate must find wrong conversions and not mind rounding. Rounding is multiplied where joints nearly coincide in view:
bones that come out short in the refinement turn freely, round after round. So people in whom torch itself in fp32 is
off by more than a quarter of the limit count in proportion: their joints may be four times as far off as fp32 is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from poseda_deploy.backend import open_foreign_onnx
from poseda_deploy.bundle import Bundle, Precision
from poseda_deploy.calibrate import MIN_JOINTS, expected_bones_m
from poseda_deploy.camera import default_camera
from poseda_deploy.errors import CheckFailed, InputError
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.model import Lifter
from poseda_deploy.onnx_graph import exact_poses, example_inputs, read_onnx
from poseda_deploy.skeleton import H36M17

Inputs = Mapping[str, Float[np.ndarray, "n ..."]]
Poses = tuple[Float[np.ndarray, "n 17 3"], Float[np.ndarray, "n 3"]]

LIMITS_MM: Mapping[Precision, float] = {"fp32": 0.05, "fp16": 2.0, "bf16": 16.0}
"""99 in 100 joints, and 99 in 100 roots, must be nearer than this. bf16 has three bits fewer than fp16."""
ROUNDINGS = 4
"""Times of fp32: how far it is off in one person is chance, up to tenfold; limits also hold for this multiple of it."""
JITTER = 1e-6
"""Relative change of the keypoints by which rounding falls otherwise."""
NEAR_M = 5.0
"""Root errors grow with distance; beyond this they count in proportion."""
PEOPLE = 512
WIDE, MISSING = "wide angle", "joints missing"
"""Shown, not a limit: 60 degrees off axis the root itself is known to centimetres only, and with half of the joints
missing the rounding of a half-precision network grows (mlp: 1.2 mm in the pose, 2.6 in the root). In fp32 the latter
is a limit too."""


@dataclass(frozen=True)
class Parity:
    """One exported file, on one set of people, against torch in fp32."""

    candidate: str
    precision: Precision
    people: str
    count: int
    pose_p99_mm: float
    pose_max_mm: float
    root_p99_mm: float
    root_max_mm: float
    rounding_p99_mm: float
    """What torch in fp32 loses on the same people."""
    counted_p99_mm: float
    """The larger of pose and root, ill-conditioned people in proportion: this is held against the limit."""
    not_finite: str
    """The first joint that is no number, and how far away its person is; empty = none."""

    @property
    def passed(self) -> bool:
        """Whether it meets the limit of its precision."""
        near = self.counted_p99_mm <= LIMITS_MM[self.precision]
        shown = self.people == WIDE or (self.people == MISSING and self.precision != "fp32")
        return not self.not_finite and (near or shown)

    def summary(self) -> dict[str, object]:
        """For the manifest and --json."""
        figures = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return {**figures, "limit_mm": LIMITS_MM[self.precision], "passed": self.passed}


@dataclass(frozen=True)
class Reference:
    """What torch makes of some people in double precision, and how much of that fp32 can hold."""

    poses: Poses
    rounding_mm: Float[np.ndarray, " n"]
    """As of the function of that name."""


def reference(lifter: Lifter, inputs: Inputs) -> Reference:
    """What to compare with."""
    return Reference(exact_poses(lifter, inputs), rounding_mm(lifter, inputs))


def compare(candidate: str, precision: Precision, people: str, known: Reference, got: Poses) -> Parity:
    """Distances between joints relative to the pelvis, and between roots (scaled to NEAR_M where farther)."""
    truth = known.poses
    finite = np.asarray(np.isfinite(got[0]).all(-1) & np.isfinite(got[1]).all(-1, keepdims=True))
    pose_mm = 1000 * np.linalg.norm(got[0] - truth[0], axis=-1)
    away_m = np.linalg.norm(truth[1], axis=-1)
    root_mm = 1000 * np.linalg.norm(got[1] - truth[1], axis=-1) * np.minimum(1, NEAR_M / away_m)
    share = LIMITS_MM["fp32"] / np.maximum(ROUNDINGS * known.rounding_mm, LIMITS_MM["fp32"])
    counted_mm = max(_p99_max(pose_mm * share[:, None])[0], _p99_max(root_mm * share)[0])
    figures = (*_p99_max(pose_mm), *_p99_max(root_mm), _p99_max(known.rounding_mm)[0], counted_mm)
    return Parity(candidate, precision, people, len(away_m), *figures, _first_lost(finite, away_m))


def rounding_mm(lifter: Lifter, inputs: Inputs) -> Float[np.ndarray, " n"]:
    """What torch in fp32 loses against fp64, of each person the worst joint or root: the most of ROUNDINGS tries."""
    random = np.random.default_rng(0)
    tries = []
    for number in range(ROUNDINGS):
        moved = dict(inputs)
        if number:
            off = 1 + JITTER * random.uniform(-1, 1, inputs["keypoints"][..., :2].shape)
            pixels = (inputs["keypoints"][..., :2] * off).astype(np.float32)
            moved["keypoints"] = np.concatenate([pixels, inputs["keypoints"][..., 2:]], -1)
        tries.append(_apart_mm(torch_poses(lifter, moved), exact_poses(lifter, moved)))
    return np.max(tries, axis=0)


def _apart_mm(one: Poses, other: Poses) -> Float[np.ndarray, " n"]:
    pose_mm, root_mm = (1000 * np.linalg.norm(a - b, axis=-1) for a, b in zip(one, other, strict=True))
    return np.maximum(pose_mm.max(1), root_mm)


def _p99_max(error_mm: Float[np.ndarray, "..."]) -> tuple[float, float]:
    known = np.nan_to_num(error_mm, nan=np.inf, posinf=np.inf)
    return float(np.quantile(known, 0.99, method="higher")), float(known.max())


def _first_lost(finite: Bool[np.ndarray, "n 17"], away_m: np.ndarray) -> str:
    if finite.all():
        return ""
    person, joint = (int(i[0]) for i in np.nonzero(~finite))
    return f"{H36M17.joints[joint]} of person {person}, {away_m[person]:.1f} m away"


def probe(bundle: Bundle, keypoints: Keypoints2D | None) -> dict[str, Inputs]:
    """People to compare on: recorded ones, the user's own or drawn ones, half of their joints missing, wide angles."""
    golden = bundle.golden()
    names = ("keypoints", "camera", "up", "bones")
    own = {"drawn people": _drawn(1)} if keypoints is None else _own(bundle, keypoints)
    return {"golden": {name: golden[name] for name in names}, **own, MISSING: _missing(), WIDE: _wide()}


def _own(bundle: Bundle, keypoints: Keypoints2D) -> dict[str, Inputs]:
    camera = keypoints.camera or default_camera(keypoints.size_wh)
    rows = keypoints.model_input(camera).reshape(-1, 17, 3)
    rows = rows[(rows[..., 2] > 0).sum(1) >= MIN_JOINTS]
    if not len(rows):
        raise InputError(f"no frame of these keypoints has {MIN_JOINTS} joints", hint="leave out --keypoints")
    rows = rows[:: max(1, len(rows) // PEOPLE)].astype(np.float32)
    known = bundle.manifest.known
    scene = {
        "camera": camera.vector,
        "up": np.zeros(3, np.float32) if known.up is None else known.up,
        "bones": expected_bones_m(known),
    }
    return {"own keypoints": {"keypoints": rows, **{k: np.tile(v, (len(rows), 1)) for k, v in scene.items()}}}


def _drawn(seed: int) -> dict[str, Float[np.ndarray, "n ..."]]:
    """People of all shapes, ill-conditioned ones among them."""
    return example_inputs(PEOPLE, seed, spread_m=0.1, farthest_m=6.0)


def _missing() -> Inputs:
    inputs = _drawn(2)
    random = np.random.default_rng(2)
    inputs["keypoints"][..., 2] *= random.random((PEOPLE, 17)) > 0.5
    enough = (inputs["keypoints"][..., 2] > 0).sum(1) >= MIN_JOINTS
    return {name: value[enough] for name, value in inputs.items()}


def _wide() -> Inputs:
    inputs = _drawn(3)
    inputs["keypoints"][..., :2] += np.random.default_rng(3).uniform(-1500, 1500, (PEOPLE, 1, 2)).astype(np.float32)
    return inputs


def require(results: list[Parity], cause: str) -> None:
    """CheckFailed over the limit, with the figures and the part of the graph that is at fault."""
    worst = next((result for result in results if not result.passed), None)
    if worst is None:
        return
    what = f"{worst.candidate} differs from torch on {worst.people}"
    if worst.not_finite:
        raise CheckFailed(
            f"{what}: {worst.precision} overflows ({worst.not_finite} is no number); {cause}",
            hint="export fp32, or bf16 for TensorRT, whose range is that of fp32",
        )
    raise CheckFailed(
        f"{what}: p99 pose {worst.pose_p99_mm:.3g} mm, root {worst.root_p99_mm:.3g} mm, of which fp32 explains"
        f" {worst.rounding_p99_mm:.2g}; limit {LIMITS_MM[worst.precision]} mm for {worst.precision}; {cause};"
        " nothing was written",
        hint="make the bundle again with poseda-train, or export fp32",
    )


def torch_poses(lifter: Lifter, inputs: Inputs) -> Poses:
    """What torch makes of them, on the CPU."""
    with torch.no_grad():
        pose, root = lifter(*(torch.from_numpy(np.ascontiguousarray(v, np.float32)) for v in inputs.values()))
    return pose.numpy(), root.numpy()


def fault(path: Path, lifter: Lifter, precision: Precision, inputs: Inputs, scratch: Path) -> str:
    """Which part of that ONNX graph leaves torch's ways first: rays, network or placement."""
    seen: dict[str, np.ndarray] = {}
    handles = (
        lifter.network.register_forward_pre_hook(lambda _, given: seen.update(features=given[0].numpy())),
        lifter.network.register_forward_hook(lambda _, given, joints: seen.update(joints=joints.numpy())),
    )
    torch_poses(lifter, inputs)
    for handle in handles:
        handle.remove()
    got = _between_parts(path, inputs, scratch)
    if got is None:
        return "its graph has no parts by our names, so it was not made by poseda-export"
    for part, figure, limit in _parts(seen, got, precision):
        if not figure <= limit:
            return f"the fault is in the part {part!r} of the graph ({figure:.3g}, limit {limit:.3g})"
    if precision != "fp32":
        return f"the rounding of the {precision} network, itself within the limit, grows in the placement"
    return "rays and network agree, so the fault is in the part 'placement' of the graph"


def _parts(
    seen: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], precision: Precision
) -> Iterator[tuple[str, float, float]]:
    """(part, difference, limit): features without unit, the network's joints in mm."""
    size = max(1.0, float(np.abs(seen["features"]).max()))
    yield "rays", float(np.abs(got["features"] - seen["features"]).max()) / size, 1e-3
    off = np.linalg.norm(got["joints"] - seen["joints"], axis=-1) * 1000
    yield "network", _p99_max(off)[0], LIMITS_MM[precision]


def _between_parts(path: Path, inputs: Inputs, scratch: Path) -> dict[str, np.ndarray] | None:
    """The tensors between the parts, by running the graph with two more outputs."""
    import onnx

    model = read_onnx(path)
    if not {"features", "joints"} <= {name for node in model.graph.node for name in node.output}:
        return None
    for name in ("features", "joints"):
        model.graph.output.add().CopyFrom(onnx.ValueInfoProto(name=name))
    (scratch / "parts.onnx").write_bytes(model.SerializeToString())
    session = open_foreign_onnx(scratch / "parts.onnx")
    features, joints = session.run(["features", "joints"], dict(inputs))
    return {"features": features, "joints": joints}
