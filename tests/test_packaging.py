"""What a user installs: the wheel's contents, the commands, and versions that agree."""

import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"poseda_deploy": ".", "train": "train", "export": "export", "runtime": "runtime", "models": "models"}


def test_the_changelog_knows_this_version() -> None:
    assert version("poseda-deploy") == PROJECT["project"]["version"]
    assert f"## {version('poseda-deploy')}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("command", sorted(PROJECT["project"]["scripts"]))
def test_every_command_has_help(command: str) -> None:
    (entry,) = entry_points(group="console_scripts", name=command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        assert entry.load()(["--help"]) == 0


def expected_files() -> set[str]:
    """Every source file, under the name that it is installed by."""
    names = set()
    for folder, place in FOLDERS.items():
        inside = "poseda_deploy" if place == "." else f"poseda_deploy/{place}"
        names |= {f"{inside}/{path.name}" for path in (ROOT / folder).glob("*.py")}
    lifter = (f"default/{name}" for name in ("manifest.json", "lifter.onnx", "lifter.safetensors", "golden.npz"))
    prior = (f"prior/{name}" for name in ("manifest.json", "prior.npz", "samples.png"))
    models = {f"poseda_deploy/models/{name}" for name in ("README.md", *lifter, *prior)}
    return names | models | {"poseda_deploy/py.typed"}


@pytest.mark.slow
def test_the_wheel_holds_the_sources_and_nothing_else(tmp_path: Path) -> None:
    """Made by way of the source archive, as a release is."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)], check=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected_files()


@pytest.mark.slow
def test_the_wheel_runs_in_a_clean_environment(walker_file: Path, tmp_path: Path) -> None:
    """With the shipped lifter, from a folder that is not the checkout."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)], check=True, timeout=600)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints-ci.txt"), f"{wheel}[cpu]"]
    subprocess.run(pip, check=True, timeout=600)
    for command in ("poseda-run", "poseda-detect", "poseda-train"):
        subprocess.run([str(python.with_name(command)), "--help"], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    run = [str(python.with_name("poseda-run")), "--keypoints", str(walker_file), "--out", "lifted", "--quiet"]
    subprocess.run(run, check=True, cwd=tmp_path)
    assert (tmp_path / "lifted.poses.npz").is_file()
