"""Identities: people who cross, hide, flicker and move fast."""

import numpy as np
import pytest

from poseda_deploy.runtime.track import BORN_AFTER, Tracker, identities, oks, steady_slots
from poseda_deploy.skeleton import H36M17

FPS = 30


@pytest.fixture(scope="module")
def body_px(walker_cam_m: np.ndarray) -> np.ndarray:
    """(90,17,2) a walker of about 300 px, pelvis at the origin."""
    xy_px = 1000 * walker_cam_m[..., :2] / walker_cam_m[..., 2:]
    return xy_px - xy_px[:, :1]


def clip(*people: np.ndarray, hidden: dict[int, slice] | None = None, seed: int = 0) -> tuple[np.ndarray, ...]:
    """(time_s, xy_px, score, who): detections in a random order in every frame, who = the true person of each."""
    random = np.random.default_rng(seed)
    xy_px = np.stack(people, 1) + random.normal(scale=2, size=(len(people[0]), len(people), 17, 2))
    score = np.ones(xy_px.shape[:3], np.float32)
    for person, frames in (hidden or {}).items():
        score[frames, person] = 0
    who = np.stack([random.permutation(len(people)) for _ in xy_px])
    rows = np.arange(len(xy_px))[:, None]
    return np.arange(len(xy_px)) / FPS, xy_px[rows, who].astype(np.float32), score[rows, who], who


def identity_of(found: np.ndarray, score: np.ndarray, who: np.ndarray) -> dict[int, set[int]]:
    """Every identity that each true person had."""
    seen = score.max(-1) > 0
    return {int(p): set(found[seen & (who == p)].tolist()) for p in np.unique(who)}


def live(time_s: np.ndarray, xy_px: np.ndarray, score: np.ndarray) -> np.ndarray:
    tracker = Tracker(xy_px.shape[1])
    return np.stack([tracker.step(float(t), xy, s) for t, xy, s in zip(time_s, xy_px, score, strict=True)])


def crossing(body_px: np.ndarray, speed_px_s: float = 300) -> tuple[np.ndarray, np.ndarray]:
    """Two walkers, out of step, who meet in frame 45."""
    shift_px = ((np.arange(90) - 45) / FPS * speed_px_s)[:, None, None] * np.array([1.0, 0])
    other = np.roll(body_px, 11, 0)
    return body_px + shift_px + 600, other * 0.95 - shift_px + 600


@pytest.mark.parametrize("gone", [None, {0: slice(41, 50)}, {1: slice(41, 50)}, {0: slice(41, 50), 1: slice(41, 50)}])
def test_people_who_cross_keep_their_identities(body_px: np.ndarray, gone: dict[int, slice] | None) -> None:
    for seed in range(4):
        time_s, xy_px, score, who = clip(*crossing(body_px), hidden=gone, seed=seed)
        found = identity_of(identities(time_s, xy_px, score), score, who)
        names = [identity - {-1} for identity in found.values()]  # -1 where both are at one spot
        assert all(len(name) == 1 for name in names) and set.union(*names) == {0, 1}


def test_two_frames_of_one_stamp_are_one_person(body_px: np.ndarray) -> None:
    time_s, xy_px, score, _ = clip(body_px[:10])
    time_s[5] = time_s[4]
    assert live(time_s, xy_px, score)[3:, 0].tolist() == [0] * 7


def test_an_identity_is_born_in_the_third_frame_and_known_from_the_first_in_a_clip(body_px: np.ndarray) -> None:
    time_s, xy_px, score, _ = clip(body_px[:10])
    assert live(time_s, xy_px, score)[:, 0].tolist() == [-1] * (BORN_AFTER - 1) + [0] * (11 - BORN_AFTER)
    assert identities(time_s, xy_px, score)[:, 0].tolist() == [0] * 10


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
@pytest.mark.parametrize("start_s", [0.0, 0.1, 7.3])
def test_whoever_is_there_throughout_a_short_clip_is_somebody(body_px: np.ndarray, frames: int, start_s: float) -> None:
    time_s, xy_px, score, _ = clip(body_px[:frames])
    assert identities(time_s + start_s, xy_px, score)[:, 0].tolist() == [0] * frames


def test_a_flicker_in_a_short_clip_is_nobody(body_px: np.ndarray) -> None:
    time_s, xy_px, score, _ = clip(body_px[:3], hidden={0: slice(1, 3)})
    assert (identities(time_s, xy_px, score) == -1).all()


