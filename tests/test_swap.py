"""Bundles take each other's place: readers see one of them whole, whoever is killed, and nothing of others is lost."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from poseda_deploy import swap
from poseda_deploy.bundle import MANIFEST, Bundle, default_bundle_path, load_bundle, shipped_bundle_path, write_manifest
from poseda_deploy.errors import BundleError, InputError
from poseda_deploy.files import write_aside
from poseda_deploy.train.publish import publish

REPUBLISH = """
import sys
from dataclasses import asdict
from pathlib import Path
from lifters import striding_lifter
from poseda_deploy.train import publish as module
ready, out, times = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
# the exporter takes seconds; what is looked at here comes after it
module.write_onnx = lambda lifter, path, facts: path.write_bytes((ready / path.name).read_bytes())
module.write_golden = lambda lifter, path: path.write_bytes((ready / path.name).read_bytes())
lifter = striding_lifter("conditioned")
config = {"lifter": asdict(lifter.config)}
for number in range(times):
    name = f"{sys.argv[4]}{number}"
    module.publish(lifter, out, name=name, config=config, report={}, extras={"own.txt": name.encode()}, overwrite=True)
"""
STEP_BY_STEP = """
import os, signal, sys
from pathlib import Path
from poseda_deploy import swap
from hashlib import sha256
from poseda_deploy.bundle import Manifest, load_bundle, save_manifest
place, exchange = Path(sys.argv[1]) / "place", sys.argv[2] == "exchange"
if not exchange:
    swap._exchange = lambda one, other: False
STEPS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "open", "ctypes.dlsym", "os.scandir"}

def put(name):
    with swap.replaced(place, overwrite=True) as new:
        (new / "own.txt").write_text(name)
        (new / f"{name}.txt").write_text(name)
        digest = sha256(name.encode()).hexdigest()
        save_manifest(new, Manifest({"own.txt": digest, f"{name}.txt": digest}, name=name))

def killed_at(step):
    # whether a child was killed at that step of the file system; it is done where there are fewer
    child = os.fork()
    if not child:
        left = step
        def hook(event, args):
            nonlocal left
            if event in STEPS:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        put("new")
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

seen, step = [], 0
while True:
    put("old")
    (place / "notes.txt").write_text("mine")
    more = killed_at(step)
    bundle = load_bundle(place)
    names = set(bundle.manifest.files)
    assert bundle.read("own.txt").decode() == bundle.manifest.name and f"{bundle.manifest.name}.txt" in names
    seen.append(bundle.manifest.name)
    put("next")
    assert (place / "notes.txt").read_text() == "mine", step
    assert {path.name for path in place.iterdir()} == {"manifest.json", "own.txt", "next.txt", "notes.txt"}, step
    assert os.listdir(place.parent) == ["place"], (step, os.listdir(place.parent))
    if not more:
        break
    step += 1
