import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from poseda_deploy.backend import open_backend, replay_golden
from poseda_deploy.bundle import GOLDEN, MANIFEST, ONNX, Bundle, default_bundle_path, load_bundle, write_manifest
from poseda_deploy.errors import BackendError, BundleError, CheckFailed
from poseda_deploy.skeleton import BONE_GROUPS, H36M17


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The shipped bundle, to be damaged."""
    return Path(shutil.copytree(default_bundle_path(), tmp_path / "bundle"))


def test_shipped_bundle_gives_what_was_recorded() -> None:
    bundle = load_bundle(default_bundle_path())
    with open_backend(bundle, "ort-cpu") as backend:
        assert replay_golden(backend, bundle) < 0.05


def test_shipped_bundle_is_a_few_megabytes_and_says_how_it_was_made() -> None:
    bundle = load_bundle(default_bundle_path())
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) < 12e6
    config = bundle.manifest.config
    assert {"cmu13", "cmu14"} <= set(config["without"])
    assert bundle.manifest.licence == "Apache-2.0"
    assert not any("/" in str(source) for source in config["source"])


@pytest.mark.parametrize("name", [ONNX, GOLDEN, "lifter.safetensors"])
def test_a_flipped_byte_is_refused_before_parsing(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} is damaged or was changed"):
        load_bundle(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / ONNX).unlink()
    with pytest.raises(BundleError, match=f"{ONNX} is missing"):
        load_bundle(copy)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "x"}', '{"schema": 1, "files": 3}'])
def test_foreign_manifest(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="manifest"):
        load_bundle(copy)


def test_newer_schema_asks_for_an_upgrade(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(BundleError, match="schema 99 is newer") as caught:
        load_bundle(copy)
    assert "upgrade" in caught.value.hint


def test_a_manifest_cannot_reach_outside(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"]["../secret"] = "0" * 64
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="secret is missing"):
        load_bundle(copy)


def rewritten(path: Path) -> Bundle:
    """Hashes made anew, as somebody would who meddles with a bundle."""
    names = tuple(load_names(path))
    return write_manifest(path, names, config={}, report={})


def load_names(path: Path) -> list[str]:
    return list(json.loads((path / MANIFEST).read_text())["files"])


def test_other_outputs_than_recorded_fail_the_check(copy: Path) -> None:
    with np.load(copy / GOLDEN) as archive:
        arrays = dict(archive)
    right, left = H36M17.index("right_wrist"), H36M17.index("left_wrist")
    arrays["pose"][:, [right, left]] = arrays["pose"][:, [left, right]]
    np.savez(copy / GOLDEN, **arrays)
    bundle = rewritten(copy)
    with open_backend(bundle, "ort-cpu") as backend, pytest.raises(CheckFailed, match="other poses than were recorded"):
        replay_golden(backend, bundle)


def test_a_file_that_is_no_onnx_is_refused(copy: Path) -> None:
    (copy / ONNX).write_bytes(b"not a model")
    with pytest.raises(BundleError, match="not an ONNX file"):
        open_backend(rewritten(copy), "ort-cpu")


def test_cuda_is_never_silently_the_cpu() -> None:
    """On a machine with a GPU this opens; elsewhere it must say no."""
    bundle = load_bundle(default_bundle_path())
    try:
        with open_backend(bundle, "ort-cuda") as backend:
            assert backend.provider == "CUDAExecutionProvider"
    except BackendError as error:
        assert "asked for CUDAExecutionProvider" in str(error)


def test_the_onnx_file_explains_itself() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(load_bundle(default_bundle_path()).file(ONNX))
    facts = {prop.key: prop.value for prop in model.metadata_props}
    assert facts["joints"].split() == list(H36M17.joints)
    assert facts["bones"].split() == list(BONE_GROUPS)
    assert [i.name for i in model.graph.input] == ["keypoints", "camera", "up", "bones"]
    assert [o.name for o in model.graph.output] == ["pose", "root"]
    shapes = [[d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input]
    assert shapes == [["batch", 17, 3], ["batch", 4], ["batch", 3], ["batch", 9]]
