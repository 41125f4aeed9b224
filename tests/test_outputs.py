"""Every command looks at the place of its outputs before it works, and never writes where the user did not mean."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from poseda_deploy.errors import CheckFailed
from poseda_deploy.keypoints import Keypoints2D

Command = tuple[str, str, list[str]]
COMMANDS: dict[str, Command] = {
    "adapt": ("train.adapt_cli", "train.adapt_cli.read_targets", ["--target-2d", "walker.npz"]),
    "train": ("train.cli", "train.source.load_source", ["--source", "walker.npz"]),
    "fit-prior": ("train.cli", "train.source.load_source", ["fit-prior", "--source", "walker.npz"]),
    "import-h36m": ("train.cli", "train.import_h36m.import_h36m", ["import-h36m", "walker.npz"]),
    "export": ("export.cli", "export.stage.Stage", ["--onnx", "fp16"]),
    "detect": ("runtime.detect_cli", "runtime.detect_cli._convert", ["--from-coco", "walker.npz"]),
    "run": ("runtime.cli", "runtime.clip.detections_of", ["--keypoints", "walker.npz"]),
}
"""Name -> module with its main, its work, and flags that are right."""
FILES = {"import-h36m": ".npz", "detect": ".npz", "run": ""}
"""Commands that write files -> how their --out ends; the others write folders."""


@pytest.fixture
def call(walker: Keypoints2D, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command in an empty folder beside its input; exit code 1 where it begins to work."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    walker.save(folder / "walker.npz")

    def began(*_: object, **__: object) -> None:
        raise CheckFailed("the work began")

    def run(command: str, out: str, *more: str) -> int:
        module, work, flags = COMMANDS[command]
        monkeypatch.setattr(f"poseda_deploy.{work}", began)
        found: int = importlib.import_module(f"poseda_deploy.{module}").main([*flags, "--out", out, "--quiet", *more])
        return found

    return run


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("out", ["", ".", "..", "/", "sub/.."])
def test_what_names_nothing_is_refused(
    command: str, out: str, call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(tmp_path)
    assert call(command, out, "--overwrite") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "--out" in said
    assert everything(tmp_path) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("out", ["walker.npz/out", "loop/out", "loop", "nowhere", "nowhere/out", "n" * 300])
def test_where_nothing_can_be_is_said_before_the_work(
    command: str, out: str, call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("", ".npz", ".poses.npz"):
        Path(f"loop{ending}").symlink_to(f"loop{ending}")
        Path(f"nowhere{ending}").symlink_to("gone")
    before = everything(tmp_path)
    assert call(command, out + FILES.get(command, ""), "--overwrite") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert everything(tmp_path) == before


@pytest.mark.parametrize(("command", "name"), [("import-h36m", "a.npz"), ("detect", "a.npz"), ("run", "a.poses.npz")])
def test_a_folder_is_in_the_way_of_a_file(
    command: str, name: str, call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).mkdir()
    before = everything(tmp_path)
    assert call(command, name.replace(".poses.npz", ""), "--overwrite") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and everything(tmp_path) == before


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - FILES))
@pytest.mark.parametrize("taken", ["file", "folder"])
def test_something_of_others_is_in_the_way_of_a_bundle(
    command: str, taken: str, call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path("out") if taken == "file" else Path("out") / "thesis").parent.mkdir(exist_ok=True)
    (Path("out") if taken == "file" else Path("out") / "thesis").write_text("years of work")
    before = everything(tmp_path)
    for more in ([], ["--overwrite"]):
        assert call(command, "out", *more) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "--overwrite" not in said and everything(tmp_path) == before


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - FILES))
@pytest.mark.parametrize("out", ["new/bundle", "empty", "link"])
def test_a_good_place_is_worked_for(command: str, out: str, call: Callable[..., int], tmp_path: Path) -> None:
    """That the tests above can fail: only the way to it is made before the work."""
    Path("empty").mkdir()
    Path("link").symlink_to("empty")
    assert call(command, out) == 1
    assert everything(tmp_path / "here") <= {"walker.npz", "empty", "link", "new"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_device_is_no_place_for_a_file(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """Renamed over, it would be gone: for root that is /dev/null too."""
    os.mkfifo("pipe.npz")
    assert call("detect", "pipe.npz", "--overwrite") == 2
    assert "no regular file" in capsys.readouterr().err and Path("pipe.npz").is_fifo()
