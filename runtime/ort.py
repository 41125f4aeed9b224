"""ONNX Runtime backends: lifter.onnx on the CPU or on CUDA, and never on another than was asked for."""

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.bundle import Bundle, Precision, onnx_name
from poseda_deploy.errors import BackendError, BundleError, MissingDependency
from poseda_deploy.onnx_file import require_whole

_INPUTS, _OUTPUTS = ("keypoints", "camera", "up", "bones"), ("pose", "root")
_SHAPES = dict(zip((*_INPUTS, *_OUTPUTS), ((17, 3), (4,), (3,), (9,), (17, 3), (3,)), strict=True))
"""Without the batch."""


class OrtCpuBackend:
    """One thread: a lifter takes 0.3 ms, and a second thread only takes cores from the detector."""

    asked = "CPUExecutionProvider"

    def __init__(self, bundle: Bundle, precision: Precision | None = None) -> None:
        self.precision: Precision = precision or "fp32"
        name = onnx_name(self.precision)
        if name not in bundle.manifest.files and self.precision != "fp32":
            raise BundleError(f"bundle {bundle.path} has no {name}", hint=f"poseda-export --onnx {self.precision}")
        self._session = self._open(bundle.read(name), bundle.file(name))
        require_lifter(self._session, bundle.file(name))
        self.provider = self._session.get_providers()[0]
        if self.provider != self.asked:
            raise BackendError(
                f"asked for {self.asked}, but {self.provider} would run",
                hint="poseda-run --backend ort-cpu runs anywhere",
            )

    def _open(self, model: bytes, path: Path) -> Any:
        return open_model(model, path, self.asked)

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
        pose, root = self._run(feed)
        return pose, root

    def _run(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        found: list[np.ndarray] = self._session.run(list(_OUTPUTS), feed)
        return found

    def __enter__(self) -> "OrtCpuBackend":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session


class OrtCudaBackend(OrtCpuBackend):
    """The same file on an NVIDIA GPU: fixed buffers and a CUDA graph for each of the first batch sizes it meets."""

    asked = "CUDAExecutionProvider"

    def _open(self, model: bytes, path: Path) -> Any:
        """Without graphs where onnxruntime cannot capture this model; `graphs` says which it is."""
        self._bound: dict[int, _Bound] = {}
        try:
            session, self.graphs = open_model(model, path, self.asked, {"enable_cuda_graph": "1"}), True
        except BundleError:
            session, self.graphs = open_model(model, path, self.asked), False
        return session

    def _run(self, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        people = len(feed[_INPUTS[0]])
        if people not in self._bound:
            if len(self._bound) >= MOST_GRAPHS:
                self._bound.pop(next(iter(self._bound)))
            self._bound[people] = _Bound(self._session, people, graph=self.graphs)
        return self._bound[people].run(self._session, feed)


MOST_GRAPHS = 32
"""Batch sizes that keep their buffers on the GPU."""


class _Bound:
    """Buffers of one batch size on the GPU. Keypoints go up and poses come down; nothing else is copied."""

    def __init__(self, session: Any, people: int, *, graph: bool) -> None:
        ort = _onnxruntime()
        self._binding, self._options = session.io_binding(), ort.RunOptions()
        if graph:
            self._options.add_run_config_entry("gpu_graph_id", str(people))
        self._inputs = {name: self._buffer(ort, people, _SHAPES[name]) for name in _INPUTS}
        self._outputs = [self._buffer(ort, people, _SHAPES[name]) for name in _OUTPUTS]
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in zip(_OUTPUTS, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    @staticmethod
    def _buffer(ort: ModuleType, people: int, shape: tuple[int, ...]) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type((people, *shape), np.float32, "cuda", 0)

    def run(self, session: Any, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Copy in, run, copy out."""
        for name, value in feed.items():
            self._inputs[name].update_inplace(value)
        session.run_with_iobinding(self._binding, self._options)
        return [value.numpy() for value in self._outputs]


def require_lifter(session: Any, path: Path) -> None:
    """BundleError unless the model has a lifter's inputs and outputs."""
    found = {value.name: tuple(value.shape[1:]) for value in (*session.get_inputs(), *session.get_outputs())}
    if found != _SHAPES:
        raise BundleError(
            f"{path} is not a lifter of this project: it has {_listed(found)}, expected {_listed(_SHAPES)}",
            hint="poseda-train makes a bundle",
        )


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} (n,{','.join(map(str, shape))})" for name, shape in shapes.items())


def open_session(path: Path, provider: str) -> Any:
    """A session on that provider; raises if onnxruntime is missing, doubled, or cannot read the file."""
    return open_model(path.read_bytes(), path, provider)


def open_model(model: bytes, path: Path, provider: str, options: Mapping[str, str] | None = None) -> Any:
    """As open_session, for what is in memory already; a model that reads other files is refused."""
    require_whole(model, path)
    ort = _onnxruntime()
    if provider not in ort.get_available_providers():
        raise BackendError(
            f"asked for {provider}, which this onnxruntime does not have",
            hint="pip uninstall onnxruntime, then pip install 'poseda-deploy[gpu]'; or --backend ort-cpu",
        )
    if provider != "CPUExecutionProvider":
        ort.preload_dlls()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.load_model_format", "ONNX")  # never guessed from the bytes
    settings.log_severity_level = 4  # its warnings are about falling back, which we check ourselves
    try:
        return ort.InferenceSession(model, settings, providers=[(provider, dict(options or {}))])
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
