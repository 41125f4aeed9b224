"""BVH motion capture as source poses: joints found by name, metres, H36M17 order."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Float

from poseda_deploy.errors import InputError
from poseda_deploy.npz import MAX_BYTES
from poseda_deploy.skeleton import BONE_FROM_JOINT, BONES, DERIVED, H36M17

from .bvh import END, Motion, read_bvh
from .units import check_metres

# First name found wins: "arm" before "shoulder", which is the clavicle where both are there.
LIMBS = {
    "hip": ("upleg", "upperleg", "thigh", "femur", "hip"),
    "knee": ("leg", "lowleg", "lowerleg", "shin", "calf", "tibia", "knee"),
    "ankle": ("foot", "ankle"),
    "shoulder": ("arm", "uparm", "upperarm", "shldr", "humerus", "shoulder"),
    "elbow": ("forearm", "lowarm", "lowerarm", "elbow"),
    "wrist": ("hand", "wrist"),
}
SIDES = {"left": ("left{}", "l{}", "{}left", "{}l"), "right": ("right{}", "r{}", "{}right", "{}r")}
SYNONYMS = {
    **{
        f"{side}_{joint}": tuple(form.format(name) for name in names for form in forms)
        for side, forms in SIDES.items()
        for joint, names in LIMBS.items()
    },
    "spine": ("spine1", "spine01", "chest", "spine", "abdomen", "torso"),
    "neck": ("head",),  # the base of the skull: the source's neck is 0.1 m above the shoulders, a BVH's "Neck" at them
}
HEAD_ENDS = ("end", "nub", "top")
PREFIX = re.compile(r"^(mixamorig|character|bip|ccbase)\d*")
HEAD_M = 0.115
"""Source poses have the head this far above the neck (0.10 to 0.12); the head bone of many rigs ends at the crown."""

CGSPEED_THORAX, CGSPEED_FOREARM = 1.007, 1.5
CGSPEED_AT_SPINE1 = ("Neck", "LeftShoulder", "RightShoulder")
CGSPEED_JOINTS = {"LHipJoint", "RHipJoint", "LowerBack", "Spine", "LeftFingerBase", "RightFingerBase"}


def bvh_to_h36m17(motion: Motion, scale: float = 1.0) -> Float[np.ndarray, "frames 17 3"]:
    """Joints in model order, metres, y up. `scale` is metres a unit of the file: 0.01 where it is in centimetres."""
    if not 0 < scale < np.inf:
        raise InputError(f"the scale must be above zero, got {scale:g}", hint="0.01 for centimetres, 1 for metres")
    found = _find_joints(motion)
    position = motion.positions * scale
    if is_cgspeed(motion):
        found["spine"] = motion.joints.index("Spine")
        position = _mend_cgspeed(motion, found, position)
    out = np.zeros((len(position), 17, 3))
    for joint, index in found.items():
        out[:, H36M17.index(joint)] = position[:, index]
    out[:, H36M17.index("head")] = _head(motion, found["neck"], position)
    for joint in ("pelvis", "thorax"):
        out[:, H36M17.index(joint)] = out[:, [H36M17.index(part) for part in DERIVED[joint]]].mean(1)
    _check_bones(motion.path, out)
    check_metres(motion.path, out)
    return out


def _plain(name: str) -> str:
    """The name without case, prefix and punctuation: "mixamorig:LeftUpLeg", "Bip01 L Thigh", "thigh.L"."""
    lower = name.rpartition(":")[2].lower()
    return PREFIX.sub("", re.sub(r"[^a-z0-9]", "", lower))


def _find_joints(motion: Motion) -> dict[str, int]:
    """Index in the file of every joint of H36M17 that has a name of its own."""
    index = {_plain(name): j for j, name in reversed(list(enumerate(motion.joints))) if not name.endswith(END)}
    return {joint: _find(motion, index, joint) for joint in SYNONYMS}


def _find(motion: Motion, index: Mapping[str, int], joint: str) -> int:
    for name in SYNONYMS[joint]:
        if name in index:
            return index[name]
    near = [match for name in SYNONYMS[joint] for match in get_close_matches(name, index, n=2, cutoff=0.7)]
    names = ", ".join(motion.joints[index[match]] for match in dict.fromkeys(near)) or "none is near"
    called = "the base of the head (neck)" if joint == "neck" else joint
    raise InputError(
        f"{motion.path}: no joint is called like {called}; nearest: {names}",
        hint=f"rename it, for example to {SYNONYMS[joint][0]!r} (case and prefixes do not matter)",
    )


def is_cgspeed(motion: Motion) -> bool:
    """Whether this is of the CMU conversion by cgspeed: its names, and neck and shoulders on top of Spine1.

    A file in which somebody has put the missing bones back has them apart, and is left as it is.
    """
    if not {*CGSPEED_JOINTS, *CGSPEED_AT_SPINE1, "Spine1"} <= set(motion.joints):
        return False
    index = [motion.joints.index(name) for name in CGSPEED_AT_SPINE1]
    on_spine1 = all(motion.parents[j] == motion.joints.index("Spine1") for j in index)
    return on_spine1 and not motion.offsets[index].any()


def _mend_cgspeed(
    motion: Motion, found: Mapping[str, int], position: Float[np.ndarray, "frames joints 3"]
) -> Float[np.ndarray, "frames-1 joints 3"]:
    """Put back the thorax and wrist bones that the conversion lost; its frame 0 is a T-pose, not captured."""
    if len(position) < 2:
        raise InputError(f"{motion.path}: has the T-pose of frame 0 only", hint="leave this file out")
    mended = position[1:].copy()
    spine1 = motion.joints.index("Spine1")
    unit = np.linalg.norm(position[0, spine1] - position[0, motion.parents[spine1]])
    above = [j for j in range(len(motion.joints)) if spine1 in _ancestors(motion, j)]
    mended[:, above] += (CGSPEED_THORAX * unit * motion.rotations[1:, spine1, :, 1])[:, None]
    for side in SIDES:
        elbow, wrist = mended[:, found[f"{side}_elbow"]], mended[:, found[f"{side}_wrist"]]
        mended[:, found[f"{side}_wrist"]] = elbow + CGSPEED_FOREARM * (wrist - elbow)
    return mended


def _ancestors(motion: Motion, joint: int) -> Iterator[int]:
    while (joint := motion.parents[joint]) >= 0:
        yield joint


def _head(motion: Motion, neck: int, position: Float[np.ndarray, "frames joints 3"]) -> Float[np.ndarray, "frames 3"]:
    """At the end of the head bone, at most HEAD_M from the neck; a head without an end goes on as the neck does."""
    below = (j for j, parent in enumerate(motion.parents) if parent == neck)
    ends = [j for j in below if _plain(motion.joints[j]).endswith(HEAD_ENDS)]
    towards = position[:, ends[0]] - position[:, neck] if ends else np.zeros((len(position), 3))
    if np.linalg.norm(towards, axis=-1).max() < HEAD_M / 10:
        on = position[:, neck] - position[:, motion.parents[neck]]
        towards = on * HEAD_M / np.maximum(np.linalg.norm(on, axis=-1, keepdims=True), 1e-9)
    length = np.maximum(np.linalg.norm(towards, axis=-1, keepdims=True), 1e-9)
    return position[:, neck] + towards * np.minimum(HEAD_M / length, 1)


def _check_bones(path: Path, pose: Float[np.ndarray, "frames 17 3"]) -> None:
    length = np.linalg.norm(BONE_FROM_JOINT @ pose, axis=-1)
    frame, bone = np.unravel_index(length.argmin(), length.shape)
    if length[frame, bone] < 1e-3 * length.max():
        ends = [H36M17.joints[j] for j in (BONES[bone].parent, BONES[bone].child)]
        raise InputError(
            f"{path}: {' and '.join(ends)} are one point in frame {frame}", hint="export it with its bone lengths"
        )


def load_bvh_folder(folder: Path, scale: float = 1.0, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """All .bvh under a folder as the arrays of a source file; the subject is the file's name up to the first "_"."""
    if not folder.is_dir():
        raise InputError(f"not a folder: {folder}", hint="give the folder that holds the .bvh files")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".bvh")
    if not files:
        raise InputError(f"{folder}: holds no .bvh file", hint="give the folder that holds the .bvh files")
    poses, rates = [], []
    for file in files:
        motion = read_bvh(file, max_bytes)
        poses.append(bvh_to_h36m17(motion, scale).astype(np.float32))
        rates.append(motion.fps)
    _check_one_rate(files, rates)
    subjects = [file.stem.partition("_")[0] for file in files]
    return source_arrays(poses, [file.stem for file in files], subjects, rates[0])


def _check_one_rate(files: Sequence[Path], rates: Sequence[Fraction]) -> None:
    for file, rate in zip(files, rates, strict=True):
        if rate != rates[0]:
            raise InputError(
                f"{file}: {float(rate):g} frames a second, {files[0].name} has {float(rates[0]):g}",
                hint="put files of one frame rate in a folder, and give several folders",
            )


def source_arrays(
    poses_m: Sequence[np.ndarray], names: Sequence[str], subjects: Sequence[str], fps: Fraction
) -> dict[str, np.ndarray]:
    """Sequences (F,17,3), metres, y up, as the arrays of a source file."""
    count = np.array([len(pose) for pose in poses_m])
    return {
        "positions": np.concatenate(poses_m).astype(np.float32),
        "seq_id": np.repeat(np.arange(len(count), dtype=np.int32), count),
        "seq_start": np.cumsum(count) - count,
        "seq_len": count,
        "seq_name": np.array(names),
        "seq_subject": np.array(subjects),
        "seq_fps": np.full(len(count), float(fps)),
        "valid": np.ones(count.sum(), bool),
    }
