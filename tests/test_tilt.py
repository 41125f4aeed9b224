"""A bundle adapted to one camera and the tilt it knows, before another camera or after the camera was moved."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import looking_down

from poseda_deploy.bundle import load_bundle, save_manifest, shipped_bundle_path
from poseda_deploy.camera import Camera, default_camera
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.runtime.cli import main

Adapted = Callable[..., Path]
PITCH_RAD = 0.2
"""Of the walker's camera."""


def up_at(pitch_rad: float) -> tuple[float, float, float]:
    x, y, z = (looking_down(pitch_rad)[0] @ (0, 1, 0)).tolist()
    return x, y, z


@pytest.fixture
def adapted(tmp_path: Path) -> Adapted:
    """Makes the shipped bundle one that was adapted to a camera of that tilt."""

    def make(pitch_rad: float, camera: Camera | None, folder: str = "adapted", **more: Any) -> Path:
        shutil.copytree(shipped_bundle_path(), tmp_path / folder)
        manifest = load_bundle(tmp_path / folder).manifest
        fields = None if camera is None else asdict(camera)
        save_manifest(tmp_path / folder, replace(manifest, up=up_at(pitch_rad), camera=fields, **more))
        return tmp_path / folder

    return make


def calibration(capsys: pytest.CaptureFixture[str], tmp_path: Path, *flags: str | Path) -> tuple[dict[str, Any], str]:
    """What a quiet run says of its calibration, and what it says aloud."""
    out = ["--out", str(tmp_path / "a"), "--overwrite", "--quiet", "--json"]
    assert main([*map(str, flags), *out]) == 0
    captured = capsys.readouterr()
    found: dict[str, Any] = json.loads(captured.out)["calibration"]
    return found, captured.err


def off_deg(found: dict[str, Any]) -> float:
    return float(np.degrees(np.arccos(np.clip(np.dot(found["up"], up_at(PITCH_RAD)), -1, 1))))


def test_the_tilt_of_the_same_camera_is_taken(
    adapted: Adapted, camera: Camera, walker_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, said = calibration(
        capsys, tmp_path, "--keypoints", walker_file, "--bundle", adapted(PITCH_RAD + 0.05, camera)
    )
    assert found["up_from"] == "bundle" and 2 < off_deg(found) < 4 and not said


def test_a_tilt_far_from_what_the_run_sees_is_not_taken(
    adapted: Adapted, camera: Camera, walker_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = adapted(PITCH_RAD + 0.9, camera, camera_height_m=9.0)
    found, said = calibration(capsys, tmp_path, "--keypoints", walker_file, "--bundle", bundle)
    assert "estimated from 90 frames" in found["up_from"] and "bundle's not taken" in found["up_from"]
    assert off_deg(found) < 15 and "the camera was moved, or is another" in said
    assert "9 m above" not in found["bones_from"], "nor its height"


def test_a_tilt_given_by_the_user_holds(
    adapted: Adapted, camera: Camera, walker_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    up = [f"{x:.6f}" for x in up_at(PITCH_RAD + 0.9)]
    bundle = adapted(PITCH_RAD, camera)
    found, said = calibration(capsys, tmp_path, "--keypoints", walker_file, "--bundle", bundle, "--up", *up)
    assert found["up_from"] == "--up" and off_deg(found) > 50 and not said


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Camera((1280, 720), (1300.0, 1300.0), (640.0, 360.0)), "focal length"),
        (Camera((1280, 720), (1000.0, 1000.0), (640.0, 520.0)), "principal point"),
        (Camera((720, 1280), (1000.0, 1000.0), (360.0, 640.0)), "720x1280"),
        (Camera((1280, 720), (1000.0, 1000.0), (640.0, 360.0), lens="fisheye"), "fisheye"),
    ],
)
def test_the_tilt_of_another_camera_is_not_taken(
    other: Camera,
    why: str,
    adapted: Adapted,
    walker_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = adapted(PITCH_RAD + 0.1, other)
    found, said = calibration(capsys, tmp_path, "--keypoints", walker_file, "--bundle", bundle)
    assert "estimated from 90 frames" in found["up_from"] and "adapted to another camera" in said and why in said


def test_pictures_of_another_shape_are_known_without_intrinsics_too(
    adapted: Adapted, walker: Keypoints2D, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Keypoints2D(walker.xy_px, walker.score, walker.size_wh, walker.skeleton, walker.time_s)
    bare.save(tmp_path / "bare.npz")
    bundle = adapted(PITCH_RAD, None, assumed_camera=asdict(default_camera((1080, 1920))))
    found, said = calibration(capsys, tmp_path, "--keypoints", tmp_path / "bare.npz", "--bundle", bundle)
    assert "estimated" in found["up_from"] and "1080x1920" in said


def test_a_live_run_leaves_a_tilt_that_its_people_contradict(
    adapted: Adapted, walker: Keypoints2D, camera: Camera, capsys: pytest.CaptureFixture[str]
) -> None:
    from poseda_deploy.backend import open_backend
    from poseda_deploy.runtime.people import LivePeople
    from poseda_deploy.runtime.video import Frame

    for pitch_rad, folder in ((PITCH_RAD, "right"), (PITCH_RAD + 0.9, "wrong")):
        bundle = load_bundle(adapted(pitch_rad, camera, folder))
        with open_backend(bundle, "ort-cpu") as backend:
            people = LivePeople(backend, camera, bundle.manifest.known, walker.skeleton, 1)
            picture = np.zeros((720, 1280, 3), np.uint8)
            for index, (xy_px, score) in enumerate(zip(walker.xy_px, walker.score, strict=True)):
                people.step(Frame(index, float(walker.time_s[index]), picture), xy_px, score)
        found, said = people.scene.summary(), capsys.readouterr().err
        assert off_deg(found) < 15
        assert found["up_from"] == "bundle" if folder == "right" else "bundle's not taken" in str(found["up_from"])
        assert said.count("the camera was moved") == (folder == "wrong"), "once"


def test_the_adapted_bundle_of_this_folder_is_named(
    adapted: Adapted,
    camera: Camera,
    walker_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapted(PITCH_RAD, camera, "models/adapted")
    monkeypatch.chdir(tmp_path)
    _, said = calibration(capsys, tmp_path, "--keypoints", walker_file)
    assert "models/adapted" in said and "this folder" in said and "1280x720" in said
