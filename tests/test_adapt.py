import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from people import looking_down, walk_m

from poseda_deploy.bundle import load_bundle, shipped_bundle_path
from poseda_deploy.calibrate import ANKLE_SHARE, Known, Lift, stature_m, unit
from poseda_deploy.camera import Camera, default_camera
from poseda_deploy.errors import InputError
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.model import Lifter, LifterConfig, load_lifter
from poseda_deploy.sides import with_sides
from poseda_deploy.skeleton import H36M17
from poseda_deploy.train.adapt_cli import main
from poseda_deploy.train.gpa import PELVIS
from poseda_deploy.train.lifting import lift_of
from poseda_deploy.train.publish import publish
from poseda_deploy.train.target2d import Target2D, jitter, target_2d, tilt_warnings
from poseda_deploy.train.target_views import TargetSampler, TargetViewConfig
from poseda_deploy.train.verdict import Evidence, evidence, fit_warnings, judge, matched_views
from poseda_deploy.train.views import ViewConfig, ViewSampler, turn_to

SIZE_WH = (1280, 720)
CAMERA = Camera.from_focal(1000.0, SIZE_WH, "test")
UP = looking_down(0.3)[0] @ np.array([0.0, 1.0, 0.0])


def seen_walker(frames: int = 240, noise_px: float = 0.0) -> Keypoints2D:
    rotation, translation = looking_down(0.3)
    xy_px = CAMERA.project(walk_m(frames) @ rotation.T + translation)
    xy_px = xy_px + np.random.default_rng(0).normal(0, noise_px, xy_px.shape)
    ones = np.ones((frames, 1, 17), np.float32)
    return Keypoints2D(xy_px[:, None].astype(np.float32), ones, SIZE_WH, H36M17, np.arange(frames) / 30, CAMERA)


@pytest.fixture(scope="module")
def source() -> ViewSampler:
    pose = walk_m(120)
    pose_m = torch.from_numpy((pose - pose[:, :1]).astype(np.float32))
    return ViewSampler(pose_m, torch.full((120,), 1 / 120), ViewConfig(), seed=0)


@pytest.fixture(scope="module")
def target() -> Target2D:
    bones_m = np.array([[0.1, 0.42, 0.42, 0.22, 0.28, 0.22, 0.175, 0.28, 0.25]], np.float32)
    return replace(target_2d(seen_walker(), CAMERA, "walker"), up=UP.astype(np.float32), bones_m=bones_m)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    lifter = Lifter(LifterConfig(64, 1))
    out = tmp_path_factory.mktemp("start") / "start"
    publish(lifter, out, name="start", config={"lifter": asdict(lifter.config)}, report={}, extras={})
    return out


@pytest.fixture
def source_file(tmp_path: Path) -> Path:
    of_all: dict[str, Any] = {"seq_id": np.zeros(120, int), "seq_subject": np.array(["a"]), "valid": np.ones(120, bool)}
    np.savez(tmp_path / "source.npz", positions=walk_m(120).astype(np.float32), **of_all)
    return tmp_path / "source.npz"


def test_places_after_alignment_are_the_targets(source: ViewSampler, target: Target2D) -> None:
    """Pelvis positions of the views are those of target frames, and spread over all of them."""
    sampler = TargetSampler(source, [target], TargetViewConfig(plain=0.0, jitter=0.0))
    views = sampler.draw(2048)
    drawn, given = views.keypoints[:, PELVIS, :2], torch.from_numpy(target.rays[:, PELVIS])
    distance, frame = torch.cdist(drawn, given).min(1)
    assert distance.max() < 1e-3
    assert len(set(frame.tolist())) > 0.9 * len(given)
    torch.testing.assert_close(drawn.mean(0), given.mean(0), atol=0.01, rtol=0)


def test_views_stand_upright_in_the_tilted_camera(source: ViewSampler, target: Target2D) -> None:
    views = TargetSampler(source, [target], TargetViewConfig(plain=0.0)).draw(512)
    head = unit(views.pose[:, H36M17.index("head")].numpy())
    assert (head @ UP > 0.9).mean() > 0.95
    torch.testing.assert_close(views.up, torch.from_numpy(target.up).expand(512, 3))


