"""Which backend runs, and what is refused on the way."""

import json
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poseda_deploy import backend as core
from poseda_deploy.backend import fastest_backend, open_backend, replay_golden
from poseda_deploy.bundle import MANIFEST, ONNX, Bundle, default_bundle_path, load_bundle
from poseda_deploy.cuda import find_gpu
from poseda_deploy.errors import BackendError, BundleError
from poseda_deploy.files import sha256
from poseda_deploy.runtime import ort

SHIPPED = load_bundle(default_bundle_path())


def test_auto_says_what_it_chose_and_why(walker_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from poseda_deploy.runtime.cli import main

    flags = ["--keypoints", str(walker_file), "--out", str(tmp_path / "a"), "--backend", "auto", "--json"]
    assert main([*flags, "--quiet"]) == 0
    said = capsys.readouterr()
    assert "--backend auto chose" in said.err and "ort-cpu" in said.err and "not trt: bundle" in said.err
    if find_gpu() is None:
        assert json.loads(said.out)["provider"] == "CPUExecutionProvider"


def test_auto_takes_the_fastest_that_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong one and a slow one lose to the right one."""
    real = open_backend(SHIPPED, "ort-cpu")

    class Stub:
        provider, precision = "stub", "fp32"

        def __init__(self, name: str) -> None:
            self.name = name

        def lift(self, *values: Any) -> Any:
            pose, root = real.lift(*values)
            return (pose + 0.1 * (self.name == "trt"), root)

        def __enter__(self) -> "Stub":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(core, "open_backend", lambda bundle, name: Stub(name))
    monkeypatch.setattr(core, "_one_person_ms", lambda backend, bundle: {"ort-cpu": 2.0, "ort-cuda": 1.0}[backend.name])
    name, why = fastest_backend(SHIPPED)
    assert name == "ort-cuda"
    assert "ort-cpu 2.00 ms a person; ort-cuda 1.00 ms a person; not trt: stub gives other poses" in why


def test_a_half_file_that_is_not_there_says_how_to_make_it() -> None:
    with pytest.raises(BundleError, match=r"has no lifter\.fp16\.onnx") as caught:
        open_backend(SHIPPED, "ort-cpu", "fp16")
    assert caught.value.hint == "poseda-export --onnx fp16"


def foreign(tmp_path: Path, opset: int, names: tuple[str, ...]) -> Bundle:
    """The shipped bundle with somebody else's model in place of lifter.onnx, hashes in order."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(name, kind, ["n", 17, 3]) for name in names]
    output = helper.make_tensor_value_info("pose", kind, ["n", 17, 3])
    graph = helper.make_graph([helper.make_node("Identity", [names[0]], ["pose"])], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    folder = Path(shutil.copytree(SHIPPED.path, tmp_path / "foreign"))
    onnx.save(model, folder / ONNX)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][ONNX] = sha256(folder / ONNX)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return load_bundle(folder)


def test_a_foreign_onnx_is_refused_by_the_runtime(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"not a lifter of this project: it has kp2d \(n,17,3\)"):
        open_backend(foreign(tmp_path, 18, ("kp2d",)), "ort-cpu")


def test_a_foreign_or_old_onnx_is_refused_by_the_exporter(tmp_path: Path) -> None:
    from poseda_deploy.onnx_graph import read_onnx

    path = foreign(tmp_path, 11, ("kp2d",)).file(ONNX)
    with pytest.raises(
        BundleError, match=r"opset 11, expected 18 or newer; inputs kp2d \(n,17,3\), expected keypoints"
    ):
        read_onnx(path)
    path.write_bytes(b"\xff no model")
    with pytest.raises(BundleError, match="not an ONNX file"):
        read_onnx(path)


def test_both_onnxruntimes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "version", lambda package: "1.32.0")
    with pytest.raises(BackendError, match="both installed") as caught:
        open_backend(SHIPPED, "ort-cpu")
    assert "pip uninstall onnxruntime onnxruntime-gpu" in caught.value.hint


def test_one_onnxruntime_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_cpu(package: str) -> str:
        if package == "onnxruntime-gpu":
            raise PackageNotFoundError
        return "1.32.0"

    monkeypatch.setattr(ort, "version", only_cpu)
    with open_backend(SHIPPED, "ort-cpu") as backend:
        assert replay_golden(backend, SHIPPED) < 0.05


@pytest.mark.gpu
def test_cuda_gives_the_recorded_poses_at_every_batch_size() -> None:
    """Twice each, so that a captured graph is replayed."""
    from poseda_deploy.onnx_graph import example_inputs

    people = list(example_inputs(64).values())
    with open_backend(SHIPPED, "ort-cuda") as cuda, open_backend(SHIPPED, "ort-cpu") as cpu:
        assert cuda.provider == "CUDAExecutionProvider"
        for count in (1, 4, 64, 1, 4, 64, 1, 4, 64):
            values = [value[:count] for value in people]
            for ours, theirs in zip(cuda.lift(*values), cpu.lift(*values), strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-4)
