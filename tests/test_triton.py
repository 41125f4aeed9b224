"""Our model repository on a real Triton server (the one inside nvidia-pytriton), asked by docs/triton_client.py."""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from poseda_deploy.bundle import ONNX, default_bundle_path, load_bundle
from poseda_deploy.export.triton import model_config

ROOT = Path(__file__).resolve().parents[1]
URL = "127.0.0.1:18931"
MODEL = '''
"""That server has the python backend only, so this stands in for Triton's onnxruntime backend."""
from pathlib import Path
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        names = ("keypoints", "camera", "up", "bones")
        feed = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in names}
        found = self.session.run(["pose", "root"], feed)
        return triton.InferenceResponse([triton.Tensor(n, v) for n, v in zip(("pose", "root"), found)])
'''


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """The server's log, while it serves the shipped lifter."""
    pytest.importorskip("tritonclient")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "nvidia-pytriton", "onnxruntime"]
    if subprocess.run(pip, timeout=600).returncode:
        pytest.skip("nvidia-pytriton cannot be installed here")
    site = next((venv / "lib").glob("python3.*/site-packages"))
    triton = site / "pytriton" / "tritonserver"
    backends = Path(shutil.copytree(triton / "backends", tmp_path / "backends"))
    stub = triton / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    if not stub.is_dir():
        pytest.skip("nvidia-pytriton has no stub for this Python")
    shutil.copy(stub / "triton_python_backend_stub", backends / "python")
    repository = write_repository(tmp_path / "repository")
    libraries = f"{site / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
    host, _, port = URL.partition(":")
    command = [str(triton / "bin" / "tritonserver"), f"--model-repository={repository}"]
    command += [f"--backend-directory={backends}", f"--http-address={host}", f"--http-port={port}"]
    command += ["--allow-grpc=false", "--allow-metrics=false"]
    path = f"{venv / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(site), "LD_LIBRARY_PATH": libraries}
    log = tmp_path / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        yield log
        process.terminate()
        process.wait(60)


def write_repository(folder: Path) -> Path:
    bundle = load_bundle(default_bundle_path())
    version = folder / "poseda_lifter" / "1"
    version.mkdir(parents=True)
    shutil.copy(bundle.file(ONNX), version / "model.onnx")
    (version / "model.py").write_text(MODEL)
    config = model_config(bundle, "poseda_lifter", 'backend: "python"', 4096, {"precision": "fp32"})
    (version.parent / "config.pbtxt").write_text(config)
    return folder


@pytest.mark.slow
def test_a_real_server_gives_the_recorded_poses(server: Path) -> None:
    command = [sys.executable, str(ROOT / "docs" / "triton_client.py"), "--url", URL]
    for _ in range(60):
        done = subprocess.run(command, capture_output=True, text=True)
        if not done.returncode:
            break
        time.sleep(2)
    assert "at most 0.0" in done.stdout, done.stderr[-500:] + server.read_text()[-2000:]
