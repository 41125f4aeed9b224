"""A lifter in memory as calibration takes it."""

import numpy as np
import torch
from jaxtyping import Float

from poseda_deploy.calibrate import Lift, tiled
from poseda_deploy.camera import Camera
from poseda_deploy.model import Lifter


def lift_of(lifter: Lifter, camera: Camera) -> Lift:
    """(keypoints, up, bones) -> (pose, root) for one camera, on the CPU."""
    lifter = lifter.eval()

    @torch.no_grad()
    def lift(
        keypoints: Float[np.ndarray, "n 17 3"], up: Float[np.ndarray, "n 3"], bones: Float[np.ndarray, "n 9"]
    ) -> tuple[Float[np.ndarray, "n 17 3"], Float[np.ndarray, "n 3"]]:
        given = (keypoints, tiled(camera.vector, keypoints), up, bones)
        pose, root = lifter(*(torch.from_numpy(np.ascontiguousarray(value, np.float32)) for value in given))
        return pose.numpy(), root.numpy()

    return lift
