"""ONNX -> TensorRT engine, on TensorRT 10, 11 and RTX by one code path, with proof of the precision that was built.

Networks are strongly typed, which is the only kind in TensorRT 11 and a flag in 10: types come from the graph. RTX
builds without a GPU for the compute capabilities it is told; the others build for the GPU they run on.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from poseda_deploy.bundle import Engine, Precision
from poseda_deploy.cuda import Gpu
from poseda_deploy.errors import BackendError, CheckFailed, InputError
from poseda_deploy.files import write_aside
from poseda_deploy.onnx_graph import SHAPES, read_onnx

LEAST_HALF = 0.9
"""Of the network's layers in a half engine: all but the casts around it."""
_HALF = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}
_MIN_WEIGHT = 256
"""Smaller matrices, and vectors (batch norms), the builder merges into others."""


@dataclass(frozen=True)
class Plan:
    """An engine's bytes, what it is, and how long it took."""

    data: bytes
    engine: Engine
    seconds: float

    @property
    def name(self) -> str:
        """File that says by name what it runs on."""
        engine = self.engine
        where = "+".join(engine.gpus) or "any"
        return f"lifter.{engine.precision}.{engine.flavour}-{engine.tensorrt}.{where}.engine"


def build(
    onnx_path: Path,
    precision: Precision,
    batch: tuple[int, int, int],
    gpus: Sequence[str],
    tensorrt: ModuleType,
    gpu: Gpu | None,
) -> Plan:
    """Parse, build, read back. CheckFailed where the engine is not in the precision asked for."""
    start = time.perf_counter()
    log = _messages(tensorrt)
    builder = _builder(tensorrt, log, gpu)
    network, parser = _parse(onnx_path, tensorrt, builder, log)
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    _set_profile(builder, config, batch)
    targets = _set_targets(tensorrt, config, gpus, gpu)
    cache = _read_timing_cache(tensorrt, config, gpu)
    plan = builder.build_serialized_network(network, config)
    del parser
    if plan is None:
        raise BackendError(f"{tensorrt.__name__} cannot build {onnx_path.name}: {log.last}", hint="see --debug")
    if cache is not None:
        with write_aside(cache) as aside:
            aside.write_bytes(bytes(config.get_timing_cache().serialize()))
    data = bytes(plan)
    layers, share, proof = prove(data, onnx_path, precision, network, tensorrt, log, gpu)
    name = gpu.name if gpu and tensorrt.__name__ == "tensorrt" else ""
    version = str(tensorrt.__version__)
    engine = Engine(precision, tensorrt.__name__, version, targets, name, batch, layers, round(share, 4), proof)
    return Plan(data, engine, time.perf_counter() - start)


