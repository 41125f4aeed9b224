"""poseda-export from flags to files: what is written is proven, and what fails leaves nothing behind."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poseda_deploy.bundle import MANIFEST, WEIGHTS, Bundle
from poseda_deploy.errors import InputError
from poseda_deploy.export import stage
from poseda_deploy.export.cli import main, parse_batch
from poseda_deploy.model import Lifter
from poseda_deploy.onnx_graph import SHAPES
from poseda_deploy.skeleton import H36M17

ENGINE = ".sm86+sm89.engine"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_engine_and_its_onnx_join_a_copy_of_the_bundle(
    tiny: Bundle, exported: tuple[Bundle, dict[str, Any]]
) -> None:
    bundle, summary = exported
    engine = next(name for name in bundle.manifest.files if name.endswith(ENGINE))
    assert set(bundle.manifest.files) == {*tiny.manifest.files, "lifter.fp16.onnx", engine}
    assert {path.name for path in bundle.path.iterdir()} == {*bundle.manifest.files, MANIFEST}
    entry = bundle.manifest.engines[engine]
    assert (entry.precision, entry.flavour, entry.gpus) == ("fp16", "tensorrt_rtx", ("sm86", "sm89"))
    assert entry.half_share > 0.9 and entry.batch == (1, 1, 1024)
    assert summary["engines"][engine]["run"].startswith("built, not run") or torch.cuda.is_available()
    figures = bundle.manifest.report["parity"]["lifter.fp16.onnx"]["golden"]
    assert figures["passed"] and 0 < figures["pose_p99_mm"] < 2


def test_existing_files_stay_without_overwrite(
    exported: tuple[Bundle, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, _ = exported
    before = contents(bundle.path)
    assert main(["--bundle", str(bundle.path), "--onnx", "fp16", "--quiet"]) == 2
    assert "lifter.fp16.onnx exists. Try: --overwrite" in capsys.readouterr().err
    assert contents(bundle.path) == before


def test_a_check_alone_writes_nothing(tiny: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(tiny.path)
    assert main(["--bundle", str(tiny.path), "--json", "--quiet"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["parity_mm"]["lifter.onnx on golden"]["pose_p99"] < 0.05
    assert contents(tiny.path) == before


def swapped(lifter: Lifter, precision: str) -> Lifter:
    """A conversion that takes the left wrist for the right one."""
    wrong = Lifter(lifter.config).eval()
    wrong.load_state_dict(lifter.state_dict())
    head: Any = wrong.network.head
    left, right = (3 * (H36M17.index(f"{side}_wrist") - 1) for side in ("left", "right"))
    for values in (head.weight.data, head.bias.data):
        values[[*range(left, left + 3), *range(right, right + 3)]] = values[
            [*range(right, right + 3), *range(left, left + 3)]
        ].clone()
    return wrong


def test_a_wrong_conversion_is_caught_and_leaves_nothing(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "in_precision", swapped)
    flags = ["--bundle", str(tiny.path), "--out", str(tmp_path / "out"), "--onnx", "fp16", "--quiet"]
    assert main(flags) == 1
    said = capsys.readouterr().err
    assert "lifter.fp16.onnx differs from torch" in said and "part 'network' of the graph" in said
    assert list(tmp_path.iterdir()) == []


def test_another_lifter_is_not_mixed_in(tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(tiny.path, tmp_path / "other"))
    manifest = json.loads((other / MANIFEST).read_text())
    (other / WEIGHTS).write_bytes(b"x")
    manifest["files"][WEIGHTS] = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    (other / MANIFEST).write_text(json.dumps(manifest))
    assert main(["--bundle", str(tiny.path), "--out", str(other), "--onnx", "fp16", "--overwrite", "--quiet"]) == 2
    assert "holds another lifter" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(
    tiny: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["--bundle", str(tiny.path), "--out", str(tmp_path), "--onnx", "fp16", "--overwrite"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a folder that even root cannot write to")
def test_a_read_only_folder_says_so(tiny: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tiny.path), "--out", "/sys/poseda", "--onnx", "fp16", "--quiet"]) == 2
    assert "check the path, its permissions and the disk" in capsys.readouterr().err


def test_a_full_disk_leaves_the_bundle_as_it_was(tiny: Bundle, tmp_path: Path) -> None:
    """Files may not pass 100 kB in that process, as on a full disk."""
    folder = Path(shutil.copytree(tiny.path, tmp_path / "bundle"))
    before = contents(folder)
    command = "import sys; from poseda_deploy.export.cli import main; sys.exit(main(sys.argv[1:]))"
    flags = ["--bundle", str(folder), "--trt", "fp32", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", command, *flags],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.returncode == 2 and "File too large" in done.stderr
    assert contents(folder) == before


@pytest.mark.parametrize("text", ["", "1,2", "0,1,2", "4,2,8", "a,b,c"])
def test_impossible_batches(text: str) -> None:
    with pytest.raises(InputError, match="expected MIN,OPT,MAX"):
        parse_batch(text)


def triton_schema() -> Any:
    """NVIDIA's own message classes, without the gRPC package around them."""
    import importlib.util

    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_triton_repository_obeys_nvidias_schema(exported: tuple[Bundle, dict[str, Any]]) -> None:
    from google.protobuf import text_format

    bundle, summary = exported
    schema = triton_schema()
    names = []
    for folder in map(Path, summary["triton"]):
        config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
        names.append(config.name)
        assert config.name == folder.name and config.max_batch_size == 4096
        assert {t.name: tuple(t.dims) for t in config.input} == SHAPES["inputs"]
        assert {t.name: tuple(t.dims) for t in config.output} == SHAPES["outputs"]
        assert config.dynamic_batching.max_queue_delay_microseconds > 0
        assert (folder / "1" / "model.onnx").read_bytes() == bundle.file(_onnx_of(folder.name)).read_bytes()
    assert names == ["poseda_lifter", "poseda_lifter_fp16"]


def _onnx_of(model: str) -> str:
    return "lifter.fp16.onnx" if model.endswith("fp16") else "lifter.onnx"


def test_every_batch_size_gives_the_same_poses(exported: tuple[Bundle, dict[str, Any]]) -> None:
    from poseda_deploy.backend import open_backend
    from poseda_deploy.onnx_graph import example_inputs

    people = example_inputs(1024, seed=5)
    with open_backend(exported[0], "ort-cpu") as backend:
        pose, root = backend.lift(*people.values())
        for count in (1, 2, 7, 64):
            some_pose, some_root = backend.lift(*(value[:count] for value in people.values()))
            np.testing.assert_allclose(some_pose, pose[:count], atol=5e-5)
            np.testing.assert_allclose(some_root, root[:count], atol=5e-5)


def test_a_model_repository_keeps_what_others_put_there(tiny: Bundle, tmp_path: Path) -> None:
    from poseda_deploy.export.triton import write_repository

    write_repository(tiny, tmp_path, overwrite=False)
    (tmp_path / "poseda_lifter" / "2").mkdir()
    (tmp_path / "poseda_lifter" / "2" / "model.onnx").write_bytes(b"another version")
    (tmp_path / "poseda_lifter" / "1" / "model.onnx").write_bytes(b"stale")
    write_repository(tiny, tmp_path, overwrite=True)
    assert (tmp_path / "poseda_lifter" / "2" / "model.onnx").read_bytes() == b"another version"
    assert (tmp_path / "poseda_lifter" / "1" / "model.onnx").read_bytes() == tiny.file("lifter.onnx").read_bytes()
