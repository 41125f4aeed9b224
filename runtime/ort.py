"""ONNX Runtime backends: lifter.onnx on the CPU or on CUDA, and never on another than was asked for."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.bundle import ONNX, Bundle
from poseda_deploy.errors import BackendError, BundleError, MissingDependency

_INPUTS = ("keypoints", "camera", "up", "bones")


class OrtCpuBackend:
    """One thread: a lifter takes 0.3 ms, and a second thread only takes cores from the detector."""

    asked = "CPUExecutionProvider"

    def __init__(self, bundle: Bundle) -> None:
        self._session = open_session(bundle.file(ONNX), self.asked)
        self.provider = self._session.get_providers()[0]
        if self.provider != self.asked:
            raise BackendError(
                f"asked for {self.asked}, but {self.provider} would run",
                hint="poseda-run --backend ort-cpu runs anywhere",
            )

    def lift(
        self,
        keypoints: Float[np.ndarray, "n 17 3"],
        camera: Float[np.ndarray, "n 4"],
        up: Float[np.ndarray, "n 3"],
        bones: Float[np.ndarray, "n 9"],
    ) -> tuple[Float[np.ndarray, "n 17 3"], Float[np.ndarray, "n 3"]]:
        """(pose, root) in metres, camera axes."""
        values = (keypoints, camera, up, bones)
        feed = {name: np.ascontiguousarray(value, np.float32) for name, value in zip(_INPUTS, values, strict=True)}
        pose, root = self._session.run(["pose", "root"], feed)
        return pose, root

    def __enter__(self) -> "OrtCpuBackend":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session


class OrtCudaBackend(OrtCpuBackend):
    """The same file on an NVIDIA GPU."""

    asked = "CUDAExecutionProvider"


def open_session(path: Path, provider: str) -> Any:
    """A session on that provider; raises if onnxruntime is missing, doubled, or cannot read the file."""
    ort = _onnxruntime()
    if provider not in ort.get_available_providers():
        raise BackendError(
            f"asked for {provider}, which this onnxruntime does not have",
            hint="pip uninstall onnxruntime, then pip install 'poseda-deploy[gpu]'; or --backend ort-cpu",
        )
    if provider == "CUDAExecutionProvider":
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # its warnings are about falling back, which we check ourselves
    try:
        return ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime raises its own classes, straight from C++, with RuntimeError above them
        if type(error).__module__.startswith("onnxruntime") or isinstance(error, RuntimeError | ValueError):
            raise BundleError(f"{path}: onnxruntime cannot load it ({_first_line(error)})") from error
        raise


def _onnxruntime() -> ModuleType:
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        raise BackendError(
            "onnxruntime and onnxruntime-gpu are both installed; whichever came last runs",
            hint="pip uninstall onnxruntime onnxruntime-gpu, then install one",
        )
    # Since 1.32 the wheels send usage events and keep a device id on disk, unless told not to before the import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(
            "onnxruntime is not installed", hint="pip install 'poseda-deploy[cpu]' or 'poseda-deploy[gpu]'"
        ) from error
    module: ModuleType = onnxruntime
    return module


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
