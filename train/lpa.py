"""Adversarial local pose augmentation: a generator changes source poses, two judges keep them human and to the target.

PoseDA (Chai et al., ICCV 2023) names the two sides and publishes neither; losses and weights are those of its parent
PoseAug (Gong, Zhang, Feng, CVPR 2021). Poses everywhere: relative to the pelvis, metres, camera axes.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from poseda_deploy.errors import InputError

from .discriminators import ImageJudge, PoseJudge, ReplayPool, cosines, figure
from .gpa import TargetFrames
from .pose_generator import NOISE, Augmented, PoseGenerator

Place = Callable[[Tensor], Tensor]
"""Poses (n,17,3) to rays x/z, y/z (n,17,2) where the target's people are; may add its detector's noise."""

# A game is lost where made postures keep less than ALIKE of the variety of the source's (0.72 to 1.04 in games that
# went well), where the draws for one pose show less than DEAF of it (0.10 to 0.46), or where the 3D judge's loss has
# fallen to SEPARATED. The 2D judge may always win: a detector's noise can give the target's figures away.
ALIKE = 0.5
DEAF = 0.02
SEPARATED = 0.01
DRAWS = 8


@dataclass(frozen=True)
class LpaConfig:
    """How much is changed, and how the two sides are weighed."""

    learning_rate: float = 3e-4
    """Adam's, of both sides. PoseAug's 1e-4 is for 50 epochs; here some hundred updates must do."""
    image_weight: float = 1.0
    """Of the 2D judge's verdict in the generator's loss."""
    pose_weight: float = 6.0
    """Of the 3D judge's."""
    range_weight: float = 3.0
    """Of leaving the free zones of `turn` and `stretch`."""
    turn: tuple[float, float] = (0.205, 0.165)
    """Middle and half width of the free zone of a body's mean 1 - cos(turn of a bone)."""
    stretch: float = 0.1
    """Relative change of a bone's length that is free."""
    rotation_rad: float = 0.35
    """Largest turn of the body about each camera axis; 0: none. Yaw is drawn elsewhere."""
    pool: int = 4096
    """Made samples that the judges are reminded of."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1 or self.pool < 1 or self.rotation_rad < 0:
            raise InputError(
                f"impossible augmentation: {self}", hint="learning_rate in 0..1, pool >= 1, rotation_rad >= 0"
            )


@dataclass(frozen=True)
class LpaLosses:
    """Of one update, before weighting; or running means of them."""

    image: float
    """Generator: 0 where all made figures pass for the target's, 1/8 where the judge cannot tell, 1/2 where none do."""
    pose: float
    """The same of made poses and the source's."""
    range: float
    """0 inside the free zones of turn and stretch."""
    image_judge: float
    """Judge: 1/4 where it cannot tell, 0 where it always can."""
    pose_judge: float
    turn: float
    """Mean 1 - cos of the turns of the bones."""

    def followed(self, latest: "LpaLosses", share: float) -> "LpaLosses":
        """The running mean after a step of that share towards the latest."""
        pairs = zip(astuple(self), astuple(latest), strict=True)
        return LpaLosses(*(old + share * (new - old) for old, new in pairs))


