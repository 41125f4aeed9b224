"""Lifters of every kind with random weights around a striding person: what tests of the whole lifter need.

A person of random joints stands nowhere on the rays, so that rounding errors of the network grow a thousandfold.
Weights are uniform numbers: torch draws normal ones by other code, with other last bits, on processors with AVX2.
"""

from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor, nn

from poseda_deploy.model import Lifter, LifterConfig
from poseda_deploy.networks import Kind
from poseda_deploy.onnx_graph import _STRIDING, example_inputs

KINDS: tuple[Kind, ...] = get_args(Kind)
STRIDING = torch.from_numpy(_STRIDING[1:])
TINY = LifterConfig(width=32, blocks=1)


def striding_lifter(kind: Kind, rounds: int = 5) -> Lifter:
    """Ready to run, with batch statistics as if it had been trained; same kind, same weights."""
    torch.manual_seed(0)
    tiny = TINY if kind == "conditioned" else LifterConfig(kind=kind)
    lifter = Lifter(replace(tiny, rounds=rounds)).eval()
    for name, value in lifter.network.named_buffers():
        if name.endswith("running_mean"):
            nn.init.uniform_(value, -0.2, 0.2)
        elif name.endswith("running_var"):
            nn.init.uniform_(value, 0.5, 1.5)
    for layer in lifter.modules():
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
        elif isinstance(layer, nn.Linear):
            layer.reset_parameters()
    head = lifter.network.head
    if kind == "conditioned" and isinstance(head, nn.Linear):  # inside its weights, so that a bundle keeps it
        head.weight.data *= 0.1
        head.bias.data = STRIDING.flatten()
    else:
        lifter.network.register_forward_hook(lambda _, features, joints: STRIDING + 0.15 * torch.tanh(joints))
    return lifter


def inputs(rows: int = 12) -> list[Tensor]:
    """keypoints, camera, up, bones of example_inputs."""
    return [torch.from_numpy(value) for value in example_inputs(rows).values()]
