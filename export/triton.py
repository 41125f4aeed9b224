"""A model repository for NVIDIA Triton Inference Server: the lifter as ONNX and as TensorRT, with dynamic batching.

    DIR/poseda_lifter/config.pbtxt, 1/model.onnx                    for the onnxruntime backend, CPU or GPU
    DIR/poseda_lifter_fp16/...                                      the same with the network in half
    DIR/poseda_lifter_trt_fp16/config.pbtxt, 1/model.plan           where the bundle holds a TensorRT engine

Fields are those of Triton's model_config.proto; a test parses every file with NVIDIA's own schema.
"""

from collections.abc import Mapping
from pathlib import Path

from poseda_deploy.bundle import Bundle, Precision, onnx_name
from poseda_deploy.errors import InputError
from poseda_deploy.files import write_aside
from poseda_deploy.onnx_graph import SHAPES

MOST_PEOPLE = 4096
QUEUE_US = 500
"""How long a request waits for company: less than a tenth of a detector's frame."""


def write_repository(bundle: Bundle, folder: Path, overwrite: bool) -> list[Path]:
    """One folder a model, each file of it replaced in one step, the configuration last; returns them.

    What else lies in those folders, such as other versions of a model, stays.
    """
    models = _models(bundle)
    existing = [name for name in models if (folder / name).exists()]
    if existing and not overwrite:
        raise InputError(
            f"{folder / existing[0]} exists", hint="--overwrite replaces it, --triton DIR writes elsewhere"
        )
    for name, files in models.items():
        for target, content in files.items():
            with write_aside(folder / name / target) as aside:
                aside.write_bytes(content)
    return [folder / name for name in models]


def _models(bundle: Bundle) -> dict[str, dict[str, bytes]]:
    """Model -> file in its folder -> content."""
    found = {}
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    for precision in precisions:
        if onnx_name(precision) in bundle.manifest.files:
            name = "poseda_lifter" if precision == "fp32" else f"poseda_lifter_{precision}"
            config = model_config(bundle, name, 'backend: "onnxruntime"', MOST_PEOPLE, {"precision": precision})
            found[name] = {"1/model.onnx": bundle.read(onnx_name(precision)), "config.pbtxt": config.encode()}
    for file, engine in bundle.manifest.engines.items():
        if engine.flavour == "tensorrt":  # Triton's backend loads no TensorRT-RTX engines
            name = f"poseda_lifter_trt_{engine.precision}"
            facts = {"precision": engine.precision, "tensorrt": engine.tensorrt, "gpu": " ".join(engine.gpus)}
            config = model_config(bundle, name, 'platform: "tensorrt_plan"', engine.batch[2], facts)
            found[name] = {"1/model.plan": bundle.read(file), "config.pbtxt": config.encode()}
    return found


def model_config(bundle: Bundle, name: str, backend: str, most: int, facts: Mapping[str, str]) -> str:
    """config.pbtxt: every tensor by name and shape, requests of several cameras joined to one batch."""
    known = {**facts, "bundle": bundle.manifest.name, "axes": bundle.manifest.units}
    parameters = "\n".join(
        f'parameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value in known.items()
    )
    tensors = [
        f'{side.removesuffix("s")} {{ name: "{tensor}" data_type: TYPE_FP32 dims: [ {", ".join(map(str, shape))} ] }}'
        for side, shapes in SHAPES.items()
        for tensor, shape in shapes.items()
    ]
    return f"""# Written by poseda-export. Inputs and outputs: docs/conventions.md.
name: "{name}"
{backend}
max_batch_size: {most}
{chr(10).join(tensors)}
dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_US} }}
version_policy {{ latest {{ num_versions: 1 }} }}
{parameters}
"""
