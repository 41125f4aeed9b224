"""How long a lift takes: every backend and precision that this machine can run, beside torch, in one process."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from poseda_deploy.backend import RUNTIME_BACKENDS, open_backend
from poseda_deploy.bundle import Bundle, Precision
from poseda_deploy.errors import PosedaError
from poseda_deploy.model import load_lifter
from poseda_deploy.onnx_graph import example_inputs

from .precision import in_precision

Call = Callable[[], object]
Prepare = Callable[[int], Call]
"""People -> a call that lifts so many, from arrays on the host to arrays on the host."""
WARM_UP_S = 0.2


@dataclass(frozen=True)
class Timing:
    """One way to lift, one batch size."""

    way: str
    people: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    people_per_s: float
    runs: int


def ways(
    bundle: Bundle, precisions: tuple[Precision, ...], compiles: bool
) -> Iterator[tuple[str, Callable[[], Prepare]]]:
    """(name, opener) of everything that might run here; an opener raises what this machine lacks."""
    for backend in RUNTIME_BACKENDS:
        for precision in precisions:
            yield f"{backend} {precision}", lambda b=backend, p=precision: _backend(bundle, b, p)  # type: ignore[misc]
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for precision in precisions if device == "cuda" else ("fp32",):
            name = f"torch {device} {precision}"
            yield f"{name} eager", lambda d=device, p=precision: _torch(bundle, d, p, compiled=False)  # type: ignore[misc]
            if compiles:
                yield f"{name} compile", lambda d=device, p=precision: _torch(bundle, d, p, compiled=True)  # type: ignore[misc]
            if device == "cuda":
                yield f"{name} graph", lambda p=precision: _torch_graph(bundle, p)  # type: ignore[misc]


def _backend(bundle: Bundle, name: Any, precision: Precision) -> Prepare:
    backend = open_backend(bundle, name, precision)

    def prepare(people: int) -> Call:
        values = list(example_inputs(people).values())
        return lambda: backend.lift(*values)

    return prepare


def _torch(bundle: Bundle, device: str, precision: Precision, *, compiled: bool) -> Prepare:
    lifter: Any = in_precision(load_lifter(bundle), precision).to(device)
    if compiled:
        lifter = torch.compile(lifter, dynamic=True)

    def prepare(people: int) -> Call:
        values = [torch.from_numpy(value) for value in example_inputs(people).values()]

        def call() -> object:
            with torch.inference_mode():
                return [output.cpu().numpy() for output in lifter(*(value.to(device) for value in values))]

        return call

    return prepare


def _torch_graph(bundle: Bundle, precision: Precision) -> Prepare:
    """The whole lifter as one CUDA graph, copies in and out around it."""
    lifter = in_precision(load_lifter(bundle), precision).to("cuda")

    def prepare(people: int) -> Call:
        host = [torch.from_numpy(value).pin_memory() for value in example_inputs(people).values()]
        device = [value.cuda() for value in host]
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            for _ in range(3):
                lifter(*device)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                outputs = lifter(*device)

        def call() -> object:
            for there, here in zip(device, host, strict=True):
                there.copy_(here, non_blocking=True)
            graph.replay()
            return [output.cpu().numpy() for output in outputs]

        return call

    return prepare


def measure(way: str, call: Call, people: int, seconds: float) -> Timing:
    """Warm up, then call for that long, ten times at least."""
    until = time.perf_counter() + WARM_UP_S
    call()
    while time.perf_counter() < until:
        call()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < 10 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    p50, p90, p99 = (round(1000 * float(q), 4) for q in np.percentile(taken, (50, 90, 99)))
    return Timing(way, people, p50, p90, p99, round(people / float(np.median(taken)), 1), len(taken))


def run_all(
    tried: Iterable[tuple[str, Callable[[], Prepare]]],
    batches: tuple[int, ...],
    seconds: float,
    advance: Callable[[int], None],
) -> tuple[list[Timing], dict[str, str]]:
    """Every timing, and for each way that does not run here why."""
    timings, absent = [], {}
    for way, opener in tried:
        try:
            prepare = opener()
            for people in batches:
                timings.append(measure(way, prepare(people), people, seconds))
        except (PosedaError, RuntimeError) as error:  # torch raises RuntimeError where a compiler or memory is missing
            absent[way] = str(error).strip().splitlines()[0][:160]
        advance(1)
    return timings, absent


def verdict(timings: list[Timing], batch: int = 1) -> str:
    """What is fastest for one person, and whether a GPU or TensorRT is worth it there."""
    one = {t.way: t.p50_ms for t in timings if t.people == batch}
    if not one:
        return ""
    best = min(one, key=lambda way: one[way])
    cpu = {way: ms for way, ms in one.items() if way.startswith("ort-cpu")}
    gpu = {way: ms for way, ms in one.items() if way.startswith(("ort-cuda", "trt", "torch cuda"))}
    text = f"one person: {best} is fastest, {one[best]:.3g} ms"
    if cpu and gpu:
        fast_cpu, fast_gpu = min(cpu.values()), min(gpu.values())
        helps = "helps" if fast_gpu < 0.9 * fast_cpu else "does not help"
        text += f"; the GPU {helps} for one person ({fast_gpu:.3g} against {fast_cpu:.3g} ms on the CPU)"
    elif cpu:
        text += "; neither a GPU nor TensorRT ran here"
    return text
