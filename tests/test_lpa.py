from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from people import looking_down, walk_m
from torch import Generator, Tensor, nn

from poseda_deploy.errors import InputError
from poseda_deploy.skeleton import BONES, H36M17
from poseda_deploy.train.discriminators import ImageJudge, PoseJudge, ReplayPool, figure
from poseda_deploy.train.gpa import TargetFrames
from poseda_deploy.train.lpa import AdversarialLpa, LpaConfig, outside
from poseda_deploy.train.pose_generator import BONE_ENDS, KEPT_BONES, NOISE, Augmented, PoseGenerator
from poseda_deploy.train.views import rotate

ROOT_M = torch.tensor([0.3, 0.1, 4.0])
N = 60


def placed(pose: Tensor) -> Tensor:
    """Rays of people who all stand at one place."""
    at = pose + ROOT_M
    return at[..., :2] / at[..., 2:]


@pytest.fixture(scope="module")
def walkers() -> Tensor:
    """(60,17,3) relative to the pelvis, camera axes, the neck half-way to the head as the generator puts it."""
    rotation, _ = looking_down(0.3)
    pose = torch.from_numpy(walk_m(N) @ rotation.T).float()
    neck, thorax, head = map(H36M17.index, ("neck", "thorax", "head"))
    pose[:, neck] = (pose[:, thorax] + pose[:, head]) / 2
    return pose - pose[:, :1]


@pytest.fixture(scope="module")
def target(walkers: Tensor) -> TargetFrames:
    return TargetFrames(placed(walkers.flip(0)), torch.ones(N, 17, dtype=torch.bool))


def game(seed: int = 0, **config: Any) -> AdversarialLpa:
    return AdversarialLpa(LpaConfig(pool=128, **config), seed)


def played(walkers: Tensor, target: TargetFrames, updates: int, **config: Any) -> AdversarialLpa:
    lpa = game(**config)
    for _ in range(updates):
        lpa.update(walkers, placed, target)
    return lpa


@pytest.fixture(scope="module")
def practised(walkers: Tensor, target: TargetFrames) -> AdversarialLpa:
    """A game that goes well; tests take a copy."""
    return played(walkers, target, 15)


def generated(walkers: Tensor, rotation_rad: float) -> Augmented:
    torch.manual_seed(0)
    generator = PoseGenerator(rotation_rad)
    noise = torch.randn(3, N, NOISE, generator=Generator().manual_seed(1))
    with torch.no_grad():
        return generator(walkers, noise)


def bone_m(pose: Tensor) -> Tensor:
    """The 15 bone vectors, computed joint by joint."""
    return torch.stack([pose[:, BONES[i].child] - pose[:, BONES[i].parent] for i in KEPT_BONES], 1)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: PoseGenerator(0.35).angles, 302_125),
        (lambda: PoseGenerator(0.35).lengths, 296_713),
        (lambda: PoseGenerator(0.35), 302_125 + 296_713 + 582_662 // 2),
        (lambda: PoseGenerator(0.0), 302_125 + 296_713),
        (lambda: PoseJudge(), 1_076_205),
        (lambda: ImageJudge(), 43_801),
    ],
)
def test_networks_have_the_sizes_of_poseaug(build: Callable[[], nn.Module], count: int) -> None:
    assert len(weights(build())) == count


def test_bones_turn_and_stretch_as_they_are_said_to(walkers: Tensor) -> None:
    made = generated(walkers, 0.0)
    before, after = bone_m(walkers), bone_m(made.pose)
    cos = torch.cosine_similarity(before, after, dim=-1)
    torch.testing.assert_close(1 - cos, made.turn, atol=1e-5, rtol=0)
    group = torch.tensor([BONES[i].group for i in KEPT_BONES])
    torch.testing.assert_close(after.norm(dim=-1) / before.norm(dim=-1), 1 + made.stretch[:, group])
    assert made.stretch.abs().max() <= 0.2 and made.turn.mean() > 0.01
    trunk = [BONE_ENDS.index("spine"), BONE_ENDS.index("thorax")]
    assert made.turn[:, trunk].abs().max() < 1e-5, "the trunk is not turned"
    assert made.stretch[:, group[trunk[1]]].abs().max() == 0, "nor its upper half stretched"


