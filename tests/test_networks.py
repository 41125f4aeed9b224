from dataclasses import asdict
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from lifters import KINDS, STRIDING, inputs, striding_lifter
from safetensors.torch import save
from torch import Tensor, nn

from poseda_deploy.bundle import WEIGHTS, write_manifest
from poseda_deploy.layers import (
    PART_OF_JOINT,
    PARTS,
    NonLocal,
    SemGraphConv,
    StGcn,
    StGraphConv,
    neighbours,
)
from poseda_deploy.model import Lifter, LifterConfig, load_lifter
from poseda_deploy.networks import (
    PAPER_JOINTS,
    Kind,
    PaperNetwork,
    mlp,
    semgcn,
    stgcn,
    vpose,
)
from poseda_deploy.onnx_graph import example_inputs, write_onnx
from poseda_deploy.rays import see
from poseda_deploy.skeleton import H36M17
from poseda_deploy.train.cli import TrainOptions, main

PAPER_KINDS = KINDS[1:]


def paper_inputs(keypoints: Tensor, camera: Tensor) -> dict[str, Tensor]:
    """What the paper's networks read, by joint."""
    up, bones = torch.zeros(len(keypoints), 3), torch.zeros(len(keypoints), 9)
    features = mlp().inputs(see(keypoints, camera), up, bones)
    return dict(zip(PAPER_JOINTS, features.unbind(1), strict=True))


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("conditioned", 1_116_720), ("mlp", 4_288_557), ("vpose", 8_485_933), ("semgcn", 267_343), ("stgcn", 3_627_847)],
)
def test_networks_have_the_published_size(kind: Kind, parameters: int) -> None:
    assert sum(p.numel() for p in Lifter(LifterConfig(kind=kind)).parameters()) == parameters


def test_the_flag_names_every_kind() -> None:
    """The command spells them itself, because --help must not load torch."""
    assert get_args(get_type_hints(TrainOptions)["lifter"]) == KINDS


def test_the_paper_reads_its_source_camera_s_screen() -> None:
    """On Human3.6M's 1000 px images x is 2 x_px / 1000 - 1 up to the camera's centre, and focal 1145 px."""
    keypoints, _, _, _ = inputs(1)
    camera = torch.tensor([[1145.0, 1145.0, 500.0, 500.0]])
    read = paper_inputs(keypoints, camera)
    wrist = keypoints[:, H36M17.index("left_wrist"), :2]
    torch.testing.assert_close(read["left_wrist"], 2 * wrist / 1000 - 1, atol=1e-5, rtol=1e-4)


def test_the_paper_reads_the_spine_where_it_is_seen() -> None:
    keypoints, camera, _, _ = inputs(1)
    spine = H36M17.index("spine")
    seen = paper_inputs(keypoints, camera)
    expected = 2.29 * (keypoints[:, spine, :2] - camera[:, 2:]) / camera[:, :2]
    torch.testing.assert_close(seen["spine"], expected)
    keypoints[:, spine] = 0
    derived = paper_inputs(keypoints, camera)
    torch.testing.assert_close(derived["spine"], (derived["pelvis"] + derived["thorax"]) / 2)
    torch.testing.assert_close(derived["head"], seen["head"])


def test_to_the_paper_a_missing_joint_lies_at_the_mean_of_the_seen_ones() -> None:
    keypoints, camera, _, _ = inputs(1)
    keypoints[..., 2] = 1
    missing = ["left_wrist", "right_ankle"]
    keypoints[:, [H36M17.index(joint) for joint in missing], 2] = 0
    read = paper_inputs(keypoints, camera)
    middle = torch.stack([xy for joint, xy in read.items() if joint not in missing]).mean(0)
    for joint in missing:
        torch.testing.assert_close(read[joint], middle)


