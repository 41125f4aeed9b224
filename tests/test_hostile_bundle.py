"""Bundles that somebody made up: refused in one line, whatever they hold, and before they cost memory."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poseda_deploy.backend import open_foreign_onnx
from poseda_deploy.bundle import MANIFEST, ONNX, Bundle, load_bundle, shipped_bundle_path
from poseda_deploy.errors import BundleError
from poseda_deploy.files import sha256


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_bundle_path(), tmp_path / "bundle"))


def changed(folder: Path, **entries: Any) -> Bundle:
    """The bundle with other entries in its manifest, and every hash in order."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: sha256(folder / name) for name in manifest["files"]}
    (folder / MANIFEST).write_text(json.dumps({**manifest, **entries}))
    return load_bundle(folder)


def refused(work: Callable[[], object]) -> str:
    """The message, which is one line and has a hint."""
    with pytest.raises(BundleError) as caught:
        work()
    assert "\n" not in str(caught.value) and caught.value.hint
    return str(caught.value)


# --- ONNX files that read others --------------------------------------------------------------------------------------


def external(kind: str, location: str) -> Any:
    """A model whose only numbers lie in another file: of the graph, of a node, of a graph within, of a function."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    value_of = [helper.make_tensor_value_info(name, 1, [4]) for name in ("x", "y")]
    add, constant = helper.make_node("Add", ["x", "w"], ["y"]), helper.make_node("Constant", [], ["w"], value=tensor)
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    if kind == "initializer":
        graph = helper.make_graph([add], "g", value_of[:1], value_of[1:], [tensor])
        return helper.make_model(graph, opset_imports=opset, ir_version=8)
    if kind == "constant":
        graph = helper.make_graph([constant, add], "g", value_of[:1], value_of[1:])
        return helper.make_model(graph, opset_imports=opset, ir_version=8)
    if kind == "branch":
        branch = helper.make_graph([constant, add], "b", [], value_of[1:])
        true = helper.make_node("Constant", [], ["true"], value=helper.make_tensor("t", 9, [], [True]))
        node = helper.make_node("If", ["true"], ["y"], then_branch=branch, else_branch=branch)
        graph = helper.make_graph([true, node], "g", value_of[:1], value_of[1:])
        return helper.make_model(graph, opset_imports=opset, ir_version=8)
    function = helper.make_function("own", "Plus", ["x"], ["y"], [constant, add], opset[:1])
    graph = helper.make_graph([helper.make_node("Plus", ["x"], ["y"], domain="own")], "g", value_of[:1], value_of[1:])
    return helper.make_model(graph, opset_imports=opset, ir_version=8, functions=[function])


@pytest.mark.parametrize("kind", ["initializer", "constant", "branch", "function"])
@pytest.mark.parametrize("location", ["w.bin", "../w.bin"])
def test_an_onnx_that_reads_another_file_is_refused(
    kind: str, location: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At load, and where no bundle is around it; also from within the folder that the other file lies in."""
    (copy / location).write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (copy / ONNX).write_bytes(external(kind, location).SerializeToString())
    monkeypatch.chdir(copy)
    assert "lie in another file" in refused(lambda: open_foreign_onnx(copy / ONNX))
    assert "lie in another file" in refused(lambda: changed(copy))


def test_no_bundle_that_reads_another_file_is_published(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lifters import striding_lifter

    from poseda_deploy.train import publish

    def outside(lifter: object, path: Path, facts: object) -> None:
        path.write_bytes(external("initializer", "w.bin").SerializeToString())

    monkeypatch.setattr(publish, "write_onnx", outside)
    lifter, told = striding_lifter("conditioned"), dict(tiny.manifest.config)
    out = tmp_path / "out"
    said = refused(lambda: publish.publish(lifter, out, name="x", config=told, report={}, extras={}))
    assert "lie in another file" in said and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 100, 50_000])
def test_a_cut_onnx_is_no_onnx(cut: int, copy: Path) -> None:
    (copy / ONNX).write_bytes((copy / ONNX).read_bytes()[:-cut])
    assert "not an ONNX file" in refused(lambda: changed(copy))