def _messages(tensorrt: ModuleType) -> Any:
    """A logger that keeps the last error instead of printing a page."""

    class Messages(tensorrt.ILogger):  # type: ignore[misc, name-defined]
        """Of this TensorRT."""

        def __init__(self) -> None:
            super().__init__()
            self.last = "no message"

        def log(self, severity: Any, message: str) -> None:
            if severity in (tensorrt.ILogger.Severity.ERROR, tensorrt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message.strip().splitlines()[0][:300]

    return Messages()


def _builder(tensorrt: ModuleType, log: Any, gpu: Gpu | None) -> Any:
    if gpu is None and not hasattr(tensorrt, "ComputeCapability"):
        raise BackendError(
            "TensorRT builds engines on the GPU that will run them, and there is none here",
            hint="run it there; or pip install 'poseda-deploy[rtx]' for portable TensorRT-RTX engines",
        )
    return tensorrt.Builder(log)


def _parse(path: Path, tensorrt: ModuleType, builder: Any, log: Any) -> tuple[Any, Any]:
    """The network and its parser, which owns the weights until the engine is built."""
    read_onnx(path)
    flags = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        said = parser.get_error(0).desc() if parser.num_errors else log.last
        raise BackendError(f"{tensorrt.__name__} {tensorrt.__version__} cannot read {path.name}: {said}")
    return network, parser


def _set_profile(builder: Any, config: Any, batch: tuple[int, int, int]) -> None:
    profile = builder.create_optimization_profile()
    for name, shape in SHAPES["inputs"].items():
        profile.set_shape(name, *((people, *shape) for people in batch))
    config.add_optimization_profile(profile)


def _set_targets(tensorrt: ModuleType, config: Any, gpus: Sequence[str], gpu: Gpu | None) -> tuple[str, ...]:
    """What the engine will run on; InputError for a GPU that this TensorRT cannot build for."""
    known = getattr(tensorrt, "ComputeCapability", None)
    if known is None:
        if gpu is None or any(asked != gpu.capability for asked in gpus):
            here = gpu.capability if gpu else "none"
            raise InputError(f"--gpu {','.join(gpus)}: TensorRT builds for the GPU in this machine only ({here})")
        return (gpu.capability,)
    can = [name.lower() for name in known.__members__ if name.startswith("SM")]
    wrong = [asked for asked in gpus if asked not in can]
    if wrong:
        raise InputError(f"--gpu {wrong[0]}: {tensorrt.__name__} builds for {', '.join(sorted(can))}")
    if gpus:
        config.num_compute_capabilities = len(gpus)
        for index, asked in enumerate(gpus):
            config.set_compute_capability(known.__members__[asked.upper()], index)
    return tuple(gpus)


def _read_timing_cache(tensorrt: ModuleType, config: Any, gpu: Gpu | None) -> Path | None:
    """Kernel timings of earlier builds on this card; RTX chooses kernels when it loads and keeps none."""
    if gpu is None or tensorrt.__name__ != "tensorrt":
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poseda-deploy"
    path = home / f"tensorrt-{tensorrt.__version__}-{gpu.capability}.timing"
    data = path.read_bytes() if path.is_file() else b""
    config.set_timing_cache(config.create_timing_cache(data), False)
    return path


# --- proof ------------------------------------------------------------------------------------------------------------


def prove(
    plan: bytes, onnx_path: Path, precision: Precision, network: Any, tensorrt: ModuleType, log: Any, gpu: Gpu | None
) -> tuple[int, float, str]:
    """(layers, share of the network in half, how it was read); CheckFailed where that is not what was asked for."""
    engine = tensorrt.Runtime(log).deserialize_cuda_engine(plan) if gpu else None
    if engine is not None:
        text = engine.create_engine_inspector().get_engine_information(tensorrt.LayerInformationFormat.JSON)
        layers, share = read_inspector(text, precision)
        proof = "engine inspector"
    else:
        layers, declared = network.num_layers, _share_of_layers(network, precision)
        share = min(declared, share_of_weights(plan, onnx_path, precision))
        proof = "types of the network's layers and its weights found in the engine"
    if precision != "fp32" and share < LEAST_HALF:
        raise CheckFailed(
            f"asked for {precision}, but only {100 * share:.0f} % of the network in the engine are in half ({proof})",
            hint="report this with the TensorRT version; --trt fp32 builds what it says",
        )
    return layers, 0.0 if precision == "fp32" else share, proof


def read_inspector(text: str, precision: Precision) -> tuple[int, float]:
    """(layers, share of the network's layers whose outputs are in half) from the engine inspector's JSON."""
    layers = json.loads(text).get("Layers", [])
    wanted = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16"}[precision]
    inside = [layer for layer in layers if isinstance(layer, dict) and "network/" in json.dumps(layer)]
    outputs = [json.dumps(layer.get("Outputs", [])) for layer in inside]
    computing = [text for text in outputs if any(kind in text for kind in ("Float", "Half", "FP16", "FP32", "BF16"))]
    short = {"fp16": "FP16", "bf16": "BF16", "fp32": "FP32"}[precision]
    half = [text for text in computing if wanted in text or short in text]
    return len(layers), len(half) / len(computing) if computing else 0.0


def _share_of_layers(network: Any, precision: Precision) -> float:
    """Of the strongly typed network's computing layers; the cast back to fp32 is not one."""
    total = half = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = str(layer.get_output(0).dtype).rpartition(".")[2]
        if "network/" in layer.name and kind in _HALF.values() and "CAST" not in str(layer.type):
            total, half = total + 1, half + (kind == _HALF[precision])
    return half / total if total else 0.0


def share_of_weights(plan: bytes, onnx_path: Path, precision: Precision) -> float:
    """Of the network's weights, by size, how many lie in the engine in that precision, byte for byte.

    The only reading of a finished engine that needs no GPU. The builder keeps some matrices transposed.
    """
    total = found = 0
    for values in network_weights(onnx_path):
        total += values.size
        starts = (values.tobytes()[:512], values.T.tobytes()[:512])
        found += values.size * (_HALF[precision] == _kind(values) and any(start in plan for start in starts))
    return found / total if total else 0.0


def network_weights(onnx_path: Path) -> list[np.ndarray]:
    """The network's larger matrices; bf16 as two bytes each."""
    from onnx import TensorProto, numpy_helper

    graph = read_onnx(onnx_path).graph
    inside = {name for node in graph.node if node.name.startswith("network/") for name in node.input}
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    tensors = (t for t in graph.initializer if t.name in inside and t.data_type in kinds)
    arrays = map(numpy_helper.to_array, tensors)
    return [array for array in arrays if array.ndim > 1 and array.size >= _MIN_WEIGHT]


def _kind(values: np.ndarray) -> str:
    return {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}.get(str(values.dtype), "")