class AdversarialLpa:
    """Both sides of the game and all they remember; the same seed gives the same course on one machine."""

    def __init__(self, config: LpaConfig, seed: int, device: str = "cpu") -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = PoseGenerator(config.rotation_rad).to(device)
            self.pose_judge = PoseJudge().to(device)
            self.image_judge = ImageJudge().to(device)
        self.networks = nn.ModuleList([self.generator, self.pose_judge, self.image_judge])
        self.adam = torch.optim.Adam(self.networks.parameters(), lr=config.learning_rate, fused=True)
        self.pose_pool, self.image_pool = ReplayPool(config.pool), ReplayPool(config.pool)
        self.random = Generator(device).manual_seed(seed)
        self.recent: LpaLosses | None = None
        """Running means of the losses; none before the first update."""
        self.finite = True
        """Whether every gradient so far was."""

    @torch.no_grad()
    def augment(self, pose: Float[Tensor, "n 17 3"]) -> Float[Tensor, "n 17 3"]:
        """Poses to train on; what is made of one does not depend on the others."""
        self.generator.eval()
        return self.made_of(pose).pose

    def made_of(self, pose: Float[Tensor, "n 17 3"]) -> Augmented:
        """One made pose of each, with fresh noise."""
        return self.generator(pose, torch.randn(3, len(pose), NOISE, generator=self.random, device=pose.device))

    def update(self, pose: Float[Tensor, "n 17 3"], place: Place, target: TargetFrames) -> LpaLosses:
        """A step of the generator, then one of each judge.

        `target` are the n frames that `place` puts the poses on, so that figures made and real miss the same joints.
        PoseAug also asks for poses that are hard for the lifter: 44 and 91 mm instead of 47 and 84 on two targets, and
        three times as long, so that is left out.
        """
        config = self.config
        self.generator.train()
        made = self.made_of(pose)
        made_ray = place(made.pose)
        real_figure, made_figure = figure(target.ray, target.seen), figure(made_ray, target.seen)

        image = not_passing(self.image_judge, made_figure)
        posture = not_passing(self.pose_judge, made.bone)
        bounds = outside(made.turn.mean(1), *config.turn) + outside(made.stretch, 0.0, config.stretch)
        wanted = config.image_weight * image + config.pose_weight * posture
        self._step(self.generator, wanted + config.range_weight * bounds)

        pose_judge = self._judge(self.pose_judge, self.pose_pool, self.generator.bones(pose), made.bone)
        image_judge = self._judge(self.image_judge, self.image_pool, real_figure, made_figure)
        scalars = (image, posture, bounds, image_judge, pose_judge, made.turn.mean())
        losses = LpaLosses(*(float(scalar.detach()) for scalar in scalars))
        self.recent = self.recent.followed(losses, 0.02) if self.recent else losses
        return losses

    def _judge(self, judge: nn.Module, pool: ReplayPool, real: Tensor, made: Tensor) -> Tensor:
        """A judge's step, old made samples among the new.

        PoseAug's judges take every second step: after 600 updates 1 to 6 % of made poses then broke a joint limit, and
        they lay twice as far from the source's as those from each other; with every step 0.6 to 1.2 %, 1.4 times.
        """
        loss = not_told_apart(judge, real, pool.swap(made.detach(), self.random))
        self._step(judge, loss)
        return loss

    def _step(self, network: nn.Module, loss: Tensor) -> None:
        """Adam with the gradient's norm clipped to 1; a gradient that is not finite moves nothing."""
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if nn.utils.clip_grad_norm_(network.parameters(), 1.0).isfinite():
            self.adam.step()  # the other networks have no gradient and stay
        else:
            self.finite = False

    @torch.no_grad()
    def collapse(self, pose: Float[Tensor, "n 17 3"]) -> str | None:
        """Why the game is lost, in words: another seed, or go on without. `pose`: some hundred source poses."""
        self.generator.eval()
        source = variety(self.generator.bones(pose))
        drawn = torch.stack([self.made_of(pose).bone for _ in range(DRAWS)])
        among_poses, among_draws = variety(drawn[0]) / source, variety(drawn) / source
        if not self.finite:
            return "a gradient was not finite"
        if self.recent and self.recent.pose_judge < SEPARATED:
            return f"the 3D judge knows every made pose (loss {self.recent.pose_judge:.3f}, fair is 0.25)"
        if not among_poses >= ALIKE:
            return f"made poses are alike ({among_poses:.2f} of the source's variety, expected {ALIKE:g} and more)"
        if not among_draws >= DEAF:
            return f"noise changes nothing ({among_draws:.3f} of the source's variety, expected {DEAF:g} and more)"
        return None


def variety(bone: Float[Tensor, "k *n 15 3"]) -> float:
    """Standard deviation, over the first axis, of the cosines between bones: 0.33 among source postures."""
    return float(cosines(bone).std(0).mean())


def not_passing(judge: nn.Module, made: Tensor) -> Tensor:
    """Least-squares GAN (Mao et al., ICCV 2017), the generator's side: made samples should score 1."""
    judge.requires_grad_(False)  # it learns nothing here, and a third of its backward pass is saved
    score = judge(made)
    judge.requires_grad_(True)
    return (score - 1).square().mean() / 2


def not_told_apart(judge: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """Least-squares GAN, the judge's side: real samples should score 1, made ones 0."""
    return ((judge(real) - 1).square().mean() + judge(made).square().mean()) / 2


def outside(value: Tensor, middle: float, half_width: float) -> Tensor:
    """PoseAug's range loss: squared distance from the middle of a zone, 0 inside it."""
    off = value - middle
    return (off.square() * (off.abs() > half_width)).mean()
