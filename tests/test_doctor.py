"""poseda-doctor: what it says of broken installations, and that it finds nothing wrong with this one."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from poseda_deploy.bundle import MANIFEST, Bundle, Engine, default_bundle_path, load_bundle
from poseda_deploy.cuda import Gpu, find_gpu
from poseda_deploy.errors import BackendError, CheckFailed, MissingDependency
from poseda_deploy.runtime import doctor
from poseda_deploy.runtime.doctor import Finding, asked, exit_code, main, unmet

HERE = doctor.installed()
SHIPPED = load_bundle(default_bundle_path())
H200 = Gpu("NVIDIA H200", "sm90", "13.0")


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.state for finding in findings}


def test_a_machine_that_passes_its_tests_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    found = {check["check"]: check for check in summary["checks"]}
    assert summary["healthy"]
    for name in ("python", "onnxruntime", "opencv-python", "packages", "bundle", "ort-cpu", "cache"):
        assert found[name]["state"] == "ok", found[name]
    assert "CPUExecutionProvider runs" in found["ort-cpu"]["found"]
    assert {"gpu", "trt", "model-full", "camera", "window", "video"} <= set(found)


def test_the_table_keeps_brackets_and_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extra in brackets is markup to rich, which would leave it out."""
    finding = Finding("ort-cuda", "note", "not here", "pip install 'poseda-deploy[gpu]'")
    monkeypatch.setattr(doctor, "examine", lambda path: iter([finding]))
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "ort-cuda" in said and "note" in said and "'poseda-deploy[gpu]'" in said


@pytest.mark.parametrize(
    ("states_found", "code"), [(["ok", "note"], 0), (["ok", "missing"], 3), (["problem", "missing"], 1)]
)
def test_exit_codes(
    states_found: list[Any], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding(f"check{i}", state, "found", "mend it") for i, state in enumerate(states_found)]
    monkeypatch.setattr(doctor, "examine", lambda path: iter(findings))
    assert main(["--quiet"]) == code == exit_code(findings)
    said = capsys.readouterr()
    assert said.out == "" and ("Try: mend it" in said.err) == (code != 0)


def test_what_was_asked_for_must_be_here(capsys: pytest.CaptureFixture[str]) -> None:
    note = Finding("trt lifter.engine", "note", "cannot run")
    assert asked(note, ("trt",)).state == "missing" and asked(note, ("video",)).state == "note"
    assert asked(replace(note, state="ok"), ("trt",)).state == "ok"
    if find_gpu() is None:
        assert main(["--need", "ort-cuda", "gpu", "--quiet"]) == 3
        assert "poseda-doctor: ort-cuda: asked for CUDAExecutionProvider" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("here", "check", "command"),
    [
        (
            {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"},
            "onnxruntime",
            "pip uninstall -y onnxruntime onnxruntime-gpu && "
            "pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.1",
        ),
        (
            {"opencv-python": "5.0.0.93", "opencv-contrib-python": "4.13.0.1"},
            "opencv-python",
            "pip uninstall -y opencv-python opencv-contrib-python && "
            "pip install --force-reinstall --no-deps opencv-contrib-python==4.13.0.1",
        ),
        ({"opencv-python": "5.0.0.93"}, "onnxruntime", "pip install 'poseda-deploy[cpu]'"),
    ],
)
def test_wheels_that_share_a_folder(here: dict[str, str], check: str, command: str) -> None:
    found = {finding.check: finding for finding in doctor.wheels(here)}
    assert found[check].state == "problem" and found[check].mend == command
    assert all(version in found[check].found for name, version in here.items() if name.startswith(check[:6]))


def test_one_wheel_of_each_is_fine() -> None:
    found = doctor.wheels({"onnxruntime-gpu": "1.31.1", "opencv-python-headless": "5.0.0.93"})
    assert set(states(list(found)).values()) == {"ok"}


