"""The commands of README and docs run as they stand."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from poseda_deploy.keypoints import Keypoints2D

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
ENTRY = {
    "poseda-adapt": "poseda_deploy.train.adapt_cli",
    "poseda-bench": "poseda_deploy.export.bench_cli",
    "poseda-export": "poseda_deploy.export.cli",
    "poseda-run": "poseda_deploy.runtime.cli",
    "poseda-detect": "poseda_deploy.runtime.detect_cli",
    "poseda-train": "poseda_deploy.train.cli",
    "poseda-eval": "poseda_deploy.train.eval_cli",
    "poseda-doctor": "poseda_deploy.runtime.doctor",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[list[str]]:
    """Each line of the shell blocks, comments off."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_make_targets_exist() -> None:
    targets = {line[1] for line in commands() if line[0] == "make"}
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


@pytest.mark.parametrize("words", [c for c in commands() if c[0] in ENTRY], ids=" ".join)
def test_poseda_commands_run(
    words: list[str],
    walker: Keypoints2D,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a folder that holds the files they name: a keypoints file, source poses, a few frames of the demo video."""
    monkeypatch.chdir(tmp_path)
    walker.save(tmp_path / "my_keypoints.npz")
    if any(word.endswith(".mp4") for word in words):
        _short_demo(tmp_path / "in.mp4")
    if "poseda-detect" in words:
        (tmp_path / "my_keypoints.npz").unlink()
    if "poseda-eval" in words:
        from test_eval import calibrated_target

        assert walker.camera is not None
        np.savez(tmp_path / "calibrated.npz", **calibrated_target(walker.camera))
    if "poseda-adapt" in words:
        words = [*words, "--steps", "16"]
    if "poseda-bench" in words:
        words = [*words, "--batch", "1", "--seconds", "0.05", "--no-compile"]
    if "poseda-train" in words:
        from test_train import write_source

        write_source(tmp_path / "poses.npz")
        words = [*words, "--steps", "16", "--batch", "16", "--width", "32", "--blocks", "1"]
    code = import_module(ENTRY[words[0]]).main(words[1:])
    if code == 3:
        pytest.skip(capsys.readouterr().err)
    assert code == 0


def _short_demo(path: Path) -> None:
    from poseda_deploy.errors import MissingDependency
    from poseda_deploy.runtime.assets import fetch_asset
    from poseda_deploy.runtime.video import VideoReader, VideoWriter

    try:
        demo = fetch_asset("sports2d_demo.mp4", quiet=True)
    except MissingDependency as error:
        pytest.skip(str(error))
    with VideoReader(demo) as reader, VideoWriter(path, reader.size_wh, reader.fps) as writer:
        for frame in reader:
            if 60 <= frame.index < 75:
                writer.write(frame.bgr)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code: str, tmp_path: Path) -> None:
    _short_demo(tmp_path / "in.mp4")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    if "MissingDependency" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0 and "m away" in done.stdout, done.stderr


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
