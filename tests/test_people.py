"""The live path and the clip path on walking stick figures, lifted by the shipped bundle."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from poseda_deploy.backend import Backend, open_backend, with_camera
from poseda_deploy.bundle import load_bundle, shipped_bundle_path
from poseda_deploy.calibrate import Known, RunningSample, calibrate, stature_m, unit
from poseda_deploy.camera import Camera
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.poses import PosedFrame, Poses3D
from poseda_deploy.runtime.lift import lift_tracked, posed_frames
from poseda_deploy.runtime.people import LivePeople
from poseda_deploy.runtime.timing import StageClock
from poseda_deploy.runtime.track import track_clip
from poseda_deploy.runtime.video import Frame

NO_PICTURE = np.zeros((2, 2, 3), np.uint8)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with open_backend(load_bundle(shipped_bundle_path()), "ort-cpu") as opened:
        yield opened


NOTHING = Known()


@pytest.fixture
def pair(walker: Keypoints2D) -> Keypoints2D:
    """The walker and a smaller one beside him, in another order in every other frame; noise of 2 px."""
    random = np.random.default_rng(0)
    other = (walker.xy_px - [640, 360]) * 0.9 + [340, 360]
    xy_px = np.concatenate([walker.xy_px + np.array([200, 0]), other], 1) + random.normal(scale=2, size=(90, 2, 17, 2))
    xy_px[::2] = xy_px[::2, ::-1]
    score = np.ones(xy_px.shape[:3], np.float32)
    return Keypoints2D(xy_px.astype(np.float32), score, walker.size_wh, walker.skeleton, walker.time_s, walker.camera)


def streamed(people: LivePeople, keypoints: Keypoints2D) -> list[PosedFrame]:
    return [
        people.step(Frame(i, float(t), NO_PICTURE), xy_px, score)
        for i, (t, xy_px, score) in enumerate(zip(keypoints.time_s, keypoints.xy_px, keypoints.score, strict=True))
    ]


def lifted(
    backend: Backend, keypoints: Keypoints2D, camera: Camera, **switches: bool
) -> tuple[Poses3D, StageClock, int]:
    clock = StageClock()
    told: list[int] = []
    poses, _ = lift_tracked(backend, track_clip(keypoints), camera, NOTHING, clock, told.append, **switches)
    return poses, clock, sum(told)


def test_live_people_end_near_the_truth(
    backend: Backend, walker: Keypoints2D, camera: Camera, walker_cam_m: np.ndarray
) -> None:
    people = LivePeople(backend, camera, NOTHING, walker.skeleton, 1)
    frames = streamed(people, walker)
    assert [len(f) for f in frames] == [0, 0] + [1] * 88, "born in the third frame"
    true_m = walker_cam_m - walker_cam_m[:, :1]
    error_m = [np.linalg.norm(f.pose_m[0] - true_m[f.index], axis=-1).mean() for f in frames[2:]]
    assert np.mean(error_m[30:]) < 0.08
    np.testing.assert_allclose(frames[50].xy_px[0], walker.xy_px[50, 0], atol=0.01)
    whole = calibrate(with_camera(backend, camera), walker.model_input(camera)[:, 0], NOTHING)
    assert np.degrees(np.arccos(unit(people.up) @ unit(whole.up))) < 4
    np.testing.assert_allclose(people.scene.bones_m[0], whole.bones_m, atol=0.03)
    assert "estimated from 88 frames" in people.scene.up_origin


def test_switches(backend: Backend, walker: Keypoints2D, camera: Camera) -> None:
    plain = LivePeople(backend, camera, NOTHING, walker.skeleton, 1, bones=False, smooth=False)
    last = streamed(plain, walker)[-1]
    lift = with_camera(backend, camera)
    pose_m, root_m = lift(walker.model_input(camera)[-1], plain.up[None], np.zeros((1, 9), np.float32))
    np.testing.assert_allclose(last.pose_m, pose_m, atol=1e-5)
    np.testing.assert_allclose(last.root_m, root_m, atol=1e-5)
    assert not plain.scene.bones_m.any() and plain.scene.bones_origin == "switched off"


def test_what_the_bundle_knows_is_taken(backend: Backend, walker: Keypoints2D, camera: Camera) -> None:
    bones_m = np.array([0.1, 0.4, 0.4, 0.2, 0.25, 0.2, 0.15, 0.3, 0.25], np.float32)
    level = np.array([0, -1, 0], np.float32)
    people = LivePeople(backend, camera, Known(level, bones_m, up_from="bundle"), walker.skeleton, 1)
    seen = streamed(people, walker)
    np.testing.assert_allclose(people.up, level)
    first = streamed(LivePeople(backend, camera, Known(level), walker.skeleton, 1), walker)[2]
    assert np.abs(seen[2].root_m - first.root_m).max() > 0.02, "expected lengths serve from the first frame"
    own = LivePeople(backend, camera, Known(level), walker.skeleton, 1)
    streamed(own, walker)
    apart = [np.abs(people.scene.bones_m[0] - other).mean() for other in (own.scene.bones_m[0], bones_m)]
    assert apart[0] < apart[1], "after three seconds the person counts for more"
    assert people.scene.up_origin.startswith("bundle") and "88 frames" in people.scene.bones_origin


def test_a_given_height_holds_for_everybody(backend: Backend, pair: Keypoints2D, camera: Camera) -> None:
    small = Known(person_height_m=1.2)
    people = LivePeople(backend, camera, small, pair.skeleton, 2)
    streamed(people, pair)
    _, scene = lift_tracked(backend, track_clip(pair), camera, small, StageClock(), lambda _: None)
    for bones_m in (*people.scene.bones_m, *scene.bones_m):
        assert stature_m(bones_m) == pytest.approx(1.2, rel=1e-3)
    assert "1.2 m" in scene.bones_origin and scene.bones_origin.count("1.2 m") == 1


def test_two_people_apart_and_absent_when_hidden(backend: Backend, pair: Keypoints2D, camera: Camera) -> None:
    pair.score[40:50] = 0
    people = LivePeople(backend, camera, NOTHING, pair.skeleton, 2)
    frames = streamed(people, pair)
    assert all(f.person.tolist() == [0, 1] for f in frames[2:40] + frames[50:])
    assert all(len(f) == 0 and f.pose_m.shape == (0, 17, 3) for f in frames[40:50]), "not held"
    x_m = np.stack([f.root_m[:, 0] for f in frames[2:40] + frames[50:]])
    right = int(x_m[0].argmax())
    assert (x_m[:, right] > x_m[:, 1 - right]).all(), "each keeps his own row"
    heights = [sum(bones[1:6]) for bones in people.scene.bones_m]
    assert len(heights) == 2 and min(heights) > 0.5


def test_nobody_behind_a_lens_that_distorts(backend: Backend, walker: Keypoints2D, camera: Camera) -> None:
    wide = replace(camera, distortion=(0.1, 0.0, 0.0, 0.0))
    people = LivePeople(backend, wide, NOTHING, walker.skeleton, 1)
    assert len(people.step(Frame(0, 0.0, NO_PICTURE), walker.xy_px[0] * np.nan, walker.score[0] * 0)) == 0
    assert len(streamed(people, replace(walker, time_s=walker.time_s + 1))[-1]) == 1


@pytest.mark.parametrize("stuck_s", [0.0, -0.3])
def test_stamps_that_stand_still_or_fall_end_no_run(
    backend: Backend, walker: Keypoints2D, camera: Camera, stuck_s: float
) -> None:
    """Coarse clocks give two frames one stamp, and some cameras' clocks are set back."""
    people = LivePeople(backend, camera, NOTHING, walker.skeleton, 1)
    stamps_s = np.arange(60) / 30
    stamps_s[30:] += stuck_s
    stamps_s[40] = stamps_s[39]
    found = [people.step(Frame(i, float(stamps_s[i]), NO_PICTURE), walker.xy_px[i], walker.score[i]) for i in range(60)]
    assert [len(posed) for posed in found] == [0, 0] + [1] * 58, "every frame is delivered"
    assert {int(posed.person[0]) for posed in found[2:]} == {0}
    assert all(np.isfinite(posed.pose_m).all() and np.isfinite(posed.root_m).all() for posed in found)


