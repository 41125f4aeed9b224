"""Identities of people who cross, composed from real tracks: the tracker against greedy slots.

    python benchmarks/tracking.py VIDEO_DIR

VIDEO_DIR holds pose2sim_cam01..04.mp4 and sports2d_demo.mp4. Prints JSON: how often a person's identity changes.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from poseda_deploy.opencv import cv2
from poseda_deploy.runtime.detect import _model_file
from poseda_deploy.runtime.track import Tracker
from poseda_deploy.runtime.video import VideoReader
from poseda_deploy.skeleton import MEDIAPIPE33, to_h36m17


@dataclass
class Detections:
    """MediaPipe's full model over one video."""

    time_s: np.ndarray
    xy_px: np.ndarray
    score: np.ndarray
    world_m: np.ndarray
    size_wh: tuple[int, int]


@cache
def detections(video: Path, persons: int) -> Detections:
    """MediaPipe in VIDEO mode; it smooths for one person and does not for two."""
    options = vision.PoseLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=_model_file("full", quiet=True).read_bytes()),
        running_mode=vision.RunningMode.VIDEO,
        num_poses=persons,
    )
    rows = []
    with VideoReader(video) as reader, vision.PoseLandmarker.create_from_options(options) as landmarker:
        for frame in reader:
            rgb = np.asarray(cv2.cvtColor(frame.bgr, cv2.COLOR_BGR2RGB))
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
            found = landmarker.detect_for_video(image, round(frame.time_s * 1000))
            both = np.zeros((persons, 33, 6))
            for i, (seen, world) in enumerate(zip(found.pose_landmarks, found.pose_world_landmarks, strict=True)):
                both[i] = [(p.x, p.y, p.visibility, q.x, q.y, q.z) for p, q in zip(seen, world, strict=True)]
            rows.append((frame.time_s, both))
        size_wh = reader.size_wh
    both = np.stack([row for _, row in rows])
    inside = ((both[..., :2] >= 0) & (both[..., :2] <= 1)).all(-1)
    score = np.where(inside, both[..., 2].clip(0, 1), 0)
    return Detections(np.array([t for t, _ in rows]), both[..., :2] * size_wh, score, both[..., 3:], size_wh)


Person = tuple[np.ndarray, np.ndarray]
"""(t,33,2) pixels and (t,33) scores."""


def mirrored(xy_px: np.ndarray, score: np.ndarray, width: int) -> Person:
    """As if filmed from behind a mirror."""
    turned = xy_px[:, MEDIAPIPE33.mirror]
    return np.stack([width - turned[..., 0], turned[..., 1]], -1), score[:, MEDIAPIPE33.mirror]


def walking_woman(videos: Path) -> tuple[np.ndarray, Person, int]:
    """Frames 62 to 190 of the demo: she walks from right to left below the man on the wall."""
    found = detections(videos / "sports2d_demo.mp4", 2)
    frames = np.arange(62, 190)
    low = np.median(found.xy_px[frames, :, :, 1], -1) * (found.score[frames].max(-1) > 0)
    slot = low.argmax(1)
    score = found.score[frames, slot] * (low.max(1) > 600)[:, None]
    return found.time_s[frames], (found.xy_px[frames, slot], score), found.size_wh[0]