def test_an_opencv_that_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getattr__(self, name: str) -> object:
            raise MissingDependency("OpenCV is installed but does not load: libGL.so.1", hint="apt-get install libgl1")

    monkeypatch.setitem(sys.modules, "poseda_deploy.opencv", Broken())
    finding = doctor._loads("opencv-python 5.0.0.93")
    assert finding.state == "problem" and finding.mend == "apt-get install libgl1"


@pytest.mark.parametrize(
    ("requirement", "version", "expected"),
    [
        ("mediapipe<0.10.32,>=0.10.30", "0.10.31", ""),
        ("mediapipe<0.10.32,>=0.10.30", "0.10.30", ""),
        ("mediapipe<0.10.32,>=0.10.30", "0.10.32", "mediapipe 0.10.32, expected <0.10.32 (later ones send usage"),
        ("mediapipe<0.10.32,>=0.10.30", "1.2.2", "expected <0.10.32"),
        ("mediapipe<0.10.32,>=0.10.30", "0.10.9", "expected >=0.10.30"),
        ("numpy>=2", "1.26.4", "numpy 1.26.4, expected >=2"),
        ("numpy>=2", "2.0.0rc1", ""),
        ("rich>=13", None, "rich is not installed"),
    ],
)
def test_versions_outside_what_we_ask_for(requirement: str, version: str | None, expected: str) -> None:
    packages = {} if version is None else {requirement.split("<")[0].split(">")[0]: version}
    found = unmet(requirement, packages)
    assert found.startswith(expected) or expected in found
    assert bool(found) == bool(expected)


def test_old_numpy_and_new_mediapipe_are_problems_and_no_mediapipe_is_not() -> None:
    assert doctor.required(HERE).state == "ok"
    old = doctor.required({**HERE, "numpy": "1.26.4"})
    assert old.state == "problem" and old.mend == "pip install 'numpy>=2'"
    new = doctor.extra("video", {**HERE, "mediapipe": "0.10.35"})
    assert new.state == "problem" and "usage metrics" in new.found and new.mend.startswith("pip install 'mediapipe")
    absent = doctor.extra("video", {name: version for name, version in HERE.items() if name != "mediapipe"})
    assert absent.state == "note" and absent.found == "mediapipe is not installed"
    assert doctor.extra("no such extra", HERE).state == "ok"


def test_python_must_be_new_enough() -> None:
    assert doctor.python((3, 10)).state == "problem" and doctor.python((3, 13)).state == "ok"


def test_a_driver_that_is_not_there_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDriver:
        def __init__(self) -> None:
            raise BackendError("no NVIDIA driver on this machine")

    monkeypatch.setattr(doctor, "Cuda", NoDriver)
    monkeypatch.setattr(doctor, "_has_nvidia", lambda: False)
    assert doctor.graphics({})[1].state == "note"
    monkeypatch.setattr(doctor, "_has_nvidia", lambda: True)
    gpu, finding = doctor.graphics({})
    assert gpu is None and finding.state == "problem" and finding.mend == "nvidia-smi"

    class Old:
        gpu = replace(H200, driver_cuda="12.4")

    monkeypatch.setattr(doctor, "Cuda", Old)
    assert doctor.graphics({})[1].state == "ok"
    finding = doctor.graphics({"onnxruntime-gpu": "1.31.1"})[1]
    assert finding.state == "problem" and "driver for CUDA 12.4; onnxruntime-gpu needs" in finding.found


def test_cuda_that_is_listed_but_does_not_run() -> None:
    error = BackendError("asked for CUDAExecutionProvider, but CPUExecutionProvider would run")
    with_gpu, without = (doctor._does_not_run("ort-cuda", error, gpu) for gpu in (H200, None))
    assert (with_gpu.state, without.state) == ("problem", "note")
    assert with_gpu.mend == "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    missing = doctor._does_not_run("ort-cpu", MissingDependency("onnxruntime is not installed", hint="pip"), None)
    assert missing.state == "problem" and missing.mend == "pip"