def test_pelvis_stays_and_the_neck_goes_with_the_head(walkers: Tensor) -> None:
    pose = generated(walkers, 0.35).pose
    neck, thorax, head = (pose[:, H36M17.index(joint)] for joint in ("neck", "thorax", "head"))
    assert pose[:, 0].abs().max() == 0
    torch.testing.assert_close(neck, (thorax + head) / 2)


def test_the_body_turns_as_a_whole(walkers: Tensor) -> None:
    still, turned = generated(walkers, 0.0), generated(walkers, 0.35)
    torch.testing.assert_close(torch.cdist(turned.pose, turned.pose), torch.cdist(still.pose, still.pose))
    cos = torch.cosine_similarity(bone_m(still.pose), bone_m(turned.pose), dim=-1)
    assert cos.min() < 0.9999 and cos.min() > torch.tensor(3**0.5 * 0.35).cos()
    torch.testing.assert_close(turned.bone, still.bone)


def test_the_3d_judge_knows_neither_orientation_nor_size(walkers: Tensor) -> None:
    judge, generator = PoseJudge(), PoseGenerator(0.0)
    turned = rotate(walkers, torch.tensor([0.3, 2.0, -0.4]).expand(N, 17, 3)) * 0.7
    bones = [generator.bones(pose) for pose in (walkers, turned)]
    torch.testing.assert_close(judge(bones[0]), judge(bones[1]), atol=5e-3, rtol=0)


def test_each_part_has_its_own_judge(walkers: Tensor) -> None:
    judge, generator = PoseJudge(), PoseGenerator(0.0)
    waving = walkers.clone()
    waving[:, H36M17.index("left_wrist")] += torch.tensor([0.0, -0.4, 0.1])
    moved = (judge(generator.bones(waving)) - judge(generator.bones(walkers))).abs().amax(0)
    right_arm, left_arm, right_leg, left_leg, torso = moved.tolist()
    assert left_arm > 1e-3 and max(right_arm, right_leg, left_leg, torso) == 0


def test_the_2d_judge_knows_neither_place_nor_size(target: TargetFrames) -> None:
    moved = 0.6 * target.ray + torch.tensor([0.2, -0.3])
    torch.testing.assert_close(figure(moved, target.seen), figure(target.ray, target.seen))
    assert figure(target.ray, target.seen).square().sum(1).mean() == pytest.approx(16, rel=0.1)


def test_missing_joints_are_not_judged(target: TargetFrames) -> None:
    seen = target.seen.clone()
    seen[:, [0, H36M17.index("left_wrist")]] = False
    anywhere = torch.where(seen[..., None], target.ray, torch.rand(N, 17, 2))
    torch.testing.assert_close(figure(anywhere, seen), figure(target.ray, seen))
    assert (figure(target.ray, seen) == 0).sum() == N * 2 * 2


def test_the_pool_gives_back_old_samples() -> None:
    pool, random = ReplayPool(100), Generator().manual_seed(0)
    for step in range(2):
        made = torch.full((50, 3), float(step))
        assert pool.swap(made, random) is made
    out = torch.cat([pool.swap(torch.full((50, 3), 2.0), random) for _ in range(4)])
    share = [float((out[:, 0] == step).float().mean()) for step in range(3)]
    assert min(share[:2]) > 0.1 and 0.4 < share[2] < 0.9 and sum(share) == pytest.approx(1)
    assert len(pool.kept) == 100 and (pool.kept == 2).all(1).any()


def test_a_pool_smaller_than_a_step_is_an_error() -> None:
    with pytest.raises(InputError, match="50 samples a step, the pool holds 20"):
        ReplayPool(20).swap(torch.zeros(50, 3), Generator())


def test_nothing_is_lost_inside_the_free_zone() -> None:
    values = torch.tensor([0.205, 0.04, 0.37, 0.01, 0.405])
    assert float(outside(values[:3], 0.205, 0.1651)) == 0
    assert float(outside(values, 0.205, 0.1651)) == pytest.approx((0.195**2 + 0.2**2) / 5)


def test_the_free_zone_is_learnt(walkers: Tensor, target: TargetFrames) -> None:
    lpa = game(learning_rate=1e-3, image_weight=0.0, pose_weight=0.0, turn=(0.03, 0.02))
    turns = [lpa.update(walkers, placed, target).turn for _ in range(15)]
    assert turns[0] > 0.06 > 0.05 > turns[-1] > 0.01


