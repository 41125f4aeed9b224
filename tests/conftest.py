"""Synthetic people and cameras for every test, and the versions in the report header."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import looking_down, walk_m

from poseda_deploy.bundle import Bundle, load_bundle
from poseda_deploy.camera import Camera
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.skeleton import H36M17

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_report_header() -> list[str]:
    found = []
    for package in ("numpy", "torch", "onnx", "onnxruntime", "mediapipe", "opencv-python", "opencv-python-headless"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} -")
    return [", ".join(found), f"shared data: {'present' if SHARED.is_dir() else 'absent'}"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data; skips where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no ../shared/data on this machine")
    return SHARED / "data"


@pytest.fixture(scope="session")
def camera() -> Camera:
    return Camera((1280, 720), (1000.0, 1000.0), (640.0, 360.0))


@pytest.fixture(scope="session")
def walker_cam_m() -> np.ndarray:
    """(90,17,3) absolute joints of the walker in camera axes."""
    rotation, translation = looking_down(0.2)
    return walk_m(90) @ rotation.T + translation


@pytest.fixture(scope="session")
def walker(walker_cam_m: np.ndarray, camera: Camera) -> Keypoints2D:
    """The walker as an exact detector sees him."""
    xy_px = camera.project(walker_cam_m).astype(np.float32)[:, None]
    score = np.ones(xy_px.shape[:3], np.float32)
    return Keypoints2D(xy_px, score, camera.size_wh, H36M17, np.arange(90) / 30, camera)


@pytest.fixture
def walker_file(walker: Keypoints2D, tmp_path: Path) -> Path:
    path = tmp_path / "walker.npz"
    walker.save(path)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of 32 units, poses near a striding person. Not to be written to: an export takes seconds."""
    from bundles import tiny_bundle

    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def exported(tiny: Bundle) -> tuple[Bundle, dict[str, Any]]:
    """That bundle with everything poseda-export adds on a machine without a GPU, and the summary it printed."""
    pytest.importorskip("tensorrt_rtx")
    out, triton = tiny.path.with_name("exported"), tiny.path.with_name("triton")
    flags = ["--bundle", str(tiny.path), "--out", str(out), "--trt", "fp16", "--gpu", "sm86,sm89"]
    command = "import sys; from poseda_deploy.export.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", command, *flags, "--triton", str(triton), "--json", "--quiet"],
        check=True,
        capture_output=True,
        text=True,
    )
    return load_bundle(out), json.loads(done.stdout)
