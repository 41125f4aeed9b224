"""BVH: forward kinematics, joints by name, and one line for every file that is not what it should be."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import walk_m
from scipy.spatial.transform import Rotation

from poseda_deploy.errors import InputError
from poseda_deploy.skeleton import H36M17
from poseda_deploy.train.bvh import Motion, read_bvh
from poseda_deploy.train.bvh_source import bvh_to_h36m17, is_cgspeed, load_bvh_folder

Tree = list[tuple[str, int, tuple[float, float, float]]]
"""(name, parent, offset); "End Site" as a name ends its parent."""
ALL6 = "CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation"
CHAIN: Tree = [("Hips", -1, (0, 0, 0)), ("Spine", 0, (0, 2, 1)), ("Arm", 1, (3, 0, 0)), ("End Site", 2, (1, 0, 0.5))]


def hierarchy(tree: Tree, channels: Callable[[int], str]) -> str:
    def block(j: int) -> str:
        name, parent, offset = tree[j]
        inner = "".join(block(k) for k in range(len(tree)) if tree[k][1] == j)
        head = name if name == "End Site" else f"{'ROOT' if parent < 0 else 'JOINT'} {name}"
        lines = "" if name == "End Site" else channels(j) + "\n"
        return f"{head}\n{{\nOFFSET {' '.join(map(str, offset))}\n{lines}{inner}}}\n"

    return "HIERARCHY\n" + block(0)


def write(path: Path, tree: Tree, rows: np.ndarray, channels: Callable[[int], str], frame_s: str = "0.0333333") -> Path:
    motion = "\n".join(" ".join(f"{value:.9g}" for value in row) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{hierarchy(tree, channels)}MOTION\nFrames: {len(rows)}\nFrame Time: {frame_s}\n{motion}\n")
    return path


def rotating(order: str) -> Callable[[int], str]:
    """Root with positions, the others with rotations only, in that order of axes."""
    spins = " ".join(f"{axis}rotation" for axis in order)
    return lambda j: f"CHANNELS 3 {spins}" if j else f"CHANNELS 6 Xposition Yposition Zposition {spins}"


def all6(j: int) -> str:
    return ALL6


# The walker's skeleton under the names of three rigs; offsets are per frame, by position channels.
RIG = {
    "pelvis": "Hips",
    "spine": "Spine1",
    "neck": "Head",
    **{
        f"{side}_{joint}": f"{side.title()}{name}"
        for side in ("left", "right")
        for joint, name in zip(
            ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"),
            ("UpLeg", "Leg", "Foot", "Arm", "ForeArm", "Hand"),
            strict=True,
        )
    },
}
CLASSIC = dict(
    zip(
        ("UpLeg", "Leg", "Foot", "Arm", "ForeArm", "Hand"),
        ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist"),
        strict=True,
    )
)
BIPED = {"UpLeg": "Thigh", "Leg": "Calf", "Foot": "Foot", "Arm": "UpperArm", "ForeArm": "Forearm", "Hand": "Hand"}


def renamed(name: str, limbs: dict[str, str], form: str) -> str:
    for side in ("Left", "Right"):
        if name.startswith(side):
            return form.format(side=side, s=side[0], limb=limbs[name.removeprefix(side)])
    return name


NAMES: dict[str, Callable[[str], str]] = {
    "plain": lambda name: name,
    "mixamo": lambda name: f"mixamorig:{name}",
    "mixamo numbered": lambda name: f"mixamorig12_{name}",
    "lower case": str.lower,
    "classic": lambda name: renamed(name, CLASSIC, "{side}{limb}").replace("Spine1", "Chest"),
    "biped": lambda name: "Bip01 " + renamed(name, BIPED, "{s} {limb}"),
    "suffix": lambda name: renamed(name, BIPED, "{limb}.{s}"),
}


def write_people(path: Path, pose: np.ndarray, name: Callable[[str], str] = str, frame_s: str = "0.0333333") -> Path:
    """A BVH of (F,17,3): every joint is turned at random and placed by position channels."""
    random = np.random.default_rng(0)
    joints = ["pelvis", *(joint for joint in H36M17.joints if joint in RIG and joint != "pelvis")]
    parent = {"left_hip": "pelvis", "right_hip": "pelvis", "spine": "pelvis", "neck": "spine"}
    parent |= {"left_shoulder": "spine", "right_shoulder": "spine"}
    parent |= {f"{s}_{b}": f"{s}_{a}" for s in ("left", "right") for a, b in (("hip", "knee"), ("knee", "ankle"))}
    parent |= {
        f"{s}_{b}": f"{s}_{a}" for s in ("left", "right") for a, b in (("shoulder", "elbow"), ("elbow", "wrist"))
    }
    depth_first: list[str] = []

    def visit(joint: str) -> None:
        depth_first.append(joint)
        for child in joints:
            if parent.get(child) == joint:
                visit(child)

    visit("pelvis")
    world: dict[str, Rotation] = {}
    blocks: list[np.ndarray] = []
    for joint in depth_first:
        angle = random.uniform(-180, 180, (len(pose), 3))
        local, at = Rotation.from_euler("ZYX", angle, degrees=True), pose[:, H36M17.index(joint)]
        up = parent.get(joint)
        step = world[up].inv().apply(at - pose[:, H36M17.index(up)]) if up else at
        world[joint] = world[up] * local if up else local
        blocks += [step, angle]
    end = world["neck"].inv().apply(pose[:, H36M17.index("head")] - pose[:, H36M17.index("neck")])
    tree: Tree = [(name(RIG[j]), depth_first.index(parent[j]) if j in parent else -1, (0, 0, 0)) for j in depth_first]
    # An End Site cannot move, so the head is a joint with position channels, as in rigs that have HeadTop_End.
    at_head = depth_first.index("neck") + 1
    tree = [(n, p + (p >= at_head), o) for n, p, o in tree]
    tree.insert(at_head, (name("HeadTop_End"), at_head - 1, (0, 0, 0)))
    blocks[2 * at_head : 2 * at_head] = [end, np.zeros_like(end)]
    return write(path, tree, np.concatenate(blocks, 1), all6, frame_s)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "01_01.bvh"


def test_no_rotation_gives_the_offsets(path: Path) -> None:
    motion = read_bvh(write(path, CHAIN, np.zeros((3, 12)), rotating("ZXY")))
    assert motion.joints == ("Hips", "Spine", "Arm", "Arm end") and motion.parents == (-1, 0, 1, 2)
    np.testing.assert_allclose(motion.positions, np.tile([[0.0, 0, 0], [0, 2, 1], [3, 2, 1], [4, 2, 1.5]], (3, 1, 1)))


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("XYZ")])
def test_every_euler_order_agrees_with_scipy(order: str, path: Path) -> None:
    angle = np.random.default_rng(1).uniform(-180, 180, (5, 3, 3))
    rows = np.concatenate([np.ones((5, 3)), angle.reshape(5, 9)], 1)
    motion = read_bvh(write(path, CHAIN, rows, rotating(order)))
    world, at = Rotation.identity(5), np.ones((5, 3))
    for j, (_, _, offset) in enumerate(CHAIN):
        at = at + world.apply(offset)
        np.testing.assert_allclose(motion.positions[:, j], at, atol=1e-6)
        if j < 3:
            world = world * Rotation.from_euler(order, angle[:, j], degrees=True)
            np.testing.assert_allclose(motion.rotations[:, j], world.as_matrix(), atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(turn=st.tuples(*[st.floats(-180, 180)] * 3))
def test_turning_the_root_turns_everything(
    turn: tuple[float, float, float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = np.random.default_rng(2).uniform(-90, 90, (4, 12))
    rows[:, :6] = 0
    turned = rows.copy()
    turned[:, 3:6] = turn
    path = tmp_path_factory.mktemp("bvh") / "a.bvh"
    still, moved = (read_bvh(write(path, CHAIN, r, rotating("YXZ"))).positions for r in (rows, turned))
    expected = still @ Rotation.from_euler("YXZ", turn, degrees=True).as_matrix().T
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_channels_may_be_few_and_in_any_order(path: Path) -> None:
    spell = {0: "CHANNELS 4 Zrotation yPOSITION Xrotation XPOSITION", 1: "CHANNELS 1 Yrotation", 2: "CHANNELS 0"}
    motion = read_bvh(write(path, CHAIN, np.array([[90, 5, 0, 7, 90.0]]), spell.__getitem__))
    expected = np.array([[7, 5, 0], [5, 5, 1], [5, 5, -2], [5, 5.5, -3]])
    np.testing.assert_allclose(motion.positions[0], expected, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "fps"),
    [
        ("0.0333333", Fraction(30)),
        ("0.033333", Fraction(30)),
        ("0.0333", Fraction(30)),
        ("0.033", Fraction(1000, 33)),
        (".0083333", Fraction(120)),
        ("0.008333333333", Fraction(120)),
        ("0.04", Fraction(25)),
        ("0.0166667", Fraction(60)),
        ("0.016666", Fraction(60)),
        ("0.0333667", Fraction(30000, 1001)),
        ("0.033366666", Fraction(30000, 1001)),
        ("0.03", Fraction(100, 3)),
        ("2.5", Fraction(2, 5)),
        ("1", Fraction(1)),
    ],
)
def test_frame_rates_are_exact(text: str, fps: Fraction, path: Path) -> None:
    assert read_bvh(write(path, CHAIN, np.zeros((1, 12)), rotating("ZXY"), text)).fps == fps


@pytest.mark.parametrize("rig", NAMES)
def test_the_walker_comes_back(rig: str, path: Path) -> None:
    truth = walk_m(12)
    motion = read_bvh(write_people(path, 100 * truth, NAMES[rig]))
    found = bvh_to_h36m17(motion, scale=0.01)
    assert np.abs(found - truth).max() < 1e-3 and not is_cgspeed(motion)


def test_clavicles_are_not_shoulders(path: Path) -> None:
    write_people(path, walk_m(3))
    path.write_text(path.read_text().replace("ROOT Hips", "ROOT LeftShoulder"))
    np.testing.assert_allclose(bvh_to_h36m17(read_bvh(path)), walk_m(3), atol=1e-3)


def test_a_head_bone_to_the_crown_is_cut(path: Path) -> None:
    tall = walk_m(3)
    neck, head = tall[:, H36M17.index("neck")].copy(), H36M17.index("head")
    tall[:, head] = neck + 2 * (tall[:, head] - neck)
    found = bvh_to_h36m17(read_bvh(write_people(path, tall)))
    assert np.linalg.norm(found[:, head] - neck, axis=-1) == pytest.approx(0.115)


def test_a_head_without_an_end_goes_on(path: Path) -> None:
    write_people(path, walk_m(3), lambda name: name.replace("HeadTop_End", "LeftEye"))
    found = bvh_to_h36m17(read_bvh(path))
    spine, neck, head = (found[:, H36M17.index(joint)] for joint in ("spine", "neck", "head"))
    along = (neck - spine) / np.linalg.norm(neck - spine, axis=-1, keepdims=True)
    np.testing.assert_allclose(head - neck, 0.115 * along, atol=1e-6)


# Offsets of a conversion in cgspeed's way (names and zeros as theirs, numbers round), in units of 0.05644 m.
CGSPEED: Tree = [
    ("Hips", -1, (0, 0, 0)),
    *[
        (name, parent, offset)
        for at, letter, side, sign in ((1, "L", "Left", 1), (6, "R", "Right", -1))
        for name, parent, offset in (
            (f"{letter}HipJoint", 0, (0, 0, 0)),
            (f"{side}UpLeg", at, (1.6 * sign, -1.8, 0.6)),
            (f"{side}Leg", at + 1, (2.5 * sign, -7, 0)),
            (f"{side}Foot", at + 2, (2.5 * sign, -7, 0)),
            ("End Site", at + 3, (0, -0.5, 2)),
        )
    ],
    ("LowerBack", 0, (0, 0, 0)),
    ("Spine", 11, (0, 2, -0.2)),
    ("Spine1", 12, (0, 2, 0)),
    ("Neck", 13, (0, 0, 0)),
    ("Neck1", 14, (0, 1.6, 0)),
    ("Head", 15, (0, 1.6, 0)),
    ("End Site", 16, (0, 1.6, 0)),
    *[
        (name, parent, offset)
        for at, side, sign in ((18, "Left", 1), (23, "Right", -1))
        for name, parent, offset in (
            (f"{side}Shoulder", 13, (0, 0, 0)),
            (f"{side}Arm", at, (3 * sign, 1, 0)),
            (f"{side}ForeArm", at + 1, (5 * sign, 0, 0)),
            (f"{side}Hand", at + 2, (3.5 * sign, 0, 0)),
            (f"{side}FingerBase", at + 3, (0, 0, 0)),
        )
    ],
]
UNIT_M = 0.05644


def write_cgspeed(path: Path, tree: Tree = CGSPEED) -> Path:
    rows = np.random.default_rng(3).uniform(-30, 30, (6, 6 + 3 * sum(name != "End Site" for name, _, _ in tree[1:])))
    rows[0] = 0
    return write(path, tree, rows, rotating("ZYX"))


def test_cgspeeds_lost_bones_come_back(path: Path) -> None:
    motion = read_bvh(write_cgspeed(path))
    assert is_cgspeed(motion)
    raw = {name: UNIT_M * motion.positions[1:, j] for j, name in enumerate(motion.joints)}
    thorax = UNIT_M * 1.007 * 2 * motion.rotations[1:, motion.joints.index("Spine1")] @ [0, 1, 0]
    found = dict(zip(H36M17.joints, np.moveaxis(bvh_to_h36m17(motion, UNIT_M), 1, 0), strict=True))
    for joint, name in (("left_knee", "LeftLeg"), ("right_ankle", "RightFoot"), ("spine", "Spine")):
        np.testing.assert_allclose(found[joint], raw[name], err_msg=joint)
    for joint, name in (("left_shoulder", "LeftArm"), ("right_elbow", "RightForeArm"), ("neck", "Head")):
        np.testing.assert_allclose(found[joint], raw[name] + thorax, err_msg=joint)
    np.testing.assert_allclose(found["head"], raw["Head end"] + thorax)
    hand = raw["LeftForeArm"] + 1.5 * (raw["LeftHand"] - raw["LeftForeArm"])
    np.testing.assert_allclose(found["left_wrist"], hand + thorax)
    assert len(found["neck"]) == 5, "the T-pose is gone"


def test_a_mended_cgspeed_file_is_left_alone(path: Path) -> None:
    mended = [(n, p, (0, 2, 0) if n in {"Neck", "LeftShoulder", "RightShoulder"} else o) for n, p, o in CGSPEED]
    motion = read_bvh(write_cgspeed(path, mended))
    assert not is_cgspeed(motion) and len(bvh_to_h36m17(motion, UNIT_M)) == 6


def test_cgspeed_needs_a_second_frame(path: Path) -> None:
    write(path, CGSPEED, read_rows(write_cgspeed(path))[:1], rotating("ZYX"))
    with pytest.raises(InputError, match="T-pose"):
        bvh_to_h36m17(read_bvh(path), UNIT_M)


def read_rows(path: Path) -> np.ndarray:
    return np.array([line.split() for line in path.read_text().partition("Frame Time:")[2].splitlines()[1:]], float)


@pytest.mark.parametrize(("unit", "factor"), [(100, "0.01"), (1000, "0.001"), (39.37, "0.0254")])
def test_units_are_not_guessed(unit: float, factor: str, path: Path) -> None:
    motion = read_bvh(write_people(path, unit * walk_m(3)))
    with pytest.raises(InputError, match="shins are") as caught:
        bvh_to_h36m17(motion)
    assert f"about {factor}" in caught.value.hint
    np.testing.assert_allclose(bvh_to_h36m17(motion, float(factor)), walk_m(3), atol=1e-3)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_scale_is_refused(scale: float, path: Path) -> None:
    with pytest.raises(InputError, match="scale"):
        bvh_to_h36m17(read_bvh(write_people(path, walk_m(2))), scale)


def test_a_missing_joint_names_the_nearest(path: Path) -> None:
    write_people(path, walk_m(2), lambda name: {"LeftLeg": "LeftLegg", "Head": "Skull"}.get(name, name))
    with pytest.raises(InputError, match=r"like left_knee; nearest: LeftLegg, LeftUpLeg") as caught:
        bvh_to_h36m17(read_bvh(path))
    assert "'leftleg'" in caught.value.hint and str(path) in str(caught.value)


def test_a_bone_without_length_names_the_frame(path: Path) -> None:
    pose = walk_m(4)
    pose[2, H36M17.index("left_wrist")] = pose[2, H36M17.index("left_elbow")]
    with pytest.raises(InputError, match="left_elbow and left_wrist are one point in frame 2"):
        bvh_to_h36m17(read_bvh(write_people(path, pose)))


GOOD = "\n".join(
    (
        *("HIERARCHY", "ROOT Hips", "{", "OFFSET 0 0 0", "CHANNELS 3 Zrotation Xrotation Yrotation"),
        *("JOINT Knee", "{", "OFFSET 0 1 0", "CHANNELS 1 Xrotation", "End Site", "{", "OFFSET 0 1 0", "}", "}", "}"),
        *("MOTION", "Frames: 2", "Frame Time: 0.04", "1 2 3 4", "5 6 7 8"),
    )
)


def chain(joints: int) -> str:
    """So many joints, one below the other, and one frame."""
    below = "".join("JOINT a\n{\nOFFSET 0 1 0\nCHANNELS 1 Xrotation\n" for _ in range(joints - 1))
    root = "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\nCHANNELS 1 Xrotation\n"
    return f"{root}{below}{'}' * joints}\nMOTION\nFrames: 1\nFrame Time: 0.04\n{'1 ' * joints}\n"


BOUNDED = {
    "20,000 joints": (chain(20_000), "more than 1000 joints"),
    "a name of 100,000 letters": (GOOD.replace("Knee", "K" * 100_000), "line 6: a name of 100000 letters"),
    "Frames of 5,000 digits": (GOOD.replace("Frames: 2", f"Frames: {'9' * 5000}"), "line 17: Frames: 999"),
    "CHANNELS of 5,000 digits": (GOOD.replace("CHANNELS 3", f"CHANNELS {'9' * 5000}"), "line 5: CHANNELS"),
    "more frames than memory": (GOOD.replace("Frames: 2", "Frames: 99999999"), "line 17: Frames: 99999999"),
    "a time of 5,000 digits": (GOOD.replace("0.04", f"0.{'4' * 5000}"), "line 18: Frame Time: 0.444"),
    "a time of nothing": (GOOD.replace("0.04", "5e-324"), "line 18: Frame Time: 5e-324"),
    "a time of an age": (GOOD.replace("0.04", "1e8"), "line 18: Frame Time: 1e8"),
    "an offset beyond any unit": (GOOD.replace("OFFSET 0 1 0", "OFFSET 0 1e308 0"), "line 8: a value is beyond"),
    "a position beyond any unit": (GOOD.replace("5 6 7 8", "5 6 7 1e200"), "line 20: a value is beyond"),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_what_no_capture_has_is_refused_in_one_line(name: str, path: Path) -> None:
    text, message = BOUNDED[name]
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_bvh(path)
    assert message in str(caught.value) and len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_spacing_braces_and_case_do_not_matter(path: Path) -> None:
    path.write_text(GOOD)
    plain = read_bvh(path)
    other = GOOD.replace("\n{", " {").replace("Frames:", "FRAMES:\t").replace("HIERARCHY", "Hierarchy ")
    path.write_bytes(b"\xef\xbb\xbf" + other.replace("\n", "\r\n\r\n").encode())
    np.testing.assert_array_equal(read_bvh(path).positions, plain.positions)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HIERARCHY", "{}", "line 1: a BVH file begins with HIERARCHY"),
        (GOOD, "", "expected HIERARCHY"),
        ("ROOT", "JOINT", "line 2: JOINT 'Hips': one ROOT"),
        ("JOINT Knee", "ROOT Knee", "line 6: ROOT 'Knee': one ROOT"),
        ("Hips\n{", "Hips\n", "line 4: expected { after 'Hips'"),
        ("OFFSET 0 1 0\nCHANNELS", "CHANNELS", "line 13: 'Knee' has no OFFSET"),
        ("OFFSET 0 0 0", "OFFSET 0 0", "line 4: expected 3 numbers, got 2"),
        ("OFFSET 0 0 0", "OFFSET 0 x 0", "line 4: could not convert"),
        ("OFFSET 0 0 0", "OFFSET 0 nan 0", "line 4: a value is not finite"),
        ("CHANNELS 1", "CHANNELS 2", "line 9: CHANNELS"),
        ("CHANNELS 1 Xrotation", "CHANNELS", "line 9: CHANNELS"),
        ("CHANNELS 1 Xrotation", "CHANNELS 1 Wrotation", "line 9: CHANNELS"),
        ("CHANNELS 3 Zrotation", "CHANNELS 3 Xrotation", "line 5: a channel is there twice"),
        ("End Site", "SCALE 3", "line 10: 'SCALE 3' is out of place"),
        ("}\nMOTION", "MOTION", "line 15: MOTION before 'Hips' is closed"),
        ("MOTION", "}\nMOTION", "line 16: '}' is out of place"),
        ("MOTION", "ROOT Other\n{\n", "line 16: ROOT 'Other': one ROOT"),
        (GOOD[9 : GOOD.index("MOTION")], "\n", "line 2: no joint before MOTION"),
        (GOOD[GOOD.index("MOTION") :], "", "line 15: the file ends here, expected MOTION"),
        (GOOD[GOOD.index("Frame Time") :], "", "expected Frame Time:"),
        ("Frames: 2", "Frame Time: 1", "line 17: expected 'Frames:'"),
        ("Frames: 2", "Frames: 0", "line 17: Frames: 0: there must be one"),
        ("Frames: 2", "Frames: -2", "line 17: Frames: -2"),
        ("Frames: 2", "Frames: 3", "the file ends after 2 of 3 frames"),
        ("Frames: 2", "Frames: 1", "line 20: more rows than the 1 frames"),
        ("Time: 0.04", "Time: 0", "line 18: Frame Time: 0: must be above zero"),
        ("Time: 0.04", "Time:", "line 18: expected 1 numbers, got 0"),
        ("5 6 7 8", "5 6 7", "line 20: expected 4 numbers, got 3"),
        ("1 2 3 4", "1 2 3 4 5", "line 19: expected 4 numbers, got 5"),
        ("5 6 7 8", "5 6 7 NaN", "line 20: a value is not finite"),
        ("5 6 7 8", "5 6 7 1e999", "line 20: a value is not finite"),
        ("5 6 7 8", "5 6 7 8x", "line 20: could not convert"),
        ("\n5 6 7 8", "", "the file ends after 1 of 2 frames"),
    ],
)
def test_a_broken_file_names_its_line(old: str, new: str, message: str, path: Path) -> None:
    assert GOOD.count(old) >= 1
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_bvh(path)
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.hint


@settings(max_examples=150, deadline=None)
@given(start=st.integers(0, len(GOOD)), length=st.integers(0, 40), noise=st.binary(max_size=8))
def test_damage_is_an_input_error_or_harmless(
    start: int, length: int, noise: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.bvh"
    path.write_bytes(GOOD[:start].encode() + noise + GOOD[start + length :].encode())
    try:
        assert isinstance(read_bvh(path), Motion)
    except InputError as error:
        assert str(path) in str(error)


def test_a_folder_is_a_source(tmp_path: Path) -> None:
    write_people(tmp_path / "b" / "13_02_jump.BVH", 100 * walk_m(4))
    write_people(tmp_path / "a" / "131_01.bvh", 100 * walk_m(6))
    (tmp_path / "readme.txt").write_text("not motion")
    data = load_bvh_folder(tmp_path, 0.01)
    assert list(data["seq_subject"]) == ["131", "13"] and list(data["seq_name"]) == ["131_01", "13_02_jump"]
    assert list(data["seq_id"]) == [0] * 6 + [1] * 4 and list(data["seq_start"]) == [0, 6]
    assert data["valid"].all() and data["positions"].dtype == np.float32 and (data["seq_fps"] == 30).all()
    np.testing.assert_allclose(data["positions"][:6], walk_m(6), atol=1e-3)


def test_bad_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        load_bvh_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no \.bvh"):
        load_bvh_folder(tmp_path)
    write_people(tmp_path / "a_1.bvh", walk_m(2))
    write_people(tmp_path / "b_1.bvh", walk_m(2), frame_s="0.0083333")
    with pytest.raises(InputError, match=r"b_1\.bvh: 120 frames a second, a_1\.bvh has 30"):
        load_bvh_folder(tmp_path)
    write_people(tmp_path / "b_1.bvh", 100 * walk_m(2))
    with pytest.raises(InputError, match=r"b_1\.bvh: shins are 42"):
        load_bvh_folder(tmp_path)
    with pytest.raises(InputError, match=r"cannot be read"):
        read_bvh(tmp_path)
