"""TensorRT engines of a bundle, on the GPU and version they were built for and on no other.

Buffers are fixed and everything between keypoints in and poses out stays on the GPU; each batch size that keeps
coming is captured as one CUDA graph.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.bundle import Bundle, Engine, Precision
from poseda_deploy.cuda import Cuda, Gpu
from poseda_deploy.engines import load_tensorrt, refusal
from poseda_deploy.errors import BackendError, BundleError, InputError, MissingDependency

_SHAPES: dict[str, tuple[int, ...]] = {
    "keypoints": (17, 3),
    "camera": (4,),
    "up": (3,),
    "bones": (9,),
    "pose": (17, 3),
    "root": (3,),
}
_OUTPUTS = ("pose", "root")
_REBUILD = "poseda-export --trt fp16 --overwrite builds one here"
_WARM_UP = 2
MOST_GRAPHS = 32
"""Batch sizes that keep their buffers on the GPU."""


class TrtBackend:
    """One engine, one stream, a context for each batch size (a captured graph needs its own): for one thread."""

    def __init__(self, bundle: Bundle, precision: Precision | None = None) -> None:
        wanted = {n: e for n, e in bundle.manifest.engines.items() if precision in (None, e.precision)}
        if not wanted:
            kind = f"{precision} engine" if precision else "TensorRT engine"
            raise BundleError(f"bundle {bundle.path} has no {kind}", hint=f"poseda-export --trt {precision or 'fp16'}")
        self._cuda = Cuda()
        name, engine, tensorrt = choose(wanted, self._cuda.gpu)
        self._batch = engine.batch
        self.precision: Precision = engine.precision
        self.provider = f"{engine.flavour} {engine.tensorrt} {engine.precision} on {self._cuda.gpu.name}"
        logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        self._engine = tensorrt.Runtime(logger).deserialize_cuda_engine(bundle.read(name))
        if self._engine is None:
            raise BackendError(f"{engine.flavour} cannot load {name} on {self._cuda.gpu.name}", hint=_REBUILD)
        self._people: dict[int, _People] = {}

    def lift(
        self,
        keypoints: Float[np.ndarray, "n 17 3"],
        camera: Float[np.ndarray, "n 4"],
        up: Float[np.ndarray, "n 3"],
        bones: Float[np.ndarray, "n 9"],
    ) -> tuple[Float[np.ndarray, "n 17 3"], Float[np.ndarray, "n 3"]]:
        """(pose, root) in metres, camera axes; more people than the engine serves go in several calls."""
        least, _, most = self._batch
        values = (keypoints, camera, up, bones)
        if len(keypoints) < least:
            raise InputError(
                f"{len(keypoints)} people, and the engine serves {least} to {most}", hint="--batch 1,64,1024"
            )
        parts = [self._lift([value[i : i + most] for value in values]) for i in range(0, len(keypoints), most)]
        return np.concatenate([pose for pose, _ in parts]), np.concatenate([root for _, root in parts])

    def _lift(self, values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        self._cuda.use()
        count = len(values[0])
        if count not in self._people:
            while len(self._people) >= MOST_GRAPHS:
                self._people.pop(next(iter(self._people))).free()
            self._people[count] = _People(self._cuda, self._engine.create_execution_context(), count)
        return self._people[count].run(values)

    def __enter__(self) -> "TrtBackend":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for people in self._people.values():
            people.free()
        self._people.clear()
        del self._engine


def choose(engines: dict[str, Engine], gpu: Gpu) -> tuple[str, Engine, ModuleType]:
    """The engine that runs here, half before full; BackendError says of each why it does not."""
    why = []
    for name, engine in sorted(engines.items(), key=lambda item: item[1].precision == "fp32"):
        try:
            tensorrt = load_tensorrt((engine.flavour,))
        except MissingDependency as error:
            why.append((f"{name}: {error}", error.hint))
            continue
        reason = refusal(engine, tensorrt, gpu)
        if not reason:
            return name, engine, tensorrt
        why.append((f"{name}: {reason}", _REBUILD))
    raise BackendError("no engine of this bundle runs here: " + "; ".join(text for text, _ in why), hint=why[0][1])


@dataclass(frozen=True)
class _Buffer:
    host: np.ndarray
    device: int


class _People:
    """Buffers for so many people, and after a warm-up the CUDA graph of their lift."""

    def __init__(self, cuda: Cuda, context: Any, count: int) -> None:
        self._cuda, self._context, self._runs = cuda, context, 0
        self._buffers = {name: self._buffer((count, *shape)) for name, shape in _SHAPES.items()}
        self._graph: Callable[[], None] | None = None
        for name, buffer in self._buffers.items():
            if name not in _OUTPUTS and not context.set_input_shape(name, buffer.host.shape):
                raise BackendError(f"the engine refuses {count} people", hint=_REBUILD)
            context.set_tensor_address(name, buffer.device)

    def _buffer(self, shape: tuple[int, ...]) -> _Buffer:
        host = self._cuda.pinned(shape)
        return _Buffer(host, self._cuda.device_bytes(host.nbytes))

    def run(self, values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Copy in, run, copy out; the first calls run without a graph, as TensorRT asks for before a capture."""
        for buffer, value in zip(self._buffers.values(), values, strict=False):
            np.copyto(buffer.host, value)
        if self._graph is None and self._runs >= _WARM_UP:
            self._graph = self._cuda.capture(self._queue)
        (self._graph or self._queue)()
        self._cuda.wait()
        self._runs += 1
        pose, root = (self._buffers[name].host.copy() for name in _OUTPUTS)
        return pose, root

    def _queue(self) -> None:
        for name, buffer in self._buffers.items():
            if name not in _OUTPUTS:
                self._cuda.upload(buffer.device, buffer.host)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise BackendError("the TensorRT engine failed to run", hint="--backend ort-cpu")
        for name in _OUTPUTS:
            self._cuda.download(self._buffers[name].host, self._buffers[name].device)

    def free(self) -> None:
        """Give the memory back."""
        for buffer in self._buffers.values():
            self._cuda.free(buffer.host, buffer.device)
