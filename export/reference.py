"""The lifter in PyTorch: what every other backend is compared with."""

from types import TracebackType

import numpy as np
import torch
from jaxtyping import Float

from poseda_deploy.bundle import Bundle, Precision
from poseda_deploy.errors import BackendError
from poseda_deploy.model import load_lifter


class TorchBackend:
    """fp32 on the CPU, straight from the weights."""

    provider = "torch-cpu"
    precision: Precision = "fp32"

    def __init__(self, bundle: Bundle, precision: Precision | None = None) -> None:
        if precision not in (None, "fp32"):
            raise BackendError(f"torch is the fp32 reference, not {precision}", hint="--backend ort-cpu")
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