assert seen == sorted(seen, reverse=True) and seen[0] == "old" and seen[-1] == "new", seen
assert step > 15
"""


def script(code: str, *arguments: object, folder: Path | None = None) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": paths})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def again(tiny: Bundle, out: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Bundle:
    """Publish over what is there, without the seconds that the exporter takes."""
    from lifters import striding_lifter

    module = sys.modules[publish.__module__]
    monkeypatch.setattr(module, "write_onnx", lambda lifter, path, facts: path.write_bytes(tiny.read(path.name)))
    monkeypatch.setattr(module, "write_golden", lambda lifter, path: path.write_bytes(tiny.read(path.name)))
    told: dict[str, Any] = {"name": "again", "config": dict(tiny.manifest.config), "report": {}, "extras": {}}
    return publish(striding_lifter("conditioned"), out, **told, **more)


def test_a_folder_of_somebody_else_is_never_emptied(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("thesis", "pictures"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / name).write_text("years of work")
    with pytest.raises(InputError, match=r"has files but is no bundle \(pictures, thesis\)") as caught:
        again(tiny, tmp_path / "mine", monkeypatch, overwrite=True)
    assert "overwrite" not in caught.value.hint
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"thesis", "pictures"}
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "manifest",
    ["{}", '{"schema": 1, "files": {}}', '{"name": "My page", "icons": []}', '{"schema": 1, "files": {"a": "b"}}', "["],
)
def test_a_manifest_of_something_else_makes_no_bundle(manifest: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(manifest)
    with pytest.raises(InputError, match="is no bundle"), swap.replaced(tmp_path, overwrite=True):
        pass
    assert (tmp_path / MANIFEST).read_text() == manifest


def test_a_manifest_that_lists_files_elsewhere_removes_none(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "precious").write_text("x")
    digest = hashlib.sha256(b"x").hexdigest()
    names = ("../precious", str(tmp_path / "precious"), "own.txt", "..", "")
    (place / "own.txt").write_text("x")
    (place / MANIFEST).write_text(json.dumps({"schema": 1, "files": dict.fromkeys(names, digest)}))
    with swap.replaced(place, overwrite=True) as new:
        (new / "new.txt").touch()
        write_manifest(new, ("new.txt",))
    assert {path.name for path in place.iterdir()} == {"new.txt", MANIFEST} and (tmp_path / "precious").exists()


def test_what_the_user_put_into_a_bundle_moves_on(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = again(tiny, tmp_path / "out", monkeypatch).path
    (out / "notes.txt").write_text("mine")
    (out / "films").mkdir()
    (out / "films" / "a.mp4").write_text("mine too")
    bundle = again(tiny, out, monkeypatch, overwrite=True)
    assert {path.name for path in out.iterdir()} == {MANIFEST, *bundle.manifest.files, "notes.txt", "films"}
    assert (out / "films" / "a.mp4").read_text() == "mine too"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_of_the_user_in_the_way_is_kept(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = again(tiny, tmp_path / "out", monkeypatch).path
    (out / "report.html").write_text("mine")
    before = contents(tmp_path)
    with (
        pytest.raises(InputError, match=r"report\.html is not of the bundle there"),
        swap.replaced(out, overwrite=True) as new,
    ):
        (new / "report.html").write_text("ours")
        write_manifest(new, ("report.html",))
    assert contents(tmp_path) == before


def test_without_overwrite_a_bundle_stays(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = again(tiny, tmp_path / "out", monkeypatch).path
    before = contents(tmp_path)
    with pytest.raises(InputError, match="exists") as caught:
        again(tiny, out, monkeypatch)
    assert "--overwrite replaces it" in caught.value.hint and contents(tmp_path) == before


def test_a_failed_publication_leaves_the_old_bundle(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = again(tiny, tmp_path / "out", monkeypatch).path
    before = contents(tmp_path)
    with pytest.raises(RuntimeError, match="full disk"), swap.replaced(out, overwrite=True) as new:
        (new / "half").touch()
        raise RuntimeError("full disk")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("how", ["exchange", "rename"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
def test_killed_at_any_step_there_is_a_whole_bundle_and_afterwards_nothing_else(how: str, tmp_path: Path) -> None:
    """At every step of the file system in turn; both where folders can be exchanged and where they are renamed."""
    assert script(STEP_BY_STEP, tmp_path, how).wait() == 0


def test_loading_while_another_process_publishes(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never refused, never a mix, and never the shipped lifter in its place."""
    monkeypatch.chdir(tmp_path)
    again(tiny, Path("models/adapted"), monkeypatch)
    publisher = script(REPUBLISH, tiny.path, "models/adapted", 25, "n", folder=tmp_path)
    names, shipped = set(), 0
    while publisher.poll() is None:
        bundle = load_bundle(default_bundle_path())
        names.add(bundle.manifest.name)
        shipped += bundle.path == shipped_bundle_path()
        if "own.txt" in bundle.manifest.files:
            assert bundle.read("own.txt").decode() == bundle.manifest.name
    assert publisher.returncode == 0 and shipped == 0
    assert load_bundle(default_bundle_path()).manifest.name == "n24" and len(names) > 2
    assert os.listdir("models") == ["adapted"]


def test_two_publishers_at_once_both_succeed(tiny: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = [script(REPUBLISH, tiny.path, out, 10, name) for name in "ab"]
    assert [one.wait() for one in both] == [0, 0]
    assert load_bundle(out).manifest.name in ("a9", "b9")
    assert os.listdir(tmp_path) == ["out"]


def test_a_bundle_that_lost_its_manifest_is_not_silently_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_bundle_path() == shipped_bundle_path()
    Path("models/adapted").mkdir(parents=True)
    with pytest.raises(BundleError, match="no bundle at"):
        load_bundle(default_bundle_path())


def test_a_file_whose_writer_was_killed_goes_with_the_next(tmp_path: Path) -> None:
    left = script(
        "import os, pathlib, sys; from poseda_deploy.files import write_aside\n"
        "with write_aside(pathlib.Path(sys.argv[1])) as aside:\n"
        " aside.write_bytes(b'half'); os.kill(os.getpid(), 9)",
        tmp_path / "film.mp4",
    )
    assert left.wait() != 0 and len(list(tmp_path.iterdir())) == 1
    with write_aside(tmp_path / "other.mp4") as aside:
        aside.write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["other.mp4"]


def test_a_file_whose_writer_lives_stays(tmp_path: Path) -> None:
    """Whatever its process id is: beside another thread here, as beside another container there."""
    writing, finish = threading.Event(), threading.Event()

    def write() -> None:
        with write_aside(tmp_path / "long.mp4") as aside:
            aside.write_bytes(b"long")
            writing.set()
            finish.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    assert writing.wait(10)
    with write_aside(tmp_path / "short.mp4") as aside:
        aside.write_bytes(b"short")
    finish.set()
    thread.join()
    assert contents(tmp_path) == {"long.mp4": b"long", "short.mp4": b"short"}


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.npz").write_bytes(b"old")
    (tmp_path / "a.npz").symlink_to("disk/a.npz")
    with write_aside(tmp_path / "a.npz") as aside:
        aside.write_bytes(b"new")
    assert (tmp_path / "a.npz").is_symlink() and (tmp_path / "disk" / "a.npz").read_bytes() == b"new"


def test_a_link_to_a_bundle_stays_a_link(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again(tiny, tmp_path / "disk" / "bundle", monkeypatch)
    (tmp_path / "link").symlink_to("disk/bundle")
    (tmp_path / "disk" / "bundle" / "notes.txt").write_text("mine")
    again(tiny, tmp_path / "link", monkeypatch, overwrite=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "bundle" / "notes.txt").exists()
    assert os.listdir(tmp_path / "disk") == ["bundle"]
