"""Views of source people as the target camera sees its own: its tilt, its people's sizes and places, its detector."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from poseda_deploy.calibrate import UP_ERROR_RAD
from poseda_deploy.errors import InputError

from .gpa import PELVIS, TargetFrames, place, place_paper, sound, spread, unlike
from .lpa import AdversarialLpa
from .target2d import Target2D
from .views import Views, ViewSampler, rotate, turn_to

WARM_UP, UPDATES, LEARNT = 300, 8, 512
"""Updates of an adversary before the first draw of views and before each other one, and poses of each update."""


@dataclass(frozen=True)
class TargetViewConfig:
    """How source people are put into the target camera."""

    gpa: Literal["plus", "paper"] = "plus"
    """`paper`: PoseDA's closed form on any target frame; `plus`: exact scale, on a frame of like posture."""
    candidates: int = 32
    """Source poses of which each target frame takes the likest; more draw the source's postures to the target's."""
    plain: float = 0.25
    """Share of views from anywhere, as in source training: what keeps the lifter from forgetting."""
    jitter: float = 0.05
    """Standard deviation of the size in the image, relative."""
    bone_error: float = 0.05
    """Relative error of the calibrated lengths, of each group and overall."""
    noise: float = 0.0
    """Standard deviation of the detector's error per axis, as a share of three times the person's rms radius."""

    def __post_init__(self) -> None:
        if self.candidates < 1 or not 0 <= self.plain < 1 or self.jitter < 0 or self.noise < 0:
            raise InputError(f"impossible target views: {self}", hint="candidates >= 1, plain in 0..1, jitter >= 0")