@pytest.mark.parametrize("kind", PAPER_KINDS)
def test_the_paper_s_networks_know_neither_up_nor_bones_nor_scores(kind: Kind) -> None:
    network, (keypoints, camera, up, bones) = striding_lifter(kind).network, inputs()
    keypoints[..., 2] = 1
    doubtful = keypoints * torch.tensor([1.0, 1.0, 0.1])
    plain = network(network.inputs(see(keypoints, camera), torch.zeros_like(up), torch.zeros_like(bones)))
    torch.testing.assert_close(network(network.inputs(see(doubtful, camera), up, bones)), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_mirroring_features_twice_is_nothing(kind: Kind) -> None:
    lifter, (keypoints, camera, up, bones) = striding_lifter(kind), inputs()
    features = lifter.network.inputs(see(keypoints, camera), up, bones)
    mirrored = lifter.network.mirrored(features)
    assert not torch.equal(mirrored, features)
    torch.testing.assert_close(lifter.network.mirrored(mirrored), features)


@pytest.mark.parametrize("kind", PAPER_KINDS)
def test_the_paper_s_joints_are_relative_to_the_pelvis_and_the_neck_half_way(kind: Kind) -> None:
    pose = Lifter(LifterConfig(kind=kind)).eval().predict(*inputs())
    neck, thorax, head = (pose[:, H36M17.index(joint)] for joint in ("neck", "thorax", "head"))
    torch.testing.assert_close(neck, (thorax + head) / 2, atol=1e-5, rtol=1e-4)
    assert (pose[:, 0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_person_is_lifted_alike_whoever_else_is_there(kind: Kind) -> None:
    lifter, everybody = striding_lifter(kind), inputs(6)
    pose, _ = lifter(*everybody)
    alone, _ = lifter(*(value[4:5] for value in everybody))
    torch.testing.assert_close(alone, pose[4:5], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_learns(kind: Kind) -> None:
    """A few steps on the same 48 views, by the loss of the training loop; and every weight takes part."""
    torch.manual_seed(0)
    lifter = Lifter(LifterConfig(kind=kind)).train()
    views = inputs(48)
    target = torch.from_numpy(example_inputs(48)["keypoints"])[..., :2] / 400
    target = torch.cat([target - target[:, :1], torch.randn(48, 17, 1) / 10], -1) * (torch.arange(17) > 0)[:, None]
    optimizer = torch.optim.Adam(lifter.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = (lifter.predict(*views) - target)[:, 1:].norm(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in lifter.parameters())


def test_semantic_graph_convolution_is_what_the_paper_writes() -> None:
    """Joint by joint: the softmax of its edges weights itself through one matrix and its neighbours through another."""
    edges = [(0, 1), (1, 2), (1, 3)]
    layer = SemGraphConv(5, 7, edges)
    nn.init.normal_(layer.edges)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 5)
    itself, others = layer.linear.weight.view(2, 7, 5)
    order = iter(layer.edges)  # row by row
    weight = {(a, b): next(order) for a in range(4) for b in range(4) if a == b or {(a, b), (b, a)} & set(edges)}
    for joint in range(4):
        near = [b for a, b in weight if a == joint]
        share = torch.stack([weight[joint, b] for b in near]).softmax(0)
        parts = [s * x[:, b] @ (itself if b == joint else others).T for s, b in zip(share, near, strict=True)]
        expected = torch.stack(parts).sum(0) + layer.bias
        torch.testing.assert_close(layer(x.flatten(0, 1)).view(2, 4, 7)[:, joint], expected)


def test_st_gcn_s_neighbours_are_averaged_by_kind() -> None:
    index = H36M17.index
    sides = [(j, other) for j, other in enumerate(H36M17.mirror) if j < other]
    mean = neighbours(H36M17.edges, sides, index("spine")).view(17, 17, 4)
    itself, farther, nearer, other_side = range(4)
    assert mean[index("left_shoulder"), index("left_elbow"), farther] == 0.25
    assert mean[index("left_shoulder"), index("thorax"), nearer] == 0.25
    assert mean[index("left_shoulder"), index("right_shoulder"), other_side] == 0.25
    assert mean[index("pelvis"), index("spine"), nearer] == mean[index("pelvis"), index("left_hip"), farther] == 0.25
    assert mean[index("spine"), index("pelvis"), farther] == pytest.approx(1 / 3)
    assert mean[index("head"), index("head"), itself] == 0.5
    torch.testing.assert_close(mean.sum((1, 2)), torch.ones(17))
    assert int((mean > 0).sum()) == 17 + 2 * 16 + 2 * 6


def test_st_gcn_s_graph_convolution_joint_by_joint() -> None:
    mix = neighbours([(0, 1), (1, 2)], [(0, 2)], 1)
    layer, x = StGraphConv(5, 7, mix), torch.randn(2, 3, 5)
    by_kind = layer.linear(x).view(2, 3, 4, 7)
    expected = torch.einsum("ijk,njkc->nic", mix.view(3, 3, 4), by_kind)
    torch.testing.assert_close(layer(x.flatten(0, 1)).view(2, 3, 7), expected)


def test_every_joint_is_in_one_part() -> None:
    assert sorted(joint for part in PARTS for joint in part) == sorted(H36M17.joints)
    assert all(joint in PARTS[part] for joint, part in zip(H36M17.joints, PART_OF_JOINT, strict=True))


def test_non_local_layer_begins_as_nothing() -> None:
    x = torch.randn(3, 17, 8)
    torch.testing.assert_close(NonLocal(8)(x), x)


def test_st_gcn_puts_the_neck_half_way() -> None:
    xy = torch.randn(4, 16, 2)
    body = StGcn(PAPER_JOINTS).add_neck @ xy
    thorax, head = PAPER_JOINTS.index("thorax"), PAPER_JOINTS.index("head")
    torch.testing.assert_close(body[:, H36M17.index("neck")], (xy[:, thorax] + xy[:, head]) / 2)
    torch.testing.assert_close(body[:, H36M17.index("left_wrist")], xy[:, PAPER_JOINTS.index("left_wrist")])


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_brings_back_its_kind(kind: Kind, tmp_path: Path) -> None:
    lifter = Lifter(LifterConfig(rounds=2, kind=kind)).eval()
    (tmp_path / WEIGHTS).write_bytes(save(lifter.state_dict()))
    again = load_lifter(write_manifest(tmp_path, (WEIGHTS,), config={"lifter": asdict(lifter.config)}))
    assert again.config == lifter.config
    for name, value in lifter.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_the_paper_s_sizes_are_refused_as_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lifter", "mlp", "--width", "64", "--source", "x.npz", "--out", str(tmp_path / "b")]) == 2
    assert "mlp has the size of the paper" in capsys.readouterr().err


class Four(PaperNetwork):
    """The paper's four side by side, so that one export, which takes seconds, covers them."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), nn.Identity(), H36M17.joints)
        self.four = nn.ModuleList(make() for make in (mlp, vpose, semgcn, stgcn))

    def joints(self, hidden: Tensor) -> Tensor:
        return STRIDING + sum(0.05 * torch.tanh(network(hidden)) for network in self.four)


def apart_mm(lifter: Lifter, path: Path) -> float:
    """Distance of the joints between ONNX Runtime and torch over batches of 1 to 64, 0.99 quantile.

    A bone that a network of random weights makes nearly 0 long turns freely: rounding errors grow to 0.2 mm there.
    """
    import onnxruntime

    write_onnx(lifter, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    apart = []
    for rows in (1, 2, 7, 64):
        values = example_inputs(rows, seed=rows)
        with torch.no_grad():
            pose, root = lifter(*map(torch.from_numpy, values.values()))
        there, root_there = session.run(["pose", "root"], values)
        apart.append(np.linalg.norm((pose + root[:, None]).numpy() - there - root_there[:, None], axis=-1))
    return float(np.quantile(np.concatenate(apart), 0.99)) * 1000


def test_onnx_runtime_agrees_with_torch_on_the_paper_s_networks(tmp_path: Path) -> None:
    lifter = striding_lifter("conditioned", rounds=0)
    lifter.network = Four().eval()
    assert apart_mm(lifter, tmp_path / "four.onnx") < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_agrees_with_torch(kind: Kind, tmp_path: Path) -> None:
    assert apart_mm(striding_lifter(kind), tmp_path / "lifter.onnx") < 0.05
