"""Keypoints that users already have: OpenPose's JSON folders and COCO-style JSON, skeleton by name."""

import math
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import InputError
from poseda_deploy.files import require_file
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.npz import MAX_BYTES
from poseda_deploy.parsing import parse_json, read_text
from poseda_deploy.skeleton import Skeleton

_FRAME_NUMBER = re.compile(r"(\d+)_keypoints\.json$")
MOST_EMPTY_FRAMES = 1_000_000
"""Nine hours at 30 fps."""
_LARGEST = 3e38  # in single precision
Person = Float[np.ndarray, "j 3"]


def from_openpose(
    folder: Path,
    skeleton: Skeleton,
    size_wh: tuple[int, int],
    fps: Fraction,
    persons: int,
    max_bytes: int = MAX_BYTES,
) -> Keypoints2D:
    """A folder of NAME_000000000012_keypoints.json, one file a frame; gaps in the numbers are frames without people."""
    if not folder.is_dir():
        raise InputError(f"OpenPose folder not found: {folder}", hint="name the folder given to --write_json")
    numbered = {int(m[1]): path for path in folder.iterdir() if (m := _FRAME_NUMBER.search(path.name))}
    if not numbered:
        raise InputError(f"{folder}: no file named like NAME_000000000000_keypoints.json")
    first, last = min(numbered), max(numbered)
    if last - first >= len(numbered) + MOST_EMPTY_FRAMES:
        raise InputError(
            f"{folder}: {len(numbered)} files leave more than {MOST_EMPTY_FRAMES} frames without a file between them",
            hint="put the files of one video in a folder, numbered as OpenPose does",
        )
    people = {n: _best(_openpose_people(path, skeleton, max_bytes), persons) for n, path in numbered.items()}
    frames = [people.get(n, []) for n in range(first, last + 1)]
    return _keypoints(frames, skeleton, size_wh, fps, persons, max_bytes)


def from_coco(
    path: Path,
    skeleton: Skeleton,
    size_wh: tuple[int, int],
    fps: Fraction,
    persons: int,
    max_bytes: int = MAX_BYTES,
) -> Keypoints2D:
    """COCO results (a list) or annotations (an object with "annotations"); frames in the order of image_id."""
    loaded = _json(path, max_bytes)
    entries = loaded.get("annotations") if isinstance(loaded, dict) else loaded
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "keypoints" in e for e in entries):
        raise InputError(f"{path}: expected a list of objects with image_id and keypoints", hint="COCO results format")
    by_image: dict[int | str, list[Person]] = {}
    for entry in entries:
        person, image_id = _person(entry["keypoints"], skeleton, path), entry.get("image_id")
        if not isinstance(image_id, int | str):
            raise InputError(f"{path}: image_id must be a number or a name", hint="COCO results format")
        by_image.setdefault(image_id, []).append(person)
    frames = [_best(by_image[key], persons) for key in sorted(by_image, key=_frame_order)]
    try:
        return _keypoints(frames, skeleton, size_wh, fps, persons, max_bytes)
    except InputError as error:
        raise InputError(f"{path}: {error}", hint=error.hint) from error


def _openpose_people(path: Path, skeleton: Skeleton, max_bytes: int) -> list[Person]:
    loaded = _json(path, max_bytes)
    people = loaded.get("people") if isinstance(loaded, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise InputError(f"{path}: no list of people", hint="expected OpenPose's JSON output")
    return [_person(person.get("pose_keypoints_2d", []), skeleton, path) for person in people]


def _person(numbers: Any, skeleton: Skeleton, path: Path) -> Person:
    """x, y, score triples; COCO's visibility flags 0, 1, 2 become 0, 0.5, 1."""
    joints = len(skeleton.joints)
    if not isinstance(numbers, list) or not all(type(number) in (int, float) for number in numbers):
        raise InputError(f"{path}: keypoints must be numbers in a list")
    if len(numbers) != 3 * joints:
        raise InputError(
            f"{path}: {skeleton.name} has {joints} joints, so {3 * joints} numbers a person, got {len(numbers)}",
            hint="name the right --skeleton",
        )
    if not all(abs(number) < _LARGEST for number in numbers):  # false where one is NaN
        raise InputError(f"{path}: keypoints must be finite numbers", hint="0 0 0 where a joint is missing")
    person = np.array(numbers, np.float32).reshape(joints, 3)
    if person[:, 2].max() > 1 and set(person[:, 2]) <= {0.0, 1.0, 2.0}:
        person[:, 2] /= 2
    return person


def _frame_order(image_id: int | str) -> tuple[int, str, str]:
    """By the last number in it ("frame_12.jpg" after "frame_9.jpg"), then by text."""
    digits = re.findall(r"[0-9]+", str(image_id))
    number = digits[-1].lstrip("0") if digits else ""
    return (len(number), number, str(image_id))  # a longer number is a larger one, however long


def _best(people: Iterable[Person], persons: int) -> list[Person]:
    """Those with the highest scores, best first."""
    return sorted(people, key=lambda person: -float(person[:, 2].sum()))[:persons]


def _keypoints(
    frames: Sequence[Sequence[Person]],
    skeleton: Skeleton,
    size_wh: tuple[int, int],
    fps: Fraction,
    persons: int,
    max_bytes: int,
) -> Keypoints2D:
    """One slot a person, in the order of each frame."""
    shape = (len(frames), persons, len(skeleton.joints), 3)
    if 4 * math.prod(shape) > max_bytes:
        raise InputError(
            f"{len(frames)} frames of {persons} people take more than {max_bytes / 1e9:.3g} GB",
            hint="fewer --persons, or --max-memory where there is more memory",
        )
    slots = np.zeros(shape, np.float32)
    for row, people in zip(slots, frames, strict=True):
        for slot, person in enumerate(people):
            row[slot] = person
    time_s = np.arange(len(frames)) / float(fps)
    return Keypoints2D(slots[..., :2], slots[..., 2], size_wh, skeleton, time_s)


def _json(path: Path, max_bytes: int) -> Any:
    require_file(path, "keypoints file")
    try:
        return parse_json(read_text(path, max_bytes), max_bytes)
    except InputError as error:
        raise InputError(f"{path}: {error}", hint=error.hint) from error