class TargetSampler:
    """Draws views like ViewSampler, most of them in the target's cameras; same seed, same views."""

    def __init__(
        self,
        source: ViewSampler,
        target: Sequence[Target2D],
        config: TargetViewConfig,
        lpa: AdversarialLpa | None = None,
    ) -> None:
        self.source, self.config, self.generator, self.lpa = source, config, source.generator, lpa
        self._untaught = WARM_UP if lpa else 0
        self.cameras = [TargetTensors.of(camera, source.pose_m.device) for camera in target]
        self._share = torch.tensor([float(len(camera.frames.ray)) for camera in self.cameras])

    def draw(self, n: int) -> Views:
        """n fresh views, in random order; an adversary learns a little before each draw."""
        for number in range(max(self._untaught, UPDATES) if self.lpa else 0):
            self._learn(self.cameras[number % len(self.cameras)])
        self._untaught = 0
        plain = int(n * self.config.plain)
        own = torch.round(self._share / self._share.sum() * (n - plain)).int().tolist()
        own[-1] = n - plain - sum(own[:-1])
        parts = [self.source.draw(plain)] if plain else []
        parts += [self.in_camera(camera, count) for camera, count in zip(self.cameras, own, strict=True) if count]
        order = torch.randperm(n, generator=self.generator, device=self.source.pose_m.device)
        return Views.joined(parts).at(order)

    def in_camera(self, camera: "TargetTensors", n: int) -> Views:
        """n views in one camera."""
        frame = torch.randint(len(camera.bones), (n,), generator=self.generator, device=camera.bones.device)
        return self._views(camera, frame, self._paired(camera, frame))

    def _paired(self, camera: "TargetTensors", frame: Int[Tensor, " n"]) -> Float[Tensor, "n 16 3"]:
        """For each frame the bone directions of a source person, the likest of some."""
        direction = self._seen_directions(camera, len(frame))
        if self.config.gpa == "paper" or self.config.candidates == 1:
            return direction
        pose = self.source.built(direction, camera.bones[frame])
        shape = (len(frame), self.config.candidates)
        choice = torch.randint(len(frame), shape, generator=self.generator, device=pose.device)
        likest = unlike(pose[choice], camera.frames.rows(frame)).argmin(1, keepdim=True)
        return direction[choice.gather(1, likest)[:, 0]]

    def _learn(self, camera: "TargetTensors") -> None:
        """One update of the adversarial augmentation on people of this camera."""
        assert self.lpa is not None
        frame = torch.randint(len(camera.bones), (LEARNT,), generator=self.generator, device=camera.bones.device)
        target = camera.frames.rows(frame)
        pose = self.source.built(self._paired(camera, frame), camera.bones[frame])
        self.lpa.update(pose, lambda made: rays(place(made, target)), target)

    def matched(self, camera: "TargetTensors", frame: Int[Tensor, " m"], pool: int, nearest: int) -> Views:
        """For each of these frames the `nearest` likest of `pool` source people, on its place."""
        direction = self._seen_directions(camera, pool)
        pose = self.source.built(direction, camera.bones[frame[:1]].expand(pool, 9))
        likest = [
            unlike(pose.expand(len(rows), -1, -1, -1), camera.frames.rows(rows)).topk(nearest, largest=False).indices
            for rows in torch.split(frame, 10)
        ]
        return self._views(camera, frame.repeat_interleave(nearest), direction[torch.cat(likest).flatten()])

    def collapse(self) -> str | None:
        """Why the adversary's poses are not to be trained on, in words."""
        camera, some = self.cameras[0], 256
        pose = self.source.built(self._seen_directions(camera, some), camera.bones[:1].expand(some, 9))
        return self.lpa.collapse(pose) if self.lpa else None

    def _seen_directions(self, camera: "TargetTensors", n: int) -> Float[Tensor, "n 16 3"]:
        """Bone directions of random source people at the camera's tilt, camera axes."""
        index = torch.multinomial(self.source.weight, n, replacement=True, generator=self.generator)
        turn_rad = 0.0 if self.lpa else self.source.config.bone_turn_rad
        direction, _ = self.source.vary_bones(self.source.pose_m[index], turn_rad)
        return direction @ self._tilts(camera, n).transpose(1, 2)

    def _views(self, camera: "TargetTensors", frame: Int[Tensor, " n"], direction: Float[Tensor, "n 16 3"]) -> Views:
        """Those people, of the sizes and on the places of those frames; who cannot be placed is replaced by who can."""
        n, target, given = len(frame), camera.frames.rows(frame), camera.bones[frame]
        pose = self.source.built(direction, self._true_bones(given))
        if self.lpa:  # it changes lengths too, by far more than calibration errs
            pose = self.lpa.augment(pose)
            given = self.source.measured(self.source.lengths(pose))
        placed = self._placed(pose, target)
        keypoints = self._detected(placed, target, camera.score[frame])
        views = Views(keypoints, self.source.unit_camera(n), camera.up.expand(n, 3), given, pose)
        good = torch.nonzero(sound(placed))[:, 0]
        if not len(good):
            raise InputError("no source pose can be put where the target's people are", hint="check K and image_size")
        return views.at(good[torch.arange(n, device=good.device) % len(good)])

    def _tilts(self, camera: "TargetTensors", n: int) -> Float[Tensor, "n 3 3"]:
        """Source axes (y up) to camera axes: any yaw, and up as far off the estimate as its length says."""
        sure = camera.up.norm().clamp(max=1)
        sigma = UP_ERROR_RAD[0] * sure + UP_ERROR_RAD[1] * (1 - sure)
        up = rotate(camera.likely_up.expand(n, 1, 3), self.source.normal(n, 1, 3) * sigma)[:, 0]
        return turn_to(up, self.source.yaw(n))

    def _true_bones(self, given: Float[Tensor, "n 9"]) -> Float[Tensor, "n 9"]:
        """The lengths that calibration may have been wrong about."""
        error, n = self.config.bone_error, len(given)
        return given * (1 + error * self.source.normal(n, 9)) * (1 + error * self.source.normal(n, 1))

    def _placed(self, pose: Float[Tensor, "n 17 3"], target: TargetFrames) -> Float[Tensor, "n 17 3"]:
        """Global position alignment; absolute, camera axes."""
        if self.config.gpa == "paper":
            unit_camera = self.source.unit_camera(len(pose))
            return place_paper(pose, _boxed(target), unit_camera)
        placed = place(self.source.marked(pose), target)
        jitter = torch.exp(self.config.jitter * self.source.normal(len(pose), 1, 1))
        return placed + placed[:, PELVIS, None] * (jitter - 1)

    def _detected(
        self, placed: Float[Tensor, "n 17 3"], target: TargetFrames, score: Float[Tensor, "n 17"]
    ) -> Float[Tensor, "n 17 3"]:
        """What the target's detector says of them: its noise, and the scores and gaps of the target frame."""
        ray = rays(placed)
        size = 3 * spread(ray - ray[:, PELVIS, None], target.seen.to(ray.dtype))
        sigma = self.config.noise * 2 * self.source.uniform(len(ray), 1) * size[:, None]
        noisy = ray + sigma[..., None] * self.source.normal(*ray.shape)
        return torch.cat([noisy * target.seen[..., None], score[..., None]], -1)


@dataclass(frozen=True)
class TargetTensors:
    """A target camera as tensors."""

    frames: TargetFrames
    score: Float[Tensor, "m 17"]
    up: Float[Tensor, "3"]
    """As the lifter is given it; zeros = unknown."""
    likely_up: Float[Tensor, "3"]
    """A level camera where unknown."""
    bones: Float[Tensor, "m 9"]

    @staticmethod
    def of(target: Target2D, device: torch.device) -> "TargetTensors":
        """On that device."""
        score = torch.from_numpy(target.keypoints[..., 2]).to(device)
        frames = TargetFrames(torch.from_numpy(target.rays).to(device), score > 0)
        bones = torch.from_numpy(target.bones_m[target.person]).to(device)
        up = torch.from_numpy(target.up).to(device)
        return TargetTensors(frames, score, up, up if up.norm() > 0 else up.new_tensor([0.0, -1.0, 0.0]), bones)


def rays(placed: Float[Tensor, "n 17 3"]) -> Float[Tensor, "n 17 2"]:
    """Where joints in camera axes are seen: x/z, y/z."""
    return placed[..., :2] / placed[..., 2:].clamp(min=0.1)


def _boxed(target: TargetFrames) -> Float[Tensor, "n 17 2"]:
    """Missing joints on the pelvis, so that they have no say in the box (the paper's target has none missing)."""
    return torch.where(target.seen[..., None], target.ray, target.ray[:, PELVIS, None])
