"""The lifter: pixels, camera, up and bone lengths in; metric person in camera axes out. Torch.

`Lifter.forward` is the whole of it and is what lifter.onnx holds: pixels to rays (`rays.py`), a network on the view and
on its mirror image (`networks.py`), absolute position by least squares over the rays, and a few rounds of refinement.
Axes everywhere: camera x right, y down, z forward; metres.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load
from torch import Tensor, nn

from poseda_deploy.bf16 import bf16_where_fast
from poseda_deploy.bundle import WEIGHTS, Bundle
from poseda_deploy.errors import BundleError, InputError
from poseda_deploy.networks import POSE_JOINTS, Kind, build_network
from poseda_deploy.rays import View, off_ray, onto_rays, picked, placing, see
from poseda_deploy.skeleton import (
    BONE_FROM_JOINT,
    GROUP_FROM_LENGTH,
    H36M17,
    JOINT_FROM_BONE,
    LENGTH_FROM_GROUP,
)

MIRROR_POSE = tuple(H36M17.mirror[H36M17.index(joint)] - 1 for joint in POSE_JOINTS)


@dataclass(frozen=True)
class LifterConfig:
    """Which network, its size, and number of refinement rounds."""

    width: int = 0
    """Units of every hidden layer of the conditioned network, 0: 512. The paper's sizes are fixed, and then it is 0."""
    blocks: int = 0
    """Residual blocks of two layers each of the conditioned network, 0: 2."""
    rounds: int = 5
    """Rounds of (joints onto their rays, bones to their lengths) after the network."""
    kind: Kind = "conditioned"
    """Ours, conditioned on up and bone lengths, or one of the paper's four."""

    def __post_init__(self) -> None:
        ours = self.kind == "conditioned"
        if not ours and (self.width or self.blocks):
            raise InputError(f"{self.kind} has the size of the paper", hint="leave out --width and --blocks")
        if ours:
            object.__setattr__(self, "width", self.width or 512)
            object.__setattr__(self, "blocks", self.blocks or 2)
        if self.rounds < 0 or (ours and (self.width < 8 or self.blocks < 1)):
            raise InputError(f"impossible lifter {asdict(self)}", hint="width >= 8, blocks >= 1, rounds >= 0")


class Lifter(nn.Module):
    """Single-frame lifter; what it makes of the camera's up vector and the person's bone lengths is its network's."""

    bone_from_joint: Tensor
    pose_from_bones: Tensor
    length_from_group: Tensor
    group_from_length: Tensor

    def __init__(self, config: LifterConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_network(config.kind, config.width, config.blocks)
        for name, matrix in (
            ("bone_from_joint", BONE_FROM_JOINT),
            ("pose_from_bones", np.kron(JOINT_FROM_BONE, np.eye(3, dtype=np.float32))),
            ("length_from_group", LENGTH_FROM_GROUP),
            ("group_from_length", GROUP_FROM_LENGTH),
        ):
            self.register_buffer(name, torch.from_numpy(matrix), persistent=False)

    def forward(
        self,
        keypoints: Float[Tensor, "n 17 3"],
        camera: Float[Tensor, "n 4"],
        up: Float[Tensor, "n 3"],
        bones: Float[Tensor, "n 9"],
    ) -> tuple[Float[Tensor, "n 17 3"], Float[Tensor, "n 3"]]:
        """Root-relative pose and absolute root in metres, camera axes.

        keypoints: x_px, y_px, score (0 = missing); camera: fx, fy, cx, cy in pixels, undistorted; up: unit vector in
        camera axes, shorter = less sure, zeros = unknown; bones: metres in the order of BONE_GROUPS, each 0 = unknown.
        """
        view = see(keypoints, camera)
        features = self.network.inputs(view, up, bones)
        both = self.network(torch.cat([features, self.network.mirrored(features)]))
        people = features.shape[0]  # neither len() nor chunk(): both freeze the batch size in the exported graph
        mirrored = picked(both[people:], MIRROR_POSE) * both.new_tensor([-1.0, 1.0, 1.0])
        pose = self.network.turned((both[:people] + mirrored) / 2, view)
        joints = self.refine(pose, view, bones) @ view.turn
        return joints - joints[:, :1], joints[:, 0]

    def predict(
        self,
        keypoints: Float[Tensor, "n 17 3"],
        camera: Float[Tensor, "n 4"],
        up: Float[Tensor, "n 3"],
        bones: Float[Tensor, "n 9"],
    ) -> Float[Tensor, "n 17 3"]:
        """The network's own pose, not mirrored, not refined: what training looks at.

        Training through the refinement was tried and is worse: 73.6 against 66.7 mm.
        """
        view = see(keypoints, camera)
        features = self.network.inputs(view, up, bones)
        with bf16_where_fast(features.device.type):
            hidden = self.network.body(features)
        return self.network.turned(self.network.joints(hidden.float()), view) @ view.turn

    def refine(self, pose: Float[Tensor, "n 17 3"], view: View, bones: Float[Tensor, "n 9"]) -> Float[Tensor, "n 17 3"]:
        """Place a pose, then alternate between bones at their lengths and joints on their rays; turned axes in and out.

        Worth 11 mm where the lengths are known. An unknown length stays as the network has it. Placing and moving onto
        the rays is one matrix for all rounds: 0.30 ms a person instead of 0.41 (ONNX Runtime, batch 1).
        """
        off = off_ray(view)
        if not self.config.rounds:
            return pose - (placing(off) @ pose.view(-1, 51, 1)).mT
        joints_from_bones = onto_rays(off, self.pose_from_bones)
        predicted = self.group_from_length @ (self.bone_from_joint @ pose).norm(dim=-1)[..., None]
        length = self.length_from_group @ torch.where(bones > 0, bones, predicted[..., 0])[..., None]
        joints = pose
        for _ in range(self.config.rounds):
            bone = self.bone_from_joint @ joints
            straight = bone * (length / bone.norm(dim=-1, keepdim=True).clamp(min=1e-6))
            joints = (joints_from_bones @ straight.view(-1, 48, 1)).view(-1, 17, 3)
        return joints


def load_lifter(bundle: Bundle) -> Lifter:
    """The lifter of a bundle on the CPU, ready to run; BundleError where this version cannot build it."""
    try:
        lifter = Lifter(LifterConfig(**bundle.manifest.config["lifter"]))
        lifter.load_state_dict(load(bundle.read(WEIGHTS)))
    except (KeyError, TypeError, RuntimeError, InputError) as error:
        raise BundleError(
            f"bundle {bundle.path} holds a lifter of another version ({str(error).splitlines()[0]})",
            hint="make it again with poseda-train",
        ) from error
    return lifter.eval()