def test_memory_stays_bounded(backend: Backend, walker: Keypoints2D, camera: Camera) -> None:
    people = LivePeople(backend, camera, NOTHING, walker.skeleton, 1)
    for i in range(450):
        people.step(Frame(i, i / 30, NO_PICTURE), walker.xy_px[i % 90], walker.score[i % 90])
    assert len(people._everyone._rows) <= RunningSample.CAPACITY
    assert len(people._people) == 1
    for i in range(450, 490):
        people.step(Frame(i, i / 30, NO_PICTURE), walker.xy_px[0], walker.score[0] * 0)
    assert not people._people, "who has left is forgotten"


def test_a_running_sample_is_even_and_bounded() -> None:
    sample, due = RunningSample(), []
    for i in range(5000):
        row = np.full((17, 3), i + 1, np.float32)
        sample.add(row)
        if sample.is_due:
            due.append(i + 1)
            sample.take()
    kept = sample.take()[:, 0, 0] - 1
    assert 64 < len(kept) <= 128 and len(set(np.diff(kept).tolist())) == 1 and kept[0] == 0
    assert due[:3] == [8, 12, 18] and len(due) < 20
    sample.add(np.zeros((17, 3), np.float32))
    assert sample.frames == 5000, "a frame without joints says nothing"


def test_a_clip_has_rows_by_identity_from_the_first_frame(
    backend: Backend, pair: Keypoints2D, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poseda_deploy.runtime.lift.BATCH", 50)
    poses, clock, told = lifted(backend, pair, camera)
    assert len(poses) == 180 and told == 90
    assert (poses.person.reshape(90, 2) == [0, 1]).all()
    assert {"calibrate", "lift", "smooth"} == set(clock.percentiles_ms())
    x_m = poses.root_m[:, 0].reshape(90, 2)
    assert len(set((x_m[:, 0] > x_m[:, 1]).tolist())) == 1
    raw, _, _ = lifted(backend, pair, camera, smooth=False)
    jerk_m = [np.abs(np.diff(p.pose_m.reshape(90, 2, 17, 3), n=2, axis=0)).mean() for p in (poses, raw)]
    assert jerk_m[0] < 0.5 * jerk_m[1]


def test_short_gaps_are_filled_and_marked(backend: Backend, pair: Keypoints2D, camera: Camera) -> None:
    first = np.where(np.arange(90) % 2 == 0, 1, 0)  # slot of the walker
    for frame in (*range(30, 34), *range(60, 75)):
        pair.score[frame, first[frame]] = 0
    poses, _, _ = lifted(backend, pair, camera)
    filled = ~poses.score.any(-1)
    assert poses.frame[filled].tolist() == [30, 31, 32, 33] and len(set(poses.person[filled].tolist())) == 1
    who = poses.person[filled][0]
    assert sorted(set(range(90)) - set(poses.frame[poses.person == who].tolist())) == list(range(60, 75))
    mine = poses.person == who
    steps_m = np.linalg.norm(np.diff(poses.root_m[mine][28:36], axis=0), axis=-1)
    assert steps_m.max() < 0.1, "it goes on where it was"
    raw, _, _ = lifted(backend, pair, camera, smooth=False)
    assert len(raw) == 180 - 19


def test_every_frame_of_a_clip_with_its_2d(backend: Backend, pair: Keypoints2D, camera: Camera) -> None:
    pair.score[10:30] = 0
    poses, _, _ = lifted(backend, pair, camera)
    frames = list(posed_frames(track_clip(pair), poses))
    assert [f.index for f in frames] == list(range(90)) and [len(f) for f in frames[8:32]] == [2] * 2 + [0] * 20 + [
        2
    ] * 2
    for f in frames[40:44]:
        for who, root_m, seen_px in zip(f.person, f.root_m, f.xy_px, strict=True):
            assert np.linalg.norm(camera.project(root_m[None])[0] - seen_px[0]) < 60, f"person {who} at his own place"