@pytest.mark.parametrize("step_s", [1.5, 60.0, 86400.0])
def test_frames_far_apart_are_matched_by_place(body_px: np.ndarray, step_s: float) -> None:
    """A time lapse: nobody could be followed, and everybody who is seen is somebody."""
    time_s, xy_px, score, who = clip(body_px[:12:3], body_px[:12:3] + 500, hidden={1: slice(1, 4)})
    found = identity_of(identities(time_s * FPS * step_s, xy_px, score), score, who)
    assert sorted(map(sorted, found.values())) == [[0], [1]]


def test_one_person_keeps_zero_over_gaps_and_sprints(body_px: np.ndarray) -> None:
    gap = {0: slice(30, 55)}  # 0.83 s
    sprint = np.cumsum(np.where(np.arange(90) > 60, 1200 / FPS, 0))[:, None, None] * np.array([1.0, 0])  # 7 m/s at once
    time_s, xy_px, score, _ = clip(body_px + sprint, hidden=gap)
    found = identities(time_s, xy_px, score)[:, 0]
    assert set(found[score[:, 0, 0] > 0]) == {0} and set(found[30:55]) == {-1}


def test_after_a_second_it_is_somebody_new(body_px: np.ndarray) -> None:
    time_s, xy_px, score, _ = clip(body_px, hidden={0: slice(30, 65)})
    found = identities(time_s, xy_px, score)[:, 0]
    assert set(found[:30]) == {0} and set(found[65:]) == {1}


def test_slow_sources_work(body_px: np.ndarray) -> None:
    time_s, xy_px, score, _ = clip(body_px)
    assert set(identities(time_s * 10, xy_px, score)[:, 0]) == {0}, "3 fps"


@pytest.mark.parametrize("step_s", [1.5, 60.0])
def test_a_live_source_of_a_frame_now_and_then_has_people(body_px: np.ndarray, step_s: float) -> None:
    """Nobody could be seen three times within a second: who is seen is somebody, from the second frame on."""
    _, xy_px, score, _ = clip(body_px[:20:2])
    assert live(np.arange(10) * step_s, xy_px, score)[:, 0].tolist() == [-1] + [0] * 9


def test_an_outage_does_not_make_a_source_slow(body_px: np.ndarray) -> None:
    time_s, xy_px, score, _ = clip(body_px[:40])
    time_s[20:] += 30
    found = live(time_s, xy_px, score)[:, 0]
    assert set(found[2:20]) == {0} and found[20:22].tolist() == [-1, -1] and set(found[22:]) == {1}


def test_a_ghost_of_two_frames_is_nobody(body_px: np.ndarray) -> None:
    time_s, xy_px, score, who = clip(body_px, body_px + 900, hidden={1: slice(2, None)})
    found = identity_of(identities(time_s, xy_px, score), score, who)
    assert found == {0: {0}, 1: {-1}}


def test_in_a_clip_a_ghost_of_three_frames_is_nobody_and_the_others_count_from_zero(body_px: np.ndarray) -> None:
    time_s, xy_px, score, who = clip(body_px + 300, body_px + 900, hidden={0: slice(3, 90), 1: slice(0, 10)})
    found = identities(time_s, xy_px, score)
    assert set(found[who == 0].tolist()) == {-1} and set(found[(who == 1) & (score.max(-1) > 0)].tolist()) == {0}
    assert set(live(time_s, xy_px, score).ravel().tolist()) == {-1, 0, 1}, "live it is not known yet"


def test_two_detections_of_one_person_are_one(body_px: np.ndarray) -> None:
    time_s, xy_px, score, _ = clip(body_px, body_px + 3)
    found = identities(time_s, xy_px, score)
    assert (np.sort(found, 1) == [-1, 0]).all()


def test_a_second_person_inside_one_is_born_late_or_never(body_px: np.ndarray) -> None:
    """Detectors see half a person in a person for some frames; a child before a parent stays."""
    inner = body_px * 0.4 + [0, 20]
    for frames, born in ((slice(20, 25), False), (slice(20, 80), True)):
        hidden = np.ones(90, bool)
        hidden[frames] = False
        time_s, xy_px, score, who = clip(body_px, inner)
        score[hidden[:, None] & (who == 1)] = 0
        found = live(time_s, xy_px, score)
        assert set(found[who == 0].tolist()) == {-1, 0}, "whoever was there stays"
        assert (found[who == 1] >= 0).any() == born
        assert not (found[:34][who[:34] == 1] >= 0).any(), "for half a second"


