"""Ask a Triton server that serves our lifter for the recorded people and compare, in millimetres.

pip install 'poseda-deploy' 'tritonclient[http]'
python docs/triton_client.py --url localhost:8000 --model poseda_lifter --bundle models/exported
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton

from poseda_deploy.backend import replay_golden
from poseda_deploy.bundle import default_bundle_path, load_bundle


class TritonBackend:
    """A lifter on a Triton server, behind the same protocol as those on this machine."""

    def __init__(self, url: str, model: str, precision: Any = "fp32") -> None:
        self._client = triton.InferenceServerClient(url)
        self._model, self.precision = model, precision
        self.provider = f"{model} on {url}"

    def lift(
        self, keypoints: np.ndarray, camera: np.ndarray, up: np.ndarray, bones: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(pose, root) in metres, camera axes."""
        values = {"keypoints": keypoints, "camera": camera, "up": up, "bones": bones}
        inputs = []
        for name, value in values.items():
            inputs.append(triton.InferInput(name, value.shape, "FP32"))
            inputs[-1].set_data_from_numpy(np.ascontiguousarray(value, np.float32))
        result = self._client.infer(self._model, inputs)
        return result.as_numpy("pose"), result.as_numpy("root")

    def __enter__(self) -> "TritonBackend":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def main() -> None:
    """Print the largest difference; fails over the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="localhost:8000")
    parser.add_argument("--model", default="poseda_lifter")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16", "bf16"))
    parser.add_argument("--bundle", type=Path, default=default_bundle_path())
    flags = parser.parse_args()
    with TritonBackend(flags.url, flags.model, flags.precision) as backend:
        worst_mm = replay_golden(backend, load_bundle(flags.bundle))
    print(f"{backend.provider}: at most {worst_mm:.4f} mm from what was recorded")


if __name__ == "__main__":
    main()
