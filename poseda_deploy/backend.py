"""What runs a lifter: one protocol, found by name. The only place where the stages meet."""

import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from poseda_deploy.bundle import Bundle, Precision
from poseda_deploy.calibrate import Lift, tiled
from poseda_deploy.camera import Camera
from poseda_deploy.errors import BackendError, BundleError, CheckFailed, MissingDependency

BackendName = Literal["ort-cpu", "ort-cuda", "trt", "torch"]

GOLDEN_LIMIT_MM: Mapping[Precision, float] = {"fp32": 0.5, "fp16": 15.0, "bf16": 60.0}
"""How far a machine may be from the recorded outputs at worst; fp32 differs by under 0.05 mm between CPUs."""

RUNTIME_BACKENDS: tuple[BackendName, ...] = ("ort-cpu", "ort-cuda", "trt")
"""What poseda-run may use."""

_CLASSES: dict[BackendName, str] = {
    "ort-cpu": "poseda_deploy.runtime.ort:OrtCpuBackend",
    "ort-cuda": "poseda_deploy.runtime.ort:OrtCudaBackend",
    "trt": "poseda_deploy.runtime.trt:TrtBackend",
    "torch": "poseda_deploy.export.reference:TorchBackend",
}


@runtime_checkable  # so that shape checks in tests can look at it
class Backend(Protocol):
    """Context manager that lifts batches."""

    provider: str
    """What really runs, as the runtime itself reports it."""
    precision: Precision
    """Of the network."""

    def lift(
        self,
        keypoints: Float[np.ndarray, "n 17 3"],
        camera: Float[np.ndarray, "n 4"],
        up: Float[np.ndarray, "n 3"],
        bones: Float[np.ndarray, "n 9"],
    ) -> tuple[Float[np.ndarray, "n 17 3"], Float[np.ndarray, "n 3"]]:
        """(pose, root) in metres, camera axes; inputs as in Lifter.forward, float32."""
        ...

    def __enter__(self) -> "Backend": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_backend(bundle: Bundle, name: BackendName, precision: Precision | None = None) -> Backend:
    """The named backend on that bundle; MissingDependency or BackendError if this machine cannot.

    Without a precision: fp32, and for TensorRT that of the engine in the bundle.
    """
    module, _, attribute = _CLASSES[name].partition(":")
    backend: Backend = getattr(import_module(module), attribute)(bundle, precision)
    return backend


def fastest_backend(bundle: Bundle) -> tuple[BackendName, str]:
    """What lifts one person soonest of all that run here and give the recorded poses, and what was found of each."""
    found: dict[BackendName, float] = {}
    said = []
    for name in RUNTIME_BACKENDS:
        try:
            with open_backend(bundle, name) as backend:
                replay_golden(backend, bundle)
                found[name] = _one_person_ms(backend, bundle)
                said.append(f"{name} {found[name]:.2f} ms a person")
        except (BackendError, BundleError, CheckFailed, MissingDependency) as error:
            said.append(f"not {name}: {error}")
    if not found:
        raise BackendError(f"nothing runs this bundle here: {'; '.join(said)}", hint="pip install 'poseda-deploy[cpu]'")
    return min(found, key=lambda name: found[name]), "; ".join(said)


def _one_person_ms(backend: Backend, bundle: Bundle, runs: int = 30) -> float:
    golden = bundle.golden()
    one = [golden[name][:1] for name in ("keypoints", "camera", "up", "bones")]
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        backend.lift(*one)
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds[runs // 3 :]))


def open_foreign_onnx(path: Path) -> Any:
    """An onnxruntime session on the CPU for a model that is not ours; same refusals as for ours."""
    return import_module("poseda_deploy.runtime.ort").open_session(path, "CPUExecutionProvider")


def with_camera(backend: Backend, camera: Camera) -> Lift:
    """(keypoints, up, bones) -> (pose, root) for one camera."""
    return lambda keypoints, up, bones: backend.lift(keypoints, tiled(camera.vector, keypoints), up, bones)


def replay_golden(backend: Backend, bundle: Bundle) -> float:
    """Run the recorded inputs; the largest distance in mm from the recorded joints. Raises over the limit."""
    golden = bundle.golden()
    pose, root = backend.lift(*(golden[name] for name in ("keypoints", "camera", "up", "bones")))
    off = np.linalg.norm(pose + root[:, None] - golden["pose"] - golden["root"][:, None], axis=-1)
    worst_mm = float(np.nan_to_num(off, nan=np.inf).max() * 1000)
    limit_mm = GOLDEN_LIMIT_MM[backend.precision]
    if worst_mm > limit_mm:
        raise CheckFailed(
            f"{backend.provider} gives other poses than were recorded: {worst_mm:.2f} mm, limit {limit_mm}",
            hint="another onnxruntime version or device may be at fault; try --backend ort-cpu",
        )
    return worst_mm
