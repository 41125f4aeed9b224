"""Keypoints that users already have: OpenPose's JSON folders and COCO-style JSON, skeleton by name."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import InputError
from poseda_deploy.files import require_file
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.skeleton import Skeleton

_FRAME_NUMBER = re.compile(r"(\d+)_keypoints\.json$")
MAX_JSON_BYTES = 1 << 30
Person = Float[np.ndarray, "j 3"]


def from_openpose(
    folder: Path, skeleton: Skeleton, size_wh: tuple[int, int], fps: Fraction, persons: int
) -> Keypoints2D:
    """A folder of NAME_000000000012_keypoints.json, one file a frame; gaps in the numbers are frames without people."""
    if not folder.is_dir():
        raise InputError(f"OpenPose folder not found: {folder}", hint="name the folder given to --write_json")
    numbered = {int(m[1]): path for path in folder.iterdir() if (m := _FRAME_NUMBER.search(path.name))}
    if not numbered:
        raise InputError(f"{folder}: no file named like NAME_000000000000_keypoints.json")
    first, last = min(numbered), max(numbered)
    frames = [_openpose_people(numbered[n], skeleton) if n in numbered else [] for n in range(first, last + 1)]
    return _keypoints(frames, skeleton, size_wh, fps, persons)


def from_coco(path: Path, skeleton: Skeleton, size_wh: tuple[int, int], fps: Fraction, persons: int) -> Keypoints2D:
    """COCO results (a list) or annotations (an object with "annotations"); frames in the order of image_id."""
    loaded = _json(path)
    entries = loaded.get("annotations") if isinstance(loaded, dict) else loaded
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "keypoints" in e for e in entries):
        raise InputError(f"{path}: expected a list of objects with image_id and keypoints", hint="COCO results format")
    by_image: dict[Any, list[Person]] = {}
    for entry in entries:
        by_image.setdefault(entry.get("image_id"), []).append(_person(entry["keypoints"], skeleton, path))
    frames = [by_image[key] for key in sorted(by_image, key=_frame_order)]
    return _keypoints(frames, skeleton, size_wh, fps, persons)


def _openpose_people(path: Path, skeleton: Skeleton) -> list[Person]:
    loaded = _json(path)
    people = loaded.get("people") if isinstance(loaded, dict) else None
    if not isinstance(people, list):
        raise InputError(f"{path}: no list of people", hint="expected OpenPose's JSON output")
    return [_person(p.get("pose_keypoints_2d", ()), skeleton, path) for p in people if isinstance(p, Mapping)]


def _person(numbers: Sequence[Any], skeleton: Skeleton, path: Path) -> Person:
    """x, y, score triples; COCO's visibility flags 0, 1, 2 become 0, 0.5, 1."""
    joints = len(skeleton.joints)
    if len(numbers) != 3 * joints:
        raise InputError(
            f"{path}: {skeleton.name} has {joints} joints, so {3 * joints} numbers a person, got {len(numbers)}",
            hint="name the right --skeleton",
        )
    try:
        person = np.array(numbers, np.float32).reshape(joints, 3)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: keypoints must be numbers") from error
    if person[:, 2].max() > 1 and set(person[:, 2]) <= {0.0, 1.0, 2.0}:
        person[:, 2] /= 2
    return person


def _frame_order(image_id: object) -> tuple[int, str]:
    """By the last number in it ("frame_12.jpg" after "frame_9.jpg"), then by text."""
    digits = re.findall(r"\d+", str(image_id))
    return (int(digits[-1]) if digits else 0, str(image_id))


def _keypoints(
    frames: Sequence[Iterable[Person]], skeleton: Skeleton, size_wh: tuple[int, int], fps: Fraction, persons: int
) -> Keypoints2D:
    """The `persons` best-scored people of each frame, best first."""
    slots = np.zeros((len(frames), persons, len(skeleton.joints), 3), np.float32)
    for row, people in zip(slots, frames, strict=True):
        best = sorted(people, key=lambda person: -float(person[:, 2].sum()))[:persons]
        for slot, person in enumerate(best):
            row[slot] = person
    time_s = np.arange(len(frames)) / float(fps)
    return Keypoints2D(slots[..., :2], slots[..., 2], size_wh, skeleton, time_s)


def _json(path: Path) -> Any:
    if require_file(path, "keypoints file").stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path}: larger than 1 GiB", hint="split it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