def test_the_paper_s_alignment_is_there_too(source: ViewSampler, target: Target2D) -> None:
    views = TargetSampler(source, [target], TargetViewConfig(gpa="paper", plain=0.0)).draw(256)
    distance = torch.cdist(views.keypoints[:, PELVIS, :2], torch.from_numpy(target.rays[:, PELVIS])).amin(1)
    assert distance.max() < 1e-3


def test_missing_joints_and_scores_are_those_of_the_target(source: ViewSampler, target: Target2D) -> None:
    keypoints = target.keypoints.copy()
    keypoints[:, H36M17.index("left_wrist"), 2] = 0
    keypoints[:, H36M17.index("head"), 2] = 0.4
    views = TargetSampler(source, [replace(target, keypoints=keypoints)], TargetViewConfig(plain=0.0)).draw(64)
    assert (views.keypoints[:, H36M17.index("left_wrist")] == 0).all()
    torch.testing.assert_close(views.keypoints[:, H36M17.index("head"), 2], torch.full((64,), 0.4))


def test_turn_to_brings_up_up() -> None:
    up = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    rotation = turn_to(up, torch.linspace(0, 6, 50))
    torch.testing.assert_close(rotation[:, :, 1], up)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50))


def test_jitter_is_the_noise_that_was_added() -> None:
    size_px = 300
    noisy = target_2d(seen_walker(noise_px=0.01 * size_px), CAMERA, "noisy")
    assert jitter(noisy) == pytest.approx(0.01, rel=0.5)
    assert target_2d(seen_walker(), CAMERA, "exact").noise < 0.004 < noisy.noise


def test_matched_people_look_like_the_held_out_frames(source: ViewSampler, target: Target2D) -> None:
    views = matched_views(source, target, TargetViewConfig())
    held = torch.from_numpy(target.rays[target.held_out])
    off = (views.keypoints[:, None, :, :2] - held[None]).norm(dim=-1).mean(-1).amin(1)
    size = float(np.ptp(target.rays[0], axis=0).max())
    assert off.median() < 0.08 * size


def test_evidence_ranks_a_spoiled_lifter_below_a_good_one(source: ViewSampler, target: Target2D, start: Path) -> None:
    """Trained for a moment against the same with its last layer shaken."""
    from poseda_deploy.train.config import Course
    from poseda_deploy.train.loop import fit

    course = Course(steps=160, batch=128, learning_rate=3e-3, average=0.9)
    sampler = TargetSampler(source, [target], TargetViewConfig())
    good, _ = fit(course, Lifter(LifterConfig(64, 1)), sampler, lambda step: None)
    bad = Lifter(good.config)
    state = {k: v + 0.3 * torch.randn_like(v) if k == "network.head.bias" else v for k, v in good.state_dict().items()}
    bad.load_state_dict(state)
    matched = [matched_views(source, target, TargetViewConfig())]
    of_good, of_bad = (evidence(lifter, [target], matched) for lifter in (good, bad))
    assert of_good.matched_mm < of_bad.matched_mm and of_good.residual < of_bad.residual
    assert judge(of_bad, of_good).says == "better" and judge(of_good, of_bad).says == "worse"


def test_signs_that_disagree_are_no_verdict() -> None:
    before = Evidence(matched_mm=60.0, residual=0.02)
    assert judge(before, Evidence(50.0, 0.025)).says == "cannot tell"
    assert judge(before, Evidence(59.8, 0.0199)).says == "cannot tell"
    assert judge(before, Evidence(50.0, 0.018)).says == "better"