def crossings(videos: Path) -> Iterator[tuple[np.ndarray, Person, Person]]:
    """The walker and her mirror image, out of step; the balancing men of two cameras, moved through each other."""
    time_s, (xy_px, score), width = walking_woman(videos)
    for lag, scale, down_px in itertools.product((0, 4, 8, 12), (0.8, 0.9, 1.0, 1.15), (-60, 0, 40)):
        other_px, other_score = mirrored(xy_px, score, width)
        other_px = (np.roll(other_px, lag, 0)[lag:] - [0, 700]) * scale + [0, 700 + down_px]
        yield time_s[lag:], (xy_px[lag:], score[lag:]), (other_px, np.roll(other_score, lag, 0)[lag:])
    men = [detections(videos / f"pose2sim_cam0{i}.mp4", 2) for i in (1, 2, 3, 4)]
    for (a, b), speed_px_s, down_px in itertools.product(itertools.permutations(men, 2), (400, 800, 1600), (-50, 50)):
        shift_px = ((a.time_s - a.time_s[50]) * speed_px_s / 2)[:, None, None] * [1, 0]
        other_px, other_score = mirrored(b.xy_px[:, 0], b.score[:, 0], b.size_wh[0])
        other_px = other_px + np.median(a.xy_px[50, 0], 0) - np.median(other_px[50], 0) + [0, down_px]
        yield a.time_s, (a.xy_px[:, 0] + shift_px, a.score[:, 0]), (other_px - shift_px, other_score)


class GreedySlots:
    """What the detector did before: each person into the slot whose last occupant was nearest."""

    def __init__(self) -> None:
        self._centres = np.zeros((2, 2))

    def step(self, time_s: float, xy_px: np.ndarray, score: np.ndarray) -> np.ndarray:
        """As Tracker.step."""
        found = np.full(2, -1)
        centres = [xy[s > 0].mean(0) if s.any() else np.full(2, np.inf) for xy, s in zip(xy_px, score, strict=True)]
        pairs = [(np.hypot(*(c - o)), i, j) for i, c in enumerate(centres) for j, o in enumerate(self._centres)]
        for distance, i, j in sorted(pairs):
            if np.isfinite(distance) and found[i] < 0 and j not in found:
                found[i] = j
        for i, j in enumerate(found):
            if j >= 0:
                self._centres[j] = centres[i]
        return found


def switches(tracker: Tracker | GreedySlots, time_s: np.ndarray, people: list[Person], hidden: np.ndarray) -> int:
    """How often a person's identity changes; detections come in a random order, `hidden` (t,2) ones not at all."""
    random, last, count = np.random.default_rng(0), {}, 0
    joints = [to_h36m17(*person, MEDIAPIPE33) for person in people]
    for frame, now_s in enumerate(time_s):
        order = random.permutation(2)
        score = np.stack([joints[p][1][frame] * ~hidden[frame, p] for p in order])
        found = tracker.step(float(now_s), np.stack([joints[p][0][frame] for p in order]), score)
        for person, identity, seen in zip(order.tolist(), found.tolist(), score.any(-1), strict=True):
            if identity >= 0 and seen:
                count += last.get(person, identity) != identity
                last[person] = identity
    return count


def report_crossings(videos: Path) -> dict[str, Any]:
    """Switches of the tracker and of greedy slots; gaps lie within 0.1 s of the crossing."""
    cases = {"no gap": (0.0, ()), "both 0.3 s": (0.3, (0, 1)), "one 0.3 s": (0.3, (0,)), "other 0.3 s": (0.3, (1,))}
    cases |= {"both 0.6 s": (0.6, (0, 1)), "one 0.6 s": (0.6, (1,))}
    report: dict[str, Any] = {}
    for name, (gap_s, who) in cases.items():
        random, counts = np.random.default_rng(0), []
        for time_s, a, b in crossings(videos):
            x_px = [np.where(s.max(1) > 0, np.median(xy[..., 0], 1), np.nan) for xy, s in (a, b)]
            meet_s = time_s[np.nanargmin(np.abs(x_px[0] - x_px[1]))] + random.uniform(-0.1, 0.1)
            hidden = (np.abs(time_s - meet_s) <= gap_s / 2)[:, None] & np.isin([0, 1], who) & (gap_s > 0)
            counts.append([switches(t, time_s, [a, b], hidden) for t in (Tracker(2), GreedySlots())])
        total = np.sum(counts, 0).tolist()
        report[name] = {"crossings": len(counts), "tracker": total[0], "greedy": total[1]}
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    print(json.dumps(report_crossings(parser.parse_args().videos), indent=1))


if __name__ == "__main__":
    main()