def test_a_backend_with_other_poses_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(backend: object, bundle: Bundle) -> float:
        raise CheckFailed("gives other poses than were recorded: 9.00 mm, limit 0.5")

    monkeypatch.setattr("poseda_deploy.backend.replay_golden", wrong)
    found = {finding.check: finding for finding in doctor.backends(SHIPPED, None)}
    assert found["ort-cpu"].state == "problem" and "9.00 mm" in found["ort-cpu"].found


def test_engines_of_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    rtx = ModuleType("tensorrt_rtx")
    monkeypatch.setattr(rtx, "__version__", "1.7.1.116", raising=False)
    engine = Engine("fp16", "tensorrt_rtx", "1.6.0", ("sm89",), "", (1, 1, 64), 10, 0.9, "read")
    bundle = replace(SHIPPED, manifest=replace(SHIPPED.manifest, engines={"lifter.engine": engine}))
    monkeypatch.setattr(doctor, "load_tensorrt", lambda flavours: rtx)
    (old,) = doctor.engines(bundle, H200)
    assert old.state == "note" and "tensorrt_rtx 1.6.0, and 1.7.1.116 is installed" in old.found
    assert old.mend == "poseda-export --trt fp16 --overwrite" and asked(old, ("trt",)).state == "missing"
    (none,) = doctor.engines(bundle, None)
    assert "there is no GPU" in none.found
    right = replace(engine, tensorrt="1.7.1.116", gpus=("sm90",))
    bundle = replace(SHIPPED, manifest=replace(SHIPPED.manifest, engines={"lifter.engine": right}))
    assert next(doctor.engines(bundle, H200)).state == "ok"


def test_a_damaged_bundle_is_a_problem_and_the_rest_is_examined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in SHIPPED.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: -1 if file.name != MANIFEST else None])
    assert main(["--bundle", str(tmp_path), "--json"]) == 1
    found = {check["check"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["bundle"]["state"] == "problem" and "is damaged or was changed" in found["bundle"]["found"]
    assert "ort-cpu" not in found and found["cache"]["state"] == "ok"


def test_pose_models_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched; a damaged one is a problem."""
    monkeypatch.setenv("POSEDA_CACHE", str(tmp_path))
    assert set(states(list(doctor.models())).values()) == {"note"} and not list(tmp_path.iterdir())
    (tmp_path / "pose_landmarker_full.task").write_bytes(b"half")
    found = {finding.check: finding for finding in doctor.models()}
    assert found["model-full"].state == "problem" and found["model-full"].mend.startswith("rm ")
    assert "would be fetched on first use" in found["model-lite"].found


def test_a_cache_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSEDA_CACHE", str(tmp_path / "not" / "yet"))
    assert doctor.cache().state == "ok" and not (tmp_path / "not").exists()
    (tmp_path / "not").write_text("a file")
    assert doctor.cache().state == "problem" and doctor.cache().mend.startswith("export POSEDA_CACHE=")
    monkeypatch.setenv("POSEDA_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "MIN_FREE_MB", 1e12)
    assert "MB free, expected" in doctor.cache().found


def test_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.camera(tmp_path).found.startswith("none")
    for index in (0, 1):
        (tmp_path / f"video{index}").touch()
    monkeypatch.setattr(doctor, "_opens", lambda index: index == 1)
    assert doctor.camera(tmp_path) == Finding("camera", "ok", "poseda-run --video 1")
    monkeypatch.setattr(doctor, "_opens", lambda index: False)
    assert doctor.camera(tmp_path).mend == "fuser /dev/video*"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert doctor.camera(tmp_path).mend == "sudo usermod -aG video $USER"


def test_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = doctor.window({"opencv-python-headless": "5.0.0.93"})
    assert finding.mend == "pip uninstall -y opencv-python-headless && pip install opencv-python"
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert doctor.window({"opencv-python": "5.0.0.93"}).state == "note"
    monkeypatch.setenv("DISPLAY", ":0")
    assert doctor.window({"opencv-python": "5.0.0.93"}).state == "ok"
