"""The networks' hidden layers: residual MLP, SemGCN and one-frame ST-GCN. Torch.

In the graph networks hidden values are rows, joint after joint of person after person, so that linear layers and batch
norm take them as they are; only `mixed` looks across joints, with one matrix product for all of them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from poseda_deploy.skeleton import H36M17

Edges = Sequence[tuple[int, int]]


def dense(inputs: int, width: int, dropout: float, bias: bool = True) -> nn.Sequential:
    """Linear, batch norm, ReLU, dropout."""
    return nn.Sequential(nn.Linear(inputs, width, bias), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout))


class Residual(nn.Module):
    """x + layers(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Residual update."""
        return x + self.layers(x)


def residual_mlp(inputs: int, width: int, blocks: int, dropout: float, bias: bool = True) -> nn.Sequential:
    """A dense layer and residual blocks of two, after Martinez et al. 2017."""
    pairs = ([dense(width, width, dropout, bias) for _ in range(2)] for _ in range(blocks))
    return nn.Sequential(dense(inputs, width, dropout, bias), *(Residual(*pair) for pair in pairs))


def mixed(
    rows: Float[Tensor, "rows_in channels_in"], mix: Float[Tensor, "joints columns"]
) -> Float[Tensor, "rows_out channels"]:
    """Every joint becomes a weighted sum over (neighbour, kind); a row holds its kinds side by side.

    A batched product, although the matrix is the same for everybody: a broadcast one takes 1.8 times as long to train.
    """
    kinds = mix.shape[1] // mix.shape[0]
    people = rows.view(-1, mix.shape[1], rows.shape[1] // kinds)
    return torch.bmm(mix.expand(people.shape[0], -1, -1), people).flatten(0, 1)


def with_neck(wanted: Sequence[str], given: Sequence[str]) -> Float[Tensor, "wanted given"]:
    """Wanted joints = this @ given ones; the neck always half-way from thorax to head."""
    matrix = torch.zeros(len(wanted), len(given))
    for row, joint in enumerate(wanted):
        for part in ("thorax", "head") if joint == "neck" else (joint, joint):
            matrix[row, given.index(part)] += 0.5
    return matrix


# --- SemGCN: Zhao, Peng, Tian, Kapadia, Metaxas, CVPR 2019 ------------------------------------------------------------


class SemGraphConv(nn.Module):
    """One weight matrix for a joint itself, one for its neighbours; each joint's edges weighted by a learnt softmax.

    The paper's SemGConv with edge weights that all channels share.
    """

    edge_of: Tensor
    is_edge: Tensor
    itself: Tensor

    def __init__(self, inputs: int, outputs: int, edges: Edges) -> None:
        super().__init__()
        joints = len(edges) + 1
        itself = torch.eye(joints, dtype=torch.bool)
        is_edge = itself.clone()
        for a, b in edges:
            is_edge[a, b] = is_edge[b, a] = True
        self.linear = nn.Linear(inputs, 2 * outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.edges = nn.Parameter(torch.ones(int(is_edge.sum())))
        numbers = (is_edge.flatten().cumsum(0) - 1).view(joints, joints) * is_edge
        for name, value in (("edge_of", numbers), ("is_edge", is_edge), ("itself", itself)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, rows: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """A row is a joint."""
        share = torch.where(self.is_edge, self.edges[self.edge_of], -torch.inf).softmax(1)
        mix = torch.stack([share * self.itself, share * ~self.itself], -1).flatten(1)
        # shares sum to 1, so that a bias added before is the bias; added after, bf16 training takes 1.1 times as long
        return mixed(nn.functional.linear(rows, self.linear.weight, self.bias.repeat(2)), mix)


def semgcn(width: int, blocks: int, edges: Edges) -> nn.Sequential:
    """Screen coordinates (n, joints, 2) to rows; blocks of two graph convolutions; no non-local layers."""

    def layer(inputs: int) -> nn.Sequential:
        return nn.Sequential(SemGraphConv(inputs, width, edges), nn.BatchNorm1d(width), nn.ReLU())

    hidden = (Residual(layer(width), layer(width)) for _ in range(blocks))
    return nn.Sequential(nn.Flatten(0, 1), layer(2), *hidden)


# --- ST-GCN of one frame: Cai et al., ICCV 2019 -----------------------------------------------------------------------

PARTS = (
    ("left_shoulder", "left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow", "right_wrist"),
    ("left_hip", "left_knee", "left_ankle"),
    ("right_hip", "right_knee", "right_ankle"),
    ("pelvis", "spine", "thorax", "neck", "head"),
)
TRUNK = 4
JOINTS_OF_PART = tuple(tuple(H36M17.index((part + part)[i]) for i in range(5)) for part in PARTS)
"""Five of each part, some twice, which a maximum does not mind."""
PART_OF_JOINT = tuple(next(p for p, part in enumerate(PARTS) if joint in part) for joint in H36M17.joints)


def neighbours(edges: Edges, pairs: Edges, centre: int) -> Float[Tensor, "joints columns"]:
    """Means over neighbours: column (neighbour, kind), kinds itself, farther from the centre, nearer, other side."""
    hops = {centre: 0}
    while len(hops) <= len(edges):
        for a, b in (*edges, *((b, a) for a, b in edges)):
            if a in hops:
                hops.setdefault(b, hops[a] + 1)
    kinds = np.zeros((len(hops), len(hops), 4), np.float32)
    kinds[..., 0] = np.eye(len(hops))
    for a, b in (*edges, *((b, a) for a, b in edges)):
        kinds[a, b, 1 if hops[b] > hops[a] else 2] = 1
    for a, b in pairs:
        kinds[a, b, 3] = kinds[b, a, 3] = 1
    return torch.from_numpy((kinds / kinds.sum((1, 2), keepdims=True)).reshape(len(hops), -1))


class StGraphConv(nn.Module):
    """A weight matrix for each kind of neighbour, and the mean over all neighbours."""

    mix: Tensor

    def __init__(self, inputs: int, outputs: int, mix: Float[Tensor, "joints columns"]) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs * (mix.shape[1] // mix.shape[0]))
        self.register_buffer("mix", mix, persistent=False)

    def forward(self, rows: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """A row is a joint."""
        return mixed(self.linear(rows), self.mix)


class StLayer(nn.Module):
    """Graph convolution, then a linear layer where several frames would have a convolution in time; with a shortcut."""

    def __init__(self, inputs: int, outputs: int, mix: Float[Tensor, "joints columns"], skip: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            StGraphConv(inputs, outputs, mix),
            *(nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.05)),
            *(nn.Linear(outputs, outputs), nn.BatchNorm1d(outputs), nn.Dropout(0.05)),
        )
        self.skip: nn.Module | None = None
        if skip:
            resize = nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs))
            self.skip = nn.Identity() if inputs == outputs else resize

    def forward(self, rows: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """A row is a joint."""
        out = self.layers(rows)
        return torch.relu(out if self.skip is None else out + self.skip(rows))


class NonLocal(nn.Module):
    """x + what each joint takes from all joints: embedded Gaussian of Wang et al. 2018, nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.theta, self.phi, self.g = (nn.Linear(width, width // 2) for _ in range(3))
        self.out = nn.Linear(width // 2, width)
        self.norm = nn.BatchNorm1d(width)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Float[Tensor, "n joints width"]) -> Float[Tensor, "n joints width"]:
        """Attention across the joints of a person."""
        share = (self.theta(x) @ self.phi(x).transpose(1, 2)).softmax(-1)
        taken = self.norm(self.out(share @ self.g(x)).flatten(0, 1))
        return x + taken.view_as(x)


class StGcn(nn.Module):
    """Joints, pooled to five parts, pooled to the whole body, and back: 128, 128, 256, then 512 wide.

    Widths, depth and dropout are those of PoseAug's one-frame version; its neck half-way from thorax to head too.
    """

    add_neck: Tensor
    width = 512

    def __init__(self, joints: Sequence[str]) -> None:
        super().__init__()
        sides = [(j, other) for j, other in enumerate(H36M17.mirror) if j < other]
        body = neighbours(H36M17.edges, sides, H36M17.index("spine"))
        parts = neighbours([(TRUNK, part) for part in range(TRUNK)], [(0, 1), (2, 3)], TRUNK)
        self.norm = nn.BatchNorm1d(2 * 17)
        self.joints = nn.Sequential(StLayer(2, 128, body, skip=False), StLayer(128, 128, body), StLayer(128, 256, body))
        self.parts = nn.Sequential(StLayer(256, 512, parts), StLayer(512, 512, parts))
        self.whole = dense(512, 512, dropout=0.25)
        self.back = dense(1024, 256, dropout=0.1)
        self.attend = nn.Sequential(NonLocal(512), nn.Flatten(0, 1), nn.Dropout(0.1))
        self.register_buffer("add_neck", with_neck(H36M17.joints, joints), persistent=False)

    def forward(self, xy: Float[Tensor, "n joints 2"]) -> Float[Tensor, "rows 512"]:
        """Screen coordinates to rows, one for each joint of H36M17."""
        rows = self.norm((self.add_neck @ xy).flatten(1)).view(-1, 2)
        joints = self.joints(rows).view(-1, 17, 256)
        parts = joints[:, JOINTS_OF_PART].amax(2)
        parts = self.parts(parts.flatten(0, 1)).view(-1, 5, 512)
        whole = self.whole(parts.amax(1))[:, None].expand(-1, 5, -1)
        coarse = self.back(torch.cat([whole, parts], -1).flatten(0, 1)).view(-1, 5, 256)
        return self.attend(torch.cat([joints, coarse[:, PART_OF_JOINT]], -1))
