"""The network in half precision: a `.half()` copy between two casts; geometry, inputs and outputs stay fp32.

TensorRT 11 has no FP16 flag any more: an engine has the precision of its ONNX graph (source: its migration guide
from 10.x). Done in torch, so that one graph serves TensorRT 10, 11, RTX and ONNX Runtime.
"""

from copy import deepcopy
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from poseda_deploy.bundle import Precision
from poseda_deploy.model import Lifter
from poseda_deploy.networks import PoseNetwork
from poseda_deploy.rays import View

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class ReducedNetwork(PoseNetwork):
    """Another network with body and head in fewer bits; reads and answers fp32."""

    def __init__(self, network: PoseNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.full, self.reduced, self.dtype = network, without_norms(deepcopy(network)).to(dtype), dtype

    def inputs(self, view: View, up: Float[Tensor, "n 3"], bones: Float[Tensor, "n 9"]) -> Float[Tensor, "n ..."]:
        """As the full network's, in fp32."""
        return self.full.inputs(view, up, bones)

    def mirrored(self, features: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """As the full network's, in fp32."""
        return self.full.mirrored(features)

    def joints(self, hidden: Tensor) -> Float[Tensor, "n 16 3"]:
        """The last layer, in fewer bits."""
        return self.reduced.joints(hidden.to(self.dtype)).float()

    def forward(self, features: Float[Tensor, "n ..."]) -> Float[Tensor, "n 16 3"]:
        """Casts around body and head."""
        joints: Tensor = self.reduced(features.to(self.dtype))
        return joints.float()

    def turned(self, joints: Float[Tensor, "n 16 3"], view: View) -> Float[Tensor, "n 17 3"]:
        """As the full network's, in fp32."""
        return self.full.turned(joints, view)


def without_norms(network: PoseNetwork) -> PoseNetwork:
    """Batch norms that follow a linear layer become part of it, while both still are fp32.

    Left to the exporter it happens in half, and the default lifter is off by 2.4 instead of 0.6 mm (p99, golden).
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            layers = list(module)
            for i, (layer, norm) in enumerate(pairwise(layers)):
                if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                    module[i], module[i + 1] = fuse_linear_bn_eval(layer.eval(), norm.eval()), nn.Identity()
    return network


def in_precision(lifter: Lifter, precision: Precision) -> Lifter:
    """The lifter itself for fp32, else a copy whose network computes in that precision."""
    if precision == "fp32":
        return lifter
    reduced = deepcopy(lifter)
    reduced.network = ReducedNetwork(reduced.network, DTYPES[precision])
    return reduced.eval()