@pytest.mark.parametrize(("frames", "away_px", "scale"), [(3, 100, 1.0), (4, 130, 0.6), (5, 200, 0.4), (8, 100, 0.8)])
def test_a_bad_stretch_does_not_make_a_second_person_of_the_first(
    body_px: np.ndarray, frames: int, away_px: float, scale: float
) -> None:
    """Suddenly elsewhere and smaller, and back over some frames: another track follows that, and finds the first."""
    time_s, xy_px, score, _ = clip(body_px)
    for i in range(frames):
        off = 1 - i / frames
        xy_px[30 + i] = xy_px[30 + i] * (1 - off * (1 - scale)) + away_px * off
    tracker = Tracker(2)
    found = [int(tracker.step(float(t), xy, s)[0]) for t, xy, s in zip(time_s, xy_px, score, strict=True)]
    assert set(found[2:30]) == {0} == set(found[40:])


def test_fewer_than_six_joints_are_not_a_person(body_px: np.ndarray) -> None:
    time_s, xy_px, score, _ = clip(body_px)
    score[:, :, 5:] = 0
    assert (identities(time_s, xy_px, score) == -1).all()


def test_missing_joints_do_not_matter(body_px: np.ndarray) -> None:
    time_s, xy_px, score, who = clip(*crossing(body_px))
    half = np.random.default_rng(1).random(score.shape) < 0.4
    xy_px[half], score[half] = 0, 0
    found = identity_of(identities(time_s, xy_px, score), score, who)
    assert found[0] != found[1] and all(len(names - {-1}) == 1 for names in found.values())


def test_left_taken_for_right_is_the_same_person(body_px: np.ndarray) -> None:
    time_s, xy_px, score, _ = clip(body_px)
    xy_px[20:40] = xy_px[20:40][:, :, H36M17.mirror]
    assert set(identities(time_s, xy_px, score)[:, 0]) == {0}


def test_never_more_identities_than_persons_but_a_newcomer_takes_a_free_place(body_px: np.ndarray) -> None:
    """A leaves in frame 30; C comes in frame 35 and waits until A has been gone for 0.3 s."""
    third = {0: slice(30, None), 2: slice(0, 35)}
    time_s, xy_px, score, who = clip(body_px, body_px + 500, body_px + 1000, hidden=third)
    keep = np.argsort(score.max(-1) <= 0, axis=1, kind="stable")[:, :2]  # a detector for two people
    xy_px, score = np.take_along_axis(xy_px, keep[..., None, None], 1), np.take_along_axis(score, keep[..., None], 1)
    who = np.take_along_axis(who, keep, 1)
    seen_live = live(time_s, xy_px, score)
    assert all(len(set(row) - {-1}) <= 2 for row in seen_live)
    newcomer = seen_live[(who == 2) & (score.max(-1) > 0)]
    assert (newcomer == 2).argmax() in (3, 4, 5) and set(newcomer[5:]) == {2}
    assert identity_of(identities(time_s, xy_px, score), score, who)[2] == {2}, "in a clip from its first frame"


def test_tracks_do_not_pile_up(body_px: np.ndarray) -> None:
    tracker = Tracker(2)
    random = np.random.default_rng(0)
    for frame in range(300):
        xy_px = (body_px[:2] + random.uniform(0, 5000, (2, 1, 2))).astype(np.float32)
        tracker.step(frame / FPS, xy_px, np.ones((2, 17), np.float32))
    assert len(tracker._tracks) <= 4


def test_oks_against_the_formula(body_px: np.ndarray) -> None:
    a, seen = body_px[:1], np.ones((1, 17), bool)
    b = a + np.array([7.0, 0])
    narrow_px, tall_px = np.ptp(a[0], axis=0)
    assert narrow_px < tall_px / 3, "the box of somebody seen from the side counts as a third as wide as it is high"
    sigma = np.full(17, 0.107)
    groups = {
        0.087: "knee",
        0.089: "ankle",
        0.079: "thorax neck shoulder",
        0.035: "head",
        0.072: "elbow",
        0.062: "wrist",
    }
    for value, names in groups.items():
        sigma[[j.split("_")[-1] in names.split() for j in H36M17.joints]] = value
    expected = np.exp(-49 / (2 * 0.53 * tall_px**2 / 3 * (2 * sigma) ** 2)).mean()
    assert oks(a, seen, b, seen, np.zeros(1))[0, 0] == pytest.approx(expected)
    assert oks(a, seen, a, ~seen, np.zeros(1))[0, 0] == 0


def test_slots_stay_with_their_people(body_px: np.ndarray) -> None:
    time_s, xy_px, score, who = clip(*crossing(body_px), hidden={0: slice(41, 50)})
    found = identities(time_s, xy_px, score)
    order = steady_slots(found)
    assert (np.sort(order, 1) == [0, 1]).all()
    ordered = np.take_along_axis(np.where(score.max(-1) > 0, who, -1), order, 1)
    assert all(len(set(column) - {-1}) == 1 for column in ordered.T)
