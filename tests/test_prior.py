import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from people import walk_m

from poseda_deploy.bundle import MANIFEST
from poseda_deploy.errors import BundleError, InputError
from poseda_deploy.limits import broken_limits
from poseda_deploy.metrics import bone_lengths_m
from poseda_deploy.skeleton import H36M17
from poseda_deploy.train.cli import main
from poseda_deploy.train.fit_prior import fit_prior, nearest_mm, prior_report
from poseda_deploy.train.postures import facing_forward
from poseda_deploy.train.prior import PICTURE, PRIOR, PosePrior, load_prior, save_prior
from poseda_deploy.train.source import SourcePoses, load_source

LYING = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
SHIPPED = Path(__file__).parents[1] / "models" / "prior"


@pytest.fixture(scope="module")
def people() -> SourcePoses:
    """Two walkers, the second 10 % larger, and every fifth pose lying on the back."""
    pose = np.concatenate([walk_m(240), 1.1 * walk_m(240)])
    pose[::5] = pose[::5] @ LYING
    subject = np.repeat([0, 1], 240)
    return SourcePoses((pose - pose[:, :1]).astype(np.float32), np.full(480, 1 / 480), subject)


@pytest.fixture(scope="module")
def prior(people: SourcePoses) -> PosePrior:
    return fit_prior(people, components=20, rank=4)


def test_samples_look_like_the_source(prior: PosePrior, people: SourcePoses) -> None:
    near_mm = nearest_mm(prior.sample(100), people.pose_m)
    assert np.median(near_mm) < 40
    assert near_mm.min() > 1, "samples must not be copies"


def test_lying_people_stay_lying(prior: PosePrior, people: SourcePoses) -> None:
    upright = facing_forward(prior.sample(2000))[:, 7, 1] > 0.5  # spine to thorax
    assert 0.7 < upright.mean() < 0.9, "one pose in five lies"


def test_lengths_are_those_of_the_people(prior: PosePrior, people: SourcePoses) -> None:
    lengths = bone_lengths_m(prior.sample(2000, children=0.0))
    truth = np.array([np.median(bone_lengths_m(people.pose_m[people.subject == who]), 0) for who in (0, 1)])
    np.testing.assert_allclose(np.median(lengths, 0), np.exp(np.log(truth).mean(0)), rtol=0.03)
    assert lengths[:, 2].std() / lengths[:, 2].mean() == pytest.approx(0.07, abs=0.03)


def test_children_have_short_legs_for_their_trunk(prior: PosePrior) -> None:
    adult, child = (bone_lengths_m(prior.sample(500, children=share)).mean(0) for share in (0.0, 1.0))
    assert 0.7 < child[3] / adult[3] < 0.9
    assert child[2] / adult[2] < child[3] / adult[3] < child[5] / adult[5]


def test_same_seed_same_people(prior: PosePrior) -> None:
    np.testing.assert_array_equal(prior.sample(50, seed=3), prior.sample(50, seed=3))
    assert np.abs(prior.sample(50, seed=3) - prior.sample(50, seed=4)).max() > 0.1


def test_saved_and_loaded(prior: PosePrior, people: SourcePoses, tmp_path: Path) -> None:
    bundle = save_prior(
        prior, tmp_path / "prior", config={}, report=prior_report(prior, people, samples=20), picture=b""
    )
    assert bundle.manifest.report["people"] == 2
    back = load_prior(tmp_path / "prior")
    assert np.abs(back.sample(100) - prior.sample(100)).mean() < 0.02


def test_a_changed_prior_is_refused(prior: PosePrior, tmp_path: Path) -> None:
    save_prior(prior, tmp_path / "prior", config={}, report={}, picture=b"")
    (tmp_path / "prior" / PRIOR).write_bytes(b"something else")
    with pytest.raises(BundleError, match="damaged or was changed"):
        load_prior(tmp_path / "prior")


def test_a_prior_is_a_source(prior: PosePrior, tmp_path: Path) -> None:
    save_prior(prior, tmp_path / "prior", config={}, report={}, picture=b"")
    source = load_source([tmp_path / "prior"], [])
    assert len(source.pose_m) > 10_000 and source.weight.sum() == pytest.approx(1)


def test_too_few_poses_are_refused(people: SourcePoses) -> None:
    with pytest.raises(InputError, match="too few"):
        fit_prior(people, components=100)


def test_limits_know_what_no_body_does() -> None:
    pose = walk_m(30)
    assert not any(broken.any() for broken in broken_limits(pose).values())
    backwards, folded = pose.copy(), pose.copy()
    hip, knee, ankle = (H36M17.index(f"left_{name}") for name in ("hip", "knee", "ankle"))
    front = np.cross(pose[:, H36M17.index("left_hip")] - pose[:, H36M17.index("right_hip")], (0, 1, 0))
    front /= np.linalg.norm(front, axis=-1, keepdims=True)
    thigh = pose[:, knee] - pose[:, hip]
    backwards[:, ankle] = pose[:, knee] + thigh + 0.8 * front
    wrist, elbow = H36M17.index("right_wrist"), H36M17.index("right_elbow")
    folded[:, wrist] = pose[:, elbow] + 0.99 * (pose[:, H36M17.index("right_shoulder")] - pose[:, elbow])
    assert broken_limits(backwards)["knee backwards"].all()
    assert broken_limits(folded)["elbow folded"].all() and not broken_limits(folded)["knee folded"].any()


@pytest.mark.skipif(not (SHIPPED / MANIFEST).is_file(), reason="models/prior is not there")
def test_the_shipped_prior_is_small_and_human() -> None:
    assert (SHIPPED / PRIOR).stat().st_size < 4e6
    prior = load_prior(SHIPPED)
    pose = prior.sample(50_000)
    assert max(broken.mean() for broken in broken_limits(pose).values()) < 0.01
    stature = np.ptp(pose[..., 1], axis=1)
    assert np.quantile(stature, 0.5) < 1.75 and (facing_forward(pose)[:, 7, 1] < 0).mean() > 0.01, "some upside down"


def test_the_command_fits_and_draws(people: SourcePoses, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source.npz"
    of_all: dict[str, Any] = {
        "seq_id": people.subject,
        "seq_subject": np.array(["a", "b"]),
        "valid": np.ones(480, bool),
    }
    np.savez(source, positions=people.pose_m, **of_all)
    flags = ["fit-prior", "--source", str(source), "--components", "20", "--out", str(tmp_path / "prior"), "--json"]
    assert main(flags) == 0
    assert json.loads(capsys.readouterr().out)["people"] == 2
    assert (tmp_path / "prior" / PICTURE).read_bytes().startswith(b"\x89PNG")
    assert main(flags) == 2 and "--overwrite" in capsys.readouterr().err
    assert main(["fit-prior", "--out", str(tmp_path / "other")]) == 2
