import pytest
import torch
from people import looking_down, walk_m
from torch import Tensor

from poseda_deploy.skeleton import H36M17
from poseda_deploy.train.gpa import TargetFrames, anchor_ray, place, place_paper, sound, spread, unlike


@pytest.fixture(scope="module")
def walkers() -> Tensor:
    """(60,17,3) relative to the pelvis, camera axes."""
    rotation, _ = looking_down(0.3)
    pose = walk_m(60) @ rotation.T
    return torch.from_numpy(pose - pose[:, :1]).float()


def seen_from(pose: Tensor, root_m: tuple[float, float, float]) -> TargetFrames:
    placed = pose + torch.tensor(root_m)
    return TargetFrames(placed[..., :2] / placed[..., 2:], torch.ones(pose.shape[:2], dtype=torch.bool))


def test_known_answer_of_the_paper() -> None:
    """Worked by hand from the formulas: identity pairing, one row of three joints."""
    source = torch.tensor([[(0.1, 0.2, 4.0), (0.4, -0.4, 4.1), (-0.2, 0.9, 3.8)]], dtype=torch.float64)
    target = torch.tensor([[(0.10, 0.05), (0.20, -0.25), (0.02, 0.35)]], dtype=torch.float64)
    camera = torch.tensor([[1.465010, 1.464365, -0.006455, 0.018584]], dtype=torch.float64)
    placed = place_paper(source, target, camera)
    expected = [(0.259235, 0.076537, 3.567539), (0.559235, -0.523463, 3.667539), (-0.040765, 0.776537, 3.367539)]
    torch.testing.assert_close(placed[0], torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)
    projected = placed[..., :2] / placed[..., 2:] * camera[:, None, :2] + camera[:, None, 2:]
    torch.testing.assert_close(projected[0, 0], target[0, 0], atol=1e-12, rtol=0)


def test_paper_uses_the_focal_length_of_each_row() -> None:
    source = torch.randn(1, 17, 3).double().repeat(2, 1, 1)
    target = 0.1 * torch.randn(1, 17, 2).double().repeat(2, 1, 1)
    camera = torch.tensor([[1.5, 1.5, 0, 0], [3.0, 3.0, 0, 0]], dtype=torch.float64)
    near, far = place_paper(source, target, camera)[:, 0, 2]
    assert float(far) == pytest.approx(2 * float(near))


@pytest.mark.parametrize("root_m", [(0.0, 0.0, 4.0), (1.0, -0.5, 2.5), (-2.0, 0.3, 9.0)])
def test_a_pose_on_its_own_image_stands_where_it_stood(walkers: Tensor, root_m: tuple[float, float, float]) -> None:
    placed = place(walkers, seen_from(walkers, root_m))
    torch.testing.assert_close(placed[:, 0], torch.tensor(root_m).expand(60, 3), atol=2e-3, rtol=2e-3)


def test_pelvis_and_scale_are_exactly_the_targets(walkers: Tensor) -> None:
    """The distribution of root positions and sizes after GPA is the target's, frame by frame."""
    target = seen_from(1.2 * walkers.flip(0), (0.8, -0.2, 3.0))
    placed = place(walkers, target)
    ray = placed[..., :2] / placed[..., 2:]
    torch.testing.assert_close(ray[:, 0], target.ray[:, 0], atol=1e-5, rtol=0)
    size, wanted = (spread(r - r[:, :1], target.seen.float()) for r in (ray, target.ray))
    torch.testing.assert_close(size, wanted, atol=0, rtol=1e-3)


def test_missing_joints_have_no_say(walkers: Tensor) -> None:
    whole = seen_from(walkers, (0.5, 0.1, 4.0))
    legs = [H36M17.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("knee", "ankle")]
    seen = whole.seen.clone()
    seen[:, [*legs, 0]] = False
    cut = TargetFrames(torch.where(seen[..., None], whole.ray, 99.0), seen)
    assert torch.isfinite(anchor_ray(cut.ray, cut.seen)).all()
    torch.testing.assert_close(place(walkers, cut)[:, 0], place(walkers, whole)[:, 0], atol=5e-3, rtol=0)


def test_one_point_for_all_joints_is_not_sound(walkers: Tensor) -> None:
    placed = place(walkers, TargetFrames(torch.zeros(60, 17, 2), torch.ones(60, 17, dtype=torch.bool)))
    assert torch.isfinite(placed).all() and not sound(placed).any()


def test_people_inside_the_camera_are_not_sound(walkers: Tensor) -> None:
    target = seen_from(walkers, (0.0, 0.0, 4.0))
    assert sound(place(walkers, target)).all()
    assert not sound(place(walkers, TargetFrames(20 * target.ray, target.seen))).any()


def test_like_postures_meet_and_keep_their_distance(walkers: Tensor) -> None:
    """Crouching targets among standing and crouching source poses: the likest pose is put where they are."""
    crouching = walkers.clone()
    crouching[..., 1] *= 0.6
    target = seen_from(crouching, (0.0, 0.0, 5.0))
    choices = torch.stack([walkers, crouching], 1)
    off = unlike(choices, target)
    assert (off[:, 1] < off[:, 0]).all()
    likest = choices[torch.arange(60), off.argmin(1)]
    off_m = [place(pose, target)[:, 0, 2].sub(5).abs().mean() for pose in (walkers, likest)]
    assert off_m[1] < 0.01 < 0.2 < off_m[0]


def test_gradients_reach_the_pose(walkers: Tensor) -> None:
    pose = walkers[:4].clone().requires_grad_()
    placed = place(pose, seen_from(walkers[:4], (0.2, 0.0, 4.0)))
    (placed[..., :2] / placed[..., 2:]).square().sum().backward()
    assert pose.grad is not None and torch.isfinite(pose.grad).all() and (pose.grad.abs() > 0).any()
