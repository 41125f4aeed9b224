"""What the small things cost: --help of every command, one frame into each sink, one live step, 50,000 prior poses.

    python benchmarks/overhead.py

Medians on this machine; compare them with each other, and with figures of the same machine only.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np

from poseda_deploy.backend import open_backend
from poseda_deploy.bundle import load_bundle, shipped_bundle_path
from poseda_deploy.calibrate import Known
from poseda_deploy.camera import Camera
from poseda_deploy.onnx_graph import example_inputs
from poseda_deploy.poses import PosedFrame
from poseda_deploy.runtime.people import LivePeople
from poseda_deploy.runtime.sinks import Sink
from poseda_deploy.runtime.stream import open_stream
from poseda_deploy.runtime.video import Frame
from poseda_deploy.runtime.web import WebPage
from poseda_deploy.runtime.write import PoseLog
from poseda_deploy.skeleton import H36M17
from poseda_deploy.train.prior import default_prior_path, load_prior

CAMERA = Camera((1280, 720), (1000.0, 1000.0), (640.0, 360.0))
FRAMES = 450


def median_ms(work: Callable[[int], object], runs: int) -> float:
    """Of so many calls, each told its number."""
    taken_s = []
    for index in range(runs):
        start_s = time.perf_counter()
        work(index)
        taken_s.append(time.perf_counter() - start_s)
    return 1000 * float(np.median(taken_s))


def posed(index: int) -> PosedFrame:
    """Somebody, in one frame."""
    pose_m = np.random.default_rng(index).normal(size=(1, 17, 3)).astype(np.float32)
    return PosedFrame(
        index, index / 30, np.arange(1), pose_m, pose_m[:, 1], np.ones((1, 17), np.float32), pose_m[..., :2]
    )


def show_help(command: str) -> float:
    """Of a process from start to end."""
    path = Path(sys.executable).with_name(command)
    return median_ms(lambda _: subprocess.run([path, "--help"], check=True, stdout=subprocess.DEVNULL), 5)


def put(sink: Sink) -> float:
    """What the run waits for while one frame goes in."""
    picture, people = np.zeros((720, 1280, 3), np.uint8), posed(0)
    with sink:
        return median_ms(lambda index: sink.put(Frame(index, index / 30, picture), people), FRAMES)


def step() -> float:
    """Tracking, calibrating, lifting and smoothing one frame of one person."""
    xy_px = example_inputs(1)["keypoints"][..., :2]
    picture, score = np.zeros((2, 2, 3), np.uint8), np.ones((1, 17), np.float32)
    bundle = load_bundle(shipped_bundle_path())
    with open_backend(bundle, "ort-cpu") as backend:
        people = LivePeople(backend, CAMERA, Known(), H36M17, 1)
        return median_ms(lambda index: people.step(Frame(index, index / 30, picture), xy_px + index % 9, score), FRAMES)


def main() -> None:
    """Print one line for each."""
    for entry in sorted(entry_points(group="console_scripts"), key=lambda entry: entry.name):
        if entry.name.startswith("poseda-"):
            print(f"{entry.name} --help: {show_help(entry.name):.0f} ms")
    with tempfile.TemporaryDirectory() as folder:
        sinks = {
            "log": PoseLog(Path(folder) / "a.jsonl"),
            "stream tcp": open_stream("tcp://127.0.0.1:0"),
            "page": WebPage(0, CAMERA),
        }
        for name, sink in sinks.items():
            print(f"one frame into {name}: {put(sink):.3f} ms")
    print(f"one live step: {step():.2f} ms")
    prior = load_prior(default_prior_path())
    print(f"50,000 poses of the prior: {median_ms(lambda seed: prior.sample(50_000, seed=seed), 3):.0f} ms")


if __name__ == "__main__":
    main()
