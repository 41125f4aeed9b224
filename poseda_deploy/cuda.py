"""The NVIDIA GPU through its driver alone (libcuda, by ctypes): no package to install, no version to match.

Entry points and constants are those of NVIDIA's CUDA Driver API reference, which have not changed since CUDA 11.4.
"""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from poseda_deploy.errors import BackendError

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NON_BLOCKING, _CAPTURE_THREAD_LOCAL = 1, 1


@dataclass(frozen=True)
class Gpu:
    """Which card this is."""

    name: str
    capability: str
    """As in "sm89"."""
    driver_cuda: str
    """Newest CUDA that the driver serves."""


def find_gpu() -> Gpu | None:
    """The first GPU, or None on a machine without one."""
    try:
        return Cuda().gpu
    except BackendError:
        return None


class Cuda:
    """The first GPU's primary context (shared with torch and onnxruntime), one stream, device and pinned memory."""

    def __init__(self) -> None:
        self._lib = _library()
        self._call("cuInit", ctypes.c_uint(0))
        device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._call("cuCtxSetCurrent", self._context)
        self._device = device
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(_NON_BLOCKING))
        self.stream = int(stream.value or 0)
        self.gpu = self._describe()

    def _describe(self) -> Gpu:
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, ctypes.c_int(256), self._device)
        version = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(version))
        major, minor = (self._attribute(which) for which in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR))
        cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return Gpu(name.value.decode(), f"sm{major}{minor}", cuda)

    def _attribute(self, which: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(which), self._device)
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._lib, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._lib.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
            said = text.value.decode() if text.value else "unknown"
            raise BackendError(
                f"CUDA driver: {name} failed with {code} ({said})", hint="nvidia-smi; or --backend ort-cpu"
            )

    def use(self) -> None:
        """Make the context current in this thread."""
        self._call("cuCtxSetCurrent", self._context)

    def device_bytes(self, size: int) -> int:
        """Address of that many bytes on the GPU."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def free(self, host: np.ndarray, address: int) -> None:
        """Give pinned and device memory back; the array must not be used any more."""
        self._call("cuMemFreeHost", ctypes.c_void_p(host.ctypes.data))
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def pinned(self, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array in page-locked host memory, which copies need to be asynchronous."""
        size = 4 * int(np.prod(shape))
        address = ctypes.c_void_p()
        self._call("cuMemAllocHost_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return np.ctypeslib.as_array((ctypes.c_float * (size // 4)).from_address(address.value or 0)).reshape(shape)

    def upload(self, address: int, host: np.ndarray) -> None:
        """Queue a copy to the GPU."""
        arguments = ctypes.c_uint64(address), ctypes.c_void_p(host.ctypes.data), ctypes.c_size_t(host.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", *arguments, ctypes.c_void_p(self.stream))

    def download(self, host: np.ndarray, address: int) -> None:
        """Queue a copy from the GPU."""
        arguments = ctypes.c_void_p(host.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(host.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", *arguments, ctypes.c_void_p(self.stream))

    def wait(self) -> None:
        """Until everything queued is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self.stream))

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` queues as a CUDA graph; the result queues all of it with one launch."""
        graph, runnable = ctypes.c_void_p(), ctypes.c_void_p()
        stream = ctypes.c_void_p(self.stream)
        self._call("cuStreamBeginCapture_v2", stream, ctypes.c_int(_CAPTURE_THREAD_LOCAL))
        try:
            work()
        finally:
            self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(runnable), graph, ctypes.c_ulonglong(0))
        return lambda: self._call("cuGraphLaunch", runnable, stream)


def _library() -> ctypes.CDLL:
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise BackendError(
            "no NVIDIA driver on this machine", hint="--backend ort-cpu; on a machine with a GPU install its driver"
        ) from error
