"""What runs a lifter: one protocol, found by name. The only place where the stages meet."""

from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from poseda_deploy.bundle import Bundle
from poseda_deploy.calibrate import Lift, tiled
from poseda_deploy.camera import Camera
from poseda_deploy.errors import CheckFailed

BackendName = Literal["ort-cpu", "ort-cuda", "torch"]

GOLDEN_LIMIT_MM = 0.5
"""How far a machine may be from the recorded outputs; fp32 differs by under 0.05 mm between CPUs."""

_CLASSES: dict[BackendName, str] = {
    "ort-cpu": "poseda_deploy.runtime.ort:OrtCpuBackend",
    "ort-cuda": "poseda_deploy.runtime.ort:OrtCudaBackend",
    "torch": "poseda_deploy.export.reference:TorchBackend",
}


@runtime_checkable  # so that shape checks in tests can look at it
class Backend(Protocol):
    """Context manager that lifts batches."""

    provider: str
    """What really runs, as the runtime itself reports it."""

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


def open_backend(bundle: Bundle, name: BackendName) -> Backend:
    """The named backend on that bundle; MissingDependency or BackendError if this machine cannot."""
    module, _, attribute = _CLASSES[name].partition(":")
    backend: Backend = getattr(import_module(module), attribute)(bundle)
    return backend


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
    if worst_mm > GOLDEN_LIMIT_MM:
        raise CheckFailed(
            f"{backend.provider} gives other poses than were recorded: {worst_mm:.2f} mm, limit {GOLDEN_LIMIT_MM}",
            hint="another onnxruntime version or device may be at fault; try --backend ort-cpu",
        )
    return worst_mm
