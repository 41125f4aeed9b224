"""poseda-bench: latency and throughput of every backend that this machine can run, beside torch, with versions."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import tyro

from poseda_deploy.bundle import Precision, default_bundle_path, load_bundle
from poseda_deploy.cuda import find_gpu
from poseda_deploy.errors import InputError
from poseda_deploy.terminal import CommonOptions, progress, run_command

_PACKAGES = ("poseda-deploy", "numpy", "onnxruntime", "onnxruntime-gpu", "torch", "tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class BenchOptions(CommonOptions):
    """Flags of poseda-bench."""

    bundle: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Bundle to time; default: models/adapted here if there is one, else the one that ships."""
    batch: tuple[int, ...] = (1, 8, 64, 512, 4096)
    """People in one call."""
    precision: tuple[Precision, ...] = ("fp32", "fp16")
    """Of the network; those that the bundle holds."""
    seconds: float = 1.0
    """To measure each for, after its warm-up."""
    compile: bool = True
    """Time torch.compile too, which compiles for up to a minute."""
    threads: int = 1
    """Of torch on the CPU; ONNX Runtime always has one."""

    def __post_init__(self) -> None:
        if not self.batch or min(self.batch) < 1 or self.seconds <= 0 or self.threads < 1:
            raise InputError("--batch, --seconds and --threads must be positive", hint="poseda-bench --batch 1 64")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-bench."""
    return run_command(BenchOptions, bench, argv, "poseda-bench", __doc__ or "")


def bench(options: BenchOptions) -> Mapping[str, Any]:
    """Time everything; returns the table."""
    bundle = load_bundle(options.bundle or default_bundle_path())
    import torch

    from .bench import run_all, verdict, ways

    torch.set_num_threads(options.threads)
    total = sum(1 for _ in ways(bundle, options.precision, options.compile))
    with progress("timing", total, quiet=options.quiet) as advance:
        tried = ways(bundle, options.precision, options.compile)
        timings, absent = run_all(tried, options.batch, options.seconds, advance)
    rows = [asdict(timing) for timing in timings]
    if not options.json:
        return {**_table(rows), "not here": absent, "verdict": verdict(timings), **machine(options.threads)}
    return {"timings": rows, "not_here": absent, "verdict": verdict(timings), "machine": machine(options.threads)}


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One line a way and batch size, for people to read."""
    return {
        f"{row['way']}, {row['people']} people": {f"{name} ms": row[f"{name}_ms"] for name in ("p50", "p90", "p99")}
        | {"people/s": row["people_per_s"]}
        for row in rows
    }


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    gpu = find_gpu()
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _processor(),
        "cores": os.cpu_count() or 0,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else -1.0,
        "torch_threads": threads,
        "gpu": asdict(gpu) if gpu else "none",
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