def test_the_command_calibrates_adapts_and_reports(
    start: Path, source_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen_walker().save(tmp_path / "my_keypoints.npz")
    out = tmp_path / "adapted"
    flags = [
        "--bundle",
        str(start),
        "--source",
        str(source_file),
        "--steps",
        "48",
        "--lpa",
        "both",
        "--out",
        str(out),
        "--json",
        "--quiet",
    ]
    assert main(["--target-2d", str(tmp_path / "my_keypoints.npz"), *flags]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["verdict"] in ("better", "worse", "cannot tell") and set(summary["tries"]) == {
        "random",
        "adversarial",
    }
    bundle = load_bundle(out)
    assert bundle.manifest.known.up is not None and bundle.manifest.known.bones_m is not None
    assert bundle.manifest.known_camera == replace(CAMERA, origin="K of my_keypoints.npz")
    page = bundle.file("report.html").read_text()
    assert "Adaptation report" in page and page.count("data:image/png") == 3
    assert "http" not in page, "the report loads nothing"
    assert main(["--target-2d", str(tmp_path / "my_keypoints.npz"), *flags]) == 2, "an existing bundle is kept"


def test_given_height_sets_the_scale(start: Path, source_file: Path, tmp_path: Path) -> None:
    seen_walker().save(tmp_path / "k.npz")
    flags = ["--bundle", str(start), "--source", str(source_file), "--lpa", "none", "--quiet", "--up", "0", "-1", "0.3"]
    out = tmp_path / "b"
    assert main(["--target-2d", str(tmp_path / "k.npz"), *flags, "--person-height", "1.2", "--out", str(out)]) == 0
    manifest = load_bundle(out).manifest
    known = manifest.known
    assert known.bones_m is not None and manifest.up is not None and known.person_height_m == 1.2
    assert stature_m(known.bones_m) == pytest.approx(1.2, rel=1e-3)
    np.testing.assert_allclose(manifest.up, unit(np.array([0, -1, 0.3])), atol=1e-5)


def test_a_guessed_camera_is_not_kept(start: Path, source_file: Path, tmp_path: Path) -> None:
    replace(seen_walker(), camera=None).save(tmp_path / "k.npz")
    flags = [
        "--bundle",
        str(start),
        "--source",
        str(source_file),
        "--lpa",
        "none",
        "--quiet",
        "--out",
        str(tmp_path / "b"),
    ]
    assert main(["--target-2d", str(tmp_path / "k.npz"), *flags]) == 0
    manifest = load_bundle(tmp_path / "b").manifest
    assert manifest.known_camera is None
    assert manifest.tilt_camera == default_camera(CAMERA.size_wh), "but what its tilt was found with is"


def test_a_config_file_holds_flags_and_the_command_line_wins(
    start: Path, source_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen_walker().save(tmp_path / "k.npz")
    flags = ["--target-2d", str(tmp_path / "k.npz"), "--quiet", "--json", "--config", str(tmp_path / "a.toml")]
    (tmp_path / "a.toml").write_text(
        f"bundle = '{start}'\nsource = ['{source_file}']\nlpa = 'none'\nperson-height = 1.2\noverwrite = false\n"
    )
    assert main([*flags, "--person-height", "1.5", "--out", str(tmp_path / "b")]) == 0
    assert "1.5 m" in capsys.readouterr().out
    (tmp_path / "a.toml").write_text("steps = [")
    assert main(flags) == 2 and "not TOML" in capsys.readouterr().err
    (tmp_path / "a.toml").write_text("stepps = 3")
    assert main(flags) == 2
    assert main([*flags[:-1], str(tmp_path / "no.toml")]) == 2


def lift_of_walker(target: Target2D, frames: int) -> Lift:
    """The true walker of looking_down(0.3), bones 0.8 of the truth, and so all else."""
    rotation, translation = looking_down(0.3)
    people = (0.8 * (walk_m(frames) @ rotation.T + translation)).astype(np.float32)
    by_first_point = {tuple(row[1]): person for row, person in zip(target.keypoints, people, strict=True)}

    def lift(keypoints: np.ndarray, up: np.ndarray, bones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = np.stack([by_first_point[tuple(row[1])] for row in keypoints])
        return seen - seen[:, :1], seen[:, 0]

    return lift


def test_height_of_the_camera_sets_the_scale() -> None:
    """Poses come out 0.8 of their size; the camera's true height above the floor brings the lengths back."""
    target = target_2d(seen_walker(), CAMERA, "walker")
    rotation, translation = looking_down(0.3)
    camera_m = -(rotation.T @ translation)
    floor_m = np.median(walk_m(240)[:, [3, 6], 1].min(1)) - ANKLE_SHARE * 1.75
    lift = lift_of_walker(target, 240)
    plain = target.calibrated(lift, Known(UP))
    scaled = target.calibrated(lift, Known(UP, camera_height_m=float(camera_m[1] - floor_m)))
    np.testing.assert_allclose(scaled.bones_m / plain.bones_m, 1 / 0.8, rtol=0.02)
    assert "--camera-height" in scaled.scale_from and "%" in scaled.scale_from
    with pytest.raises(InputError, match="floor"):
        target.calibrated(lift, Known(-UP, camera_height_m=1.5))


def test_two_skeletons_in_one_file_are_refused(start: Path) -> None:
    """The second half has its joints in another order."""
    lifter = load_lifter(load_bundle(shipped_bundle_path()))
    keypoints = seen_walker(320)
    whole = target_2d(keypoints, CAMERA, "walker").calibrated(lift_of(lifter, CAMERA), Known())
    assert fit_warnings(lifter, whole) == ()
    mixed = keypoints.xy_px.copy()
    mixed[160:] = mixed[160:, :, np.random.default_rng(0).permutation(17)]
    target = target_2d(replace(keypoints, xy_px=mixed), CAMERA, "mixed").calibrated(lift_of(lifter, CAMERA), Known())
    with pytest.raises(InputError, match="do not form people"):
        fit_warnings(lifter, target)


def test_training_stops_where_it_is_told(source: ViewSampler, target: Target2D) -> None:
    from poseda_deploy.train.adapt import AdaptConfig, adapt

    done: list[int] = []
    config = AdaptConfig(steps=480, batch=32, tries=("random", "adversarial"))
    adapted = adapt(Lifter(LifterConfig(32, 1)), [target], source, config, done.append, lambda: len(done) >= 2)
    assert done == [16, 32] and [one.lpa for one in adapted.tries] == ["random"]
    assert all(np.isfinite(v.numpy()).all() for v in adapted.lifter.state_dict().values())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda k: replace(k, xy_px=k.xy_px[:50], score=k.score[:50], time_s=k.time_s[:50]), "usable people"),
        (lambda k: replace(k, xy_px=np.repeat(k.xy_px[:1], 240, 0)), "nobody moves"),
        (lambda k: replace(k, xy_px=k.xy_px * 3), "outside the 1280x720 image"),
        (lambda k: replace(k, xy_px=k.xy_px / SIZE_WH), "upper left"),
        (lambda k: replace(k, score=np.zeros_like(k.score)), "usable people"),
    ],
)
def test_targets_that_teach_nothing_are_refused(spoil, message: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    with pytest.raises(InputError, match=message):
        target_2d(spoil(seen_walker()), CAMERA, "spoilt")


def test_several_people_and_long_gaps_are_no_trouble() -> None:
    one = seen_walker()
    score = np.concatenate([one.score, one.score], 1)
    score[60:120, 0] = 0
    two = replace(one, xy_px=np.concatenate([one.xy_px, one.xy_px + 40], 1), score=score)
    found = target_2d(two, CAMERA, "two")
    assert len(found.bones_m) == 2 and len(found.keypoints) == 240 + 180
    assert 0.15 < found.held_out.mean() < 0.35


def test_a_joint_that_no_detector_has_is_no_trouble() -> None:
    keypoints = seen_walker()
    score = keypoints.score.copy()
    score[..., H36M17.index("neck")] = 0
    assert len(target_2d(replace(keypoints, score=score), CAMERA, "neckless").keypoints) == 240


def test_a_camera_that_moved_is_said() -> None:
    """A lift that sees the walker upright, then the picture turned by 40 degrees."""
    target = replace(target_2d(seen_walker(640), CAMERA, "moved"), up=np.array([0, -1, 0], np.float32))
    pose = (walk_m(640) * (1, -1, -1)).astype(np.float32)
    angle = np.where(np.arange(640) < 480, 0.0, 0.7)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    turned = np.stack(
        [cos * pose[..., 0] - sin * pose[..., 1], sin * pose[..., 0] + cos * pose[..., 1], pose[..., 2]], -1
    )
    by_first_point = {tuple(row[1]): person for row, person in zip(target.keypoints, turned, strict=True)}

    def lift(keypoints: np.ndarray, up: np.ndarray, bones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        people = np.stack([by_first_point[tuple(row[1])] for row in keypoints])
        return (people - people[:, :1]).astype(np.float32), people[:, 0].astype(np.float32)

    assert "quarter 4" in tilt_warnings(lift, target)[0]
    assert tilt_warnings(lift, target.where(np.arange(640) < 100)) == ()


def test_a_target_s_sides_are_put_back() -> None:
    walker = seen_walker()
    swapped = np.zeros((len(walker), 1, 2), bool)
    swapped[50:55] = True
    exchanged = replace(walker, xy_px=with_sides(walker.xy_px, swapped))
    np.testing.assert_array_equal(target_2d(exchanged, CAMERA, "e").keypoints, target_2d(walker, CAMERA, "w").keypoints)
