"""The lifter in PyTorch: what every other backend is compared with."""

from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file

from poseda_deploy.bundle import WEIGHTS, Bundle
from poseda_deploy.model import Lifter, LifterConfig


class TorchBackend:
    """fp32 on the CPU, straight from the weights."""

    provider = "torch-cpu"

    def __init__(self, bundle: Bundle) -> None:
        self._lifter = load_lifter(bundle)

    def lift(
        self,
        keypoints: Float[np.ndarray, "n 17 3"],
        camera: Float[np.ndarray, "n 4"],
        up: Float[np.ndarray, "n 3"],
        bones: Float[np.ndarray, "n 9"],
    ) -> tuple[Float[np.ndarray, "n 17 3"], Float[np.ndarray, "n 3"]]:
        """(pose, root) in metres, camera axes."""
        inputs = (torch.from_numpy(np.ascontiguousarray(v, np.float32)) for v in (keypoints, camera, up, bones))
        with torch.no_grad():
            pose, root = self._lifter(*inputs)
        return pose.numpy(), root.numpy()

    def __enter__(self) -> "TorchBackend":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def load_lifter(bundle: Bundle) -> Lifter:
    """The lifter with the bundle's weights, ready to run."""
    lifter = Lifter(LifterConfig(**bundle.manifest.config["lifter"]))
    lifter.load_state_dict(load_file(bundle.file(WEIGHTS)), strict=True)
    return lifter.eval()
