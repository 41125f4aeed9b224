import numpy as np
import pytest

from poseda_deploy.errors import InputError
from poseda_deploy.skeleton import (
    BONE_FROM_JOINT,
    BONES,
    COCO17,
    DERIVED,
    GROUP_FROM_LENGTH,
    H36M17,
    JOINT_FROM_BONE,
    LENGTH_FROM_GROUP,
    MEDIAPIPE33,
    SKELETONS,
    Skeleton,
    skeleton_named,
    to_h36m17,
)

every_skeleton = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=list(SKELETONS))


@every_skeleton
def test_joint_count_is_in_the_name(skeleton: Skeleton) -> None:
    assert len(skeleton.joints) == len(skeleton.parents) == int(skeleton.name[-2:])
    assert len(set(skeleton.joints)) == len(skeleton.joints)


@every_skeleton
def test_mirroring_twice_is_nothing(skeleton: Skeleton) -> None:
    mirror = skeleton.mirror
    assert [mirror[mirror[j]] for j in range(len(mirror))] == list(range(len(mirror)))
    assert sum(mirror[j] != j for j in range(len(mirror))) % 2 == 0


@every_skeleton
def test_remapping_carries_each_joint_with_its_own_score(skeleton: Skeleton) -> None:
    random = np.random.default_rng(0)
    joints = len(skeleton.joints)
    xy_px, score = random.uniform(0, 1000, (5, joints, 2)), random.uniform(0.1, 1, (5, joints))
    xy, out_score = to_h36m17(xy_px, score, skeleton)
    for j, joint in enumerate(H36M17.joints):
        if joint in skeleton.joints and joint not in DERIVED:
            if not (skeleton.hips_low and "hip" in joint):
                np.testing.assert_allclose(xy[:, j], xy_px[:, skeleton.index(joint)], rtol=1e-6)
            np.testing.assert_allclose(out_score[:, j], score[:, skeleton.index(joint)], rtol=1e-6)


@every_skeleton
def test_a_missing_joint_takes_only_what_is_derived_from_it(skeleton: Skeleton) -> None:
    joints = len(skeleton.joints)
    score = np.ones((1, joints))
    score[0, skeleton.index("left_hip")] = 0
    _, out = to_h36m17(np.ones((1, joints, 2)), score, skeleton)
    full = to_h36m17(np.ones((1, joints, 2)), np.ones((1, joints)), skeleton)[1]
    gone = {H36M17.joints[j] for j in np.flatnonzero(full[0] != out[0])}
    assert gone == ({"left_hip"} if skeleton == H36M17 else {"left_hip", "pelvis"})


def test_derived_joints_are_the_middle_with_the_lower_score() -> None:
    xy_px, score = np.zeros((1, 17, 2)), np.ones((1, 17))
    left, right = COCO17.index("left_hip"), COCO17.index("right_hip")
    xy_px[0, left], xy_px[0, right] = (100, 200), (300, 240)
    score[0, left] = 0.3
    xy, out = to_h36m17(xy_px, score, COCO17)
    np.testing.assert_allclose(xy[0, H36M17.index("pelvis")], (200, 220))
    assert out[0, H36M17.index("pelvis")] == pytest.approx(0.3)


def test_mediapipe_hips_are_raised_along_the_trunk() -> None:
    xy_px, score = np.zeros((2, 33, 2)), np.ones((2, 33))
    xy_px[:, [MEDIAPIPE33.index("left_hip"), MEDIAPIPE33.index("right_hip")]] = (0, 100)
    score[1, MEDIAPIPE33.index("left_shoulder")] = 0
    xy, _ = to_h36m17(xy_px, score, MEDIAPIPE33)
    for joint in ("left_hip", "right_hip", "pelvis"):
        np.testing.assert_allclose(xy[:, H36M17.index(joint)], [(0, 96), (0, 100)], rtol=1e-6)


def test_detectors_leave_spine_and_neck_missing() -> None:
    _, score = to_h36m17(np.ones((1, 33, 2)), np.ones((1, 33)), MEDIAPIPE33)
    assert {H36M17.joints[j] for j in np.flatnonzero(score[0] == 0)} == {"spine", "neck"}


def test_unknown_skeleton_lists_the_known() -> None:
    with pytest.raises(InputError, match="unknown skeleton 'body25'") as caught:
        skeleton_named("body25")
    assert "h36m17" in caught.value.hint


def test_bone_matrices_undo_each_other() -> None:
    pose = np.random.default_rng(1).normal(size=(17, 3))
    pose -= pose[0]
    np.testing.assert_allclose(JOINT_FROM_BONE @ (BONE_FROM_JOINT @ pose), pose, atol=1e-6)


def test_parents_come_before_children() -> None:
    placed = {H36M17.index("pelvis")}
    for bone in BONES:
        assert bone.parent in placed
        placed.add(bone.child)
    assert placed == set(range(17))


def test_group_lengths_survive_a_round_trip() -> None:
    groups = np.random.default_rng(2).uniform(0.1, 0.5, 9)
    np.testing.assert_allclose(GROUP_FROM_LENGTH @ (LENGTH_FROM_GROUP @ groups), groups, rtol=1e-6)