def test_judges_learn_and_the_generator_does_not_where_it_is_asked_for_nothing(
    walkers: Tensor, target: TargetFrames
) -> None:
    lpa = game(learning_rate=2e-3, image_weight=0.0, pose_weight=0.0, range_weight=0.0)
    before = weights(lpa.generator)
    losses = [lpa.update(walkers, placed, target) for _ in range(15)]
    torch.testing.assert_close(weights(lpa.generator), before, atol=0, rtol=0)
    for first, last in ((losses[0].pose_judge, losses[-1].pose_judge), (losses[0].image_judge, losses[-1].image_judge)):
        assert first > 0.4 > 0.18 > last, "below the 0.25 of a judge that cannot tell"


def test_the_generator_learns_to_pass(walkers: Tensor, target: TargetFrames) -> None:
    lpa = game(learning_rate=1e-3)
    losses = [lpa.update(walkers, placed, target) for _ in range(15)]
    assert losses[0].pose > 0.3 > 0.25 > sum(loss.pose for loss in losses[-5:]) / 5


def test_same_seed_same_course(walkers: Tensor, target: TargetFrames) -> None:
    torch.manual_seed(0)
    first = played(walkers, target, 4)
    torch.rand(5)
    again, other = played(walkers, target, 4), AdversarialLpa(first.config, 1)
    assert first.recent == again.recent
    torch.testing.assert_close(first.augment(walkers), again.augment(walkers), atol=0, rtol=0)
    assert (weights(other.networks) != weights(game().networks)).any()


def test_nobody_depends_on_who_else_is_augmented(walkers: Tensor, target: TargetFrames) -> None:
    lpa = played(walkers, target, 2)
    lpa.generator.eval()
    noise = torch.randn(3, N, NOISE)
    with torch.no_grad():
        whole, half = lpa.generator(walkers, noise), lpa.generator(walkers[:30], noise[:, :30])
    torch.testing.assert_close(whole.pose[:30], half.pose, atol=5e-3, rtol=0)
    assert (lpa.augment(walkers) - walkers).norm(dim=-1).mean() > 0.001


def test_bones_without_length_stay_without(walkers: Tensor, target: TargetFrames) -> None:
    folded = walkers.clone()
    folded[:, H36M17.index("left_wrist")] = folded[:, H36M17.index("left_elbow")]
    lpa = game()
    for _ in range(2):
        lpa.update(folded, placed, target)
    assert lpa.finite and torch.isfinite(weights(lpa.networks)).all()
    forearm = bone_m(lpa.augment(folded))[:, BONE_ENDS.index("left_wrist")]
    assert forearm.abs().max() < 1e-6


def test_a_healthy_game_is_not_called_lost(walkers: Tensor, practised: AdversarialLpa) -> None:
    assert deepcopy(practised).collapse(walkers) is None


def test_collapsed_onto_one_posture(walkers: Tensor, practised: AdversarialLpa) -> None:
    lpa = deepcopy(practised)
    head = lpa.generator.angles[-1]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.mul_(1e4)
    assert "made poses are alike" in (lpa.collapse(walkers) or "")


def test_collapsed_onto_one_answer_for_each_pose(walkers: Tensor, practised: AdversarialLpa) -> None:
    lpa = deepcopy(practised)
    with torch.no_grad():
        lpa.generator.angles[0].weight[:, 48:] = 0
    assert "noise changes nothing" in (lpa.collapse(walkers) or "")


def test_a_judge_that_always_knows_ends_the_game(walkers: Tensor, practised: AdversarialLpa) -> None:
    lpa = deepcopy(practised)
    assert lpa.recent
    lpa.recent = replace(lpa.recent, pose_judge=0.004)
    assert "the 3D judge knows every made pose (loss 0.004" in (lpa.collapse(walkers) or "")


def test_numbers_that_are_not_finite_move_nothing_and_end_the_game(walkers: Tensor, target: TargetFrames) -> None:
    lpa = played(walkers, target, 2)
    before = weights(lpa.generator)
    lpa.update(walkers, lambda pose: placed(pose) / 0 * 0, target)
    assert lpa.collapse(walkers) == "a gradient was not finite"
    torch.testing.assert_close(weights(lpa.generator), before, atol=0, rtol=0)
    assert torch.isfinite(weights(lpa.networks)).all()


@pytest.mark.parametrize("wrong", [{"learning_rate": 0.0}, {"pool": 0}, {"rotation_rad": -0.1}])
def test_impossible_configs_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="impossible augmentation"):
        LpaConfig(**wrong)
