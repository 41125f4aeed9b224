"""Left and right of people whose detector exchanges them, and of people who merely turn round."""

from dataclasses import replace

import numpy as np
import pytest
from people import looking_down, turned, walk_m

from poseda_deploy.backend import open_backend
from poseda_deploy.bundle import load_bundle, shipped_bundle_path
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.poses import PosedFrame
from poseda_deploy.runtime.lift import lift_tracked, posed_frames
from poseda_deploy.runtime.people import LivePeople
from poseda_deploy.runtime.timing import StageClock
from poseda_deploy.runtime.track import track_clip
from poseda_deploy.runtime.video import Frame
from poseda_deploy.sides import MEMORY_S, LiveSides, swapped_sides, with_sides
from poseda_deploy.skeleton import H36M17

FPS = 30
WHOLE, LEGS, ARMS = [True, True], [True, False], [False, True]


def clip(yaw_rad: np.ndarray, noise_px: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """(t,17,2) pixels and scores of a walker of 300 px who turns as told, seen by a camera that looks down on him."""
    rotation, shift = looking_down(0.2)
    pose_m = walk_m(len(yaw_rad))
    pose_m = turned(pose_m - pose_m[:, :1] * [1, 0, 1], yaw_rad - 0.4 * np.arange(len(yaw_rad)) / FPS)
    xyz = pose_m @ rotation.T + shift
    xy_px = 700 * xyz[..., :2] / xyz[..., 2:] + np.random.default_rng(0).normal(
        scale=noise_px, size=(*xyz.shape[:2], 2)
    )
    return xy_px, np.ones(xy_px.shape[:2])


def both_ways(time_s: np.ndarray, xy_px: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(t,2) what is exchanged, by the clip and live."""
    nobody_else, sides = np.zeros((len(time_s), 1), int), LiveSides()
    live = [
        sides.step(float(t), np.zeros(1, int), xy[None], s[None])[0]
        for t, xy, s in zip(time_s, xy_px, score, strict=True)
    ]
    return swapped_sides(time_s, nobody_else, xy_px[:, None], score[:, None])[:, 0], np.stack(live)


def swap(frames: int, *runs: tuple[int, int, list[bool]]) -> np.ndarray:
    """(frames,2) of runs (start, end, what)."""
    swapped = np.zeros((frames, 2), bool)
    for start, end, what in runs:
        swapped[start:end] = what
    return swapped


@pytest.mark.parametrize("what", [WHOLE, LEGS, ARMS])
@pytest.mark.parametrize("facing_rad", [0.0, 0.6, np.pi])
def test_single_frames_and_short_runs_are_put_back_and_nothing_else(what: list[bool], facing_rad: float) -> None:
    xy_px, score = clip(np.full(90, facing_rad))
    score[::7, 3] = 0
    true = swap(90, (20, 21, what), (40, 43, what), (46, 47, what), (70, 80 if what == WHOLE else 73, what))
    seen_px, seen = with_sides(xy_px, true), with_sides(score[..., None], true)[..., 0]
    for found in both_ways(np.arange(90) / FPS, seen_px, seen):
        assert (found == true).all()
        assert np.array_equal(with_sides(seen_px, found), xy_px)


@pytest.mark.parametrize(("turns_per_s", "step"), [(0.0, 1), (0.3, 1), (1.0, 1), (1.5, 1), (0.3, 2)])
@pytest.mark.parametrize("start_rad", [0.0, np.pi / 2, 2.0])
def test_legs_that_cross_and_people_who_turn_round_stay_as_they_were_seen(
    turns_per_s: float, step: int, start_rad: float
) -> None:
    xy_px, score = clip(start_rad + 2 * np.pi * turns_per_s * np.arange(120) / FPS)
    for found in both_ways(np.arange(0, 120, step) / FPS, xy_px[::step], score[::step]):
        assert not found.any()


def test_a_reading_that_stays_is_believed_also_if_the_first_was_wrong() -> None:
    xy_px, score = clip(np.zeros(120))
    time_s, given_in = np.arange(120) / FPS, round(MEMORY_S * FPS) + 1
    for wrong in (swap(120, (0, 8, WHOLE)), swap(120, (60, 120, WHOLE)), swap(120, (0, 60, LEGS))):
        change = int(np.flatnonzero(np.diff(wrong[:, 0]))[0]) + 1
        of_clip, live = both_ways(time_s, with_sides(xy_px, wrong), score)
        assert not live[:change].any() and not live[change + given_in :].any()
        assert (of_clip == (wrong if wrong.sum() < 20 else False)).all()


def test_nothing_is_concluded_across_a_gap_or_from_another_person() -> None:
    xy_px, score = clip(np.zeros(60))
    time_s = np.arange(60) / FPS + np.where(np.arange(60) < 50, 0, MEMORY_S)
    for found in both_ways(time_s, with_sides(xy_px, swap(60, (50, 60, WHOLE))), score):
        assert not found.any()
    pair_px = np.stack([xy_px, with_sides(xy_px, swap(60, (30, 33, ARMS)))], 1)
    identity = np.tile([0, 1], (60, 1))
    identity[::2] = [1, 0]
    pair_px[::2] = pair_px[::2, ::-1]
    identity[5] = -1
    found = swapped_sides(np.arange(60) / FPS, identity, pair_px, np.ones((60, 2, 17)))
    assert (found[identity == 1].sum(0) == [0, 3]).all() and not found[identity != 1].any()


def exchanged(walker: Keypoints2D) -> Keypoints2D:
    """The walker, whole frames of whom are exchanged."""
    true = swap(90, (30, 34, WHOLE), (50, 51, WHOLE), (70, 71, LEGS))[:, None]
    return replace(
        walker, xy_px=with_sides(walker.xy_px, true), score=with_sides(walker.score[..., None], true)[..., 0]
    )


def test_both_paths_lift_and_pass_on_what_was_put_back(walker: Keypoints2D) -> None:
    bundle, clock = load_bundle(shipped_bundle_path()), StageClock()
    assert walker.camera is not None and walker.skeleton == H36M17
    with open_backend(bundle, "ort-cpu") as backend:

        def clips(keypoints: Keypoints2D) -> list[PosedFrame]:
            clip = track_clip(keypoints)
            poses, _ = lift_tracked(backend, clip, walker.camera, bundle.manifest.known, clock, lambda _: None)
            return list(posed_frames(clip, poses))

        def live(keypoints: Keypoints2D) -> list[PosedFrame]:
            people = LivePeople(backend, walker.camera, bundle.manifest.known, H36M17, 1)
            frames = enumerate(zip(keypoints.time_s, keypoints.xy_px, keypoints.score, strict=True))
            return [people.step(Frame(i, float(t), np.zeros((2, 2, 3), np.uint8)), xy, s) for i, (t, xy, s) in frames]

        for path in (clips, live):
            for was, now in zip(path(walker), path(exchanged(walker)), strict=True):
                np.testing.assert_allclose(now.pose_m, was.pose_m, atol=1e-5)
                assert np.array_equal(now.xy_px, was.xy_px)
