"""poseda-eval through main(argv), on targets whose answers are known."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from people import looking_down, walk_m

from poseda_deploy.camera import Camera
from poseda_deploy.poses import Poses3D, load_poses
from poseda_deploy.runtime.cli import main as run_main
from poseda_deploy.skeleton import H36M17
from poseda_deploy.train.eval_cli import main
from poseda_deploy.train.evaluate import PEER_JOINTS, PeerLifter, open_peer
from poseda_deploy.train.truth import PARTS, read_mpi_inf_3dhp, read_target, with_noise

FRAMES = 60
PITCHES_RAD = (0.2, 0.0)
WRISTS = [H36M17.index("left_wrist"), H36M17.index("right_wrist")]
MPI_ORDER = (
    "head thorax right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
    "right_hip right_knee right_ankle left_hip left_knee left_ankle pelvis spine neck"
)
"""The official order in our names: head top, neck, ..., pelvis, spine, head."""


def seen_by(camera: Camera, pitch_rad: float, frames: int = FRAMES) -> tuple[np.ndarray, np.ndarray]:
    """(xy_px, xyz_m) of the walker in that camera."""
    rotation, translation = looking_down(pitch_rad)
    xyz_m = walk_m(frames) @ rotation.T + translation
    return camera.project(xyz_m), xyz_m


@pytest.fixture
def target_arrays(camera: Camera) -> dict[str, Any]:
    return calibrated_target(camera)


def calibrated_target(camera: Camera) -> dict[str, Any]:
    """Two cameras, two sequences; exact points, and detected ones with a detector's gaps."""
    poses = [looking_down(pitch) for pitch in PITCHES_RAD]
    xy_px = np.stack([seen_by(camera, pitch)[0] for pitch in PITCHES_RAD], 1)
    confidence = np.ones(xy_px.shape[:3])
    confidence[:5, 0] = 0
    return {
        "positions_world": walk_m(FRAMES),
        "keypoints_2d": xy_px,
        "keypoints_2d_det": xy_px + 1,
        "keypoints_2d_conf": confidence,
        "K": np.stack([camera.matrix] * 2),
        "R": np.stack([rotation for rotation, _ in poses]),
        "T": np.stack([translation for _, translation in poses]),
        "image_size": np.array([camera.size_wh] * 2),
        "cam_name": np.array(["door", "window"]),
        "seq_id": np.repeat([0, 1], FRAMES // 2),
        "seq_name": np.array(["first", "second"]),
        "fps": np.array(30),
    }


@pytest.fixture
def target(target_arrays: dict[str, Any], tmp_path: Path) -> Path:
    np.savez(tmp_path / "target.npz", **target_arrays)
    return tmp_path / "target.npz"


@pytest.fixture
def measured(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs the command with --json and returns its report."""

    def run(*flags: object) -> dict[str, Any]:
        assert main([*map(str, flags), "--json", "--quiet"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        report: dict[str, Any] = json.loads(captured.out)
        return report

    return run


Measured = Callable[..., dict[str, Any]]


def true_poses(target: Path, camera: int, offset_m: float = 0.0) -> Poses3D:
    """The truth as a poses file would hold it, both wrists moved by some metres."""
    (view,) = read_target(target, cameras=(camera,)).views
    pose_m = (view.true_m - view.true_m[:, :1]).astype(np.float32)
    pose_m[:, WRISTS, 1] += offset_m
    frame = np.arange(len(pose_m))
    return Poses3D(frame, 0 * frame, frame / 30, pose_m, view.true_m[:, 0].astype(np.float32), np.ones((FRAMES, 17)))


def test_target_with_the_shipped_bundle(target: Path, measured: Measured) -> None:
    report = measured("--target", target)
    overall = report["overall"]
    assert report["frames"] == 2 * FRAMES and report["frames_missing"] == 0 and report["parts_missing"] == []
    assert report["points"] == {"from": "keypoints_2d", "kind": "exact", "noise_added": "none"}
    assert (report["provider"], report["flip_averaging"]) == ("CPUExecutionProvider", "inside the lifter")
    assert overall["p_mpjpe_mm"]["mean"] < overall["mpjpe_mm"]["mean"] < 90, "a walking stick figure on exact keypoints"
    assert overall["mpjpe_mm"]["low"] <= overall["mpjpe_mm"]["mean"] <= overall["mpjpe_mm"]["high"]
    assert overall["mpjpe_without_root_mm"]["mean"] == pytest.approx(overall["mpjpe_mm"]["mean"] * 16 / 15, abs=0.01)
    assert list(report["cameras"]) == ["door", "window"] and list(report["sequences"]) == ["first", "second"]
    for split in (report["cameras"], report["sequences"]):
        assert np.mean([part["mpjpe_mm"] for part in split.values()]) == pytest.approx(
            overall["mpjpe_mm"]["mean"], abs=0.01
        )
    assert len(report["joints_mm"]) == 16 and report["joints_mm"]["pelvis"] == 0
    assert np.mean(list(report["joints_mm"].values())) == pytest.approx(overall["mpjpe_mm"]["mean"], abs=0.01)
    assert f"estimated from {FRAMES} frames" in report["calibration"]["door"]["up_from"]


def test_the_table_for_people(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--target", str(target), "--camera", "1", "--every", "5"]) == 0
    captured = capsys.readouterr()
    assert "overall p_mpjpe_mm" in captured.out and "cameras door" in captured.out and "evaluating" in captured.err
    assert len(captured.out.splitlines()) < 50


def test_same_as_poseda_run(target: Path, target_arrays: dict[str, Any], tmp_path: Path, measured: Measured) -> None:
    np.savez(
        tmp_path / "k.npz",
        xy=target_arrays["keypoints_2d"][:, 0], score=np.ones((FRAMES, 17)), skeleton="h36m17",
        image_size=target_arrays["image_size"][0], K=target_arrays["K"][0],
    )  # fmt: skip
    assert (
        run_main(["--keypoints", str(tmp_path / "k.npz"), "--out", str(tmp_path / "a"), "--quiet", "--no-smooth"]) == 0
    )
    poses = load_poses(tmp_path / "a.poses.npz")
    (view,) = read_target(target, cameras=(1,)).views
    off_mm = np.linalg.norm(poses.pose_m - (view.true_m - view.true_m[:, :1]), axis=-1) * 1000
    flags = ("--target", target, "--camera", 1, "--protocol", "h36m17")
    lifted, filed = measured(*flags)["overall"], measured(*flags, "--poses", tmp_path / "a.poses.npz")["overall"]
    assert lifted["mpjpe_mm"]["mean"] == pytest.approx(off_mm.mean(), abs=0.01)
    for name, figures in lifted.items():
        assert figures["mean"] == pytest.approx(filed[name]["mean"], abs=0.01), name


def test_true_poses_have_no_error(target: Path, tmp_path: Path, measured: Measured) -> None:
    true_poses(target, 1).save(tmp_path / "true.poses.npz")
    report = measured("--target", target, "--camera", 1, "--poses", tmp_path / "true.poses.npz")
    overall = {name: figures["mean"] for name, figures in report["overall"].items()}
    assert overall.pop("pck150_percent") == 100 and overall.pop("auc_percent") == pytest.approx(3000 / 31, abs=1e-3)
    assert max(overall.values()) < 0.01, overall
    assert report["points"] == "not said by the poses file"


@pytest.mark.parametrize(("protocol", "joints", "hits"), [("h36m17", 17, 17), ("h36m16", 16, 16), ("limbs12", 12, 12)])
def test_protocols_count_their_joints(
    protocol: str, joints: int, hits: int, target: Path, tmp_path: Path, measured: Measured
) -> None:
    """Both wrists 0.17 m off, the rest true."""
    true_poses(target, 2, 0.17).save(tmp_path / "p.poses.npz")
    flags = ("--target", target, "--camera", 2, "--protocol", protocol, "--poses", tmp_path / "p.poses.npz")
    overall = measured(*flags)["overall"]
    assert overall["mpjpe_mm"]["mean"] == pytest.approx(2 * 170 / joints, abs=0.01)
    assert overall["pck150_percent"]["mean"] == pytest.approx(100 * (hits - 2) / hits, abs=0.01)
    assert overall["velocity_mm_per_frame"]["mean"] < 0.01 and overall["root_error_mm"]["mean"] < 0.01


def test_missing_poses_and_unknown_truth_are_told_apart(
    target_arrays: dict[str, Any], tmp_path: Path, measured: Measured
) -> None:
    """Truth unknown in 7 frames: not due. No pose in 3 others: missing. A second person: ignored."""
    np.savez(tmp_path / "whole.npz", **target_arrays)
    poses = true_poses(tmp_path / "whole.npz", 1)
    target_arrays["positions_world"][:7, 2] = np.nan
    np.savez(tmp_path / "holes.npz", **target_arrays)
    keep = np.r_[0:50, 53:FRAMES, 59]
    person = np.r_[np.zeros(FRAMES - 3, int), 1]
    pose_m, root_m = poses.pose_m[keep], poses.root_m[keep]
    pose_m[-1, WRISTS] += 5
    Poses3D(keep, person, keep / 30, pose_m, root_m, poses.score[keep]).save(tmp_path / "p.poses.npz")
    report = measured("--target", tmp_path / "holes.npz", "--camera", 1, "--poses", tmp_path / "p.poses.npz")
    assert (report["frames"], report["frames_missing"]) == (FRAMES - 10, 3)
    assert report["overall"]["mpjpe_mm"]["mean"] < 0.01


def test_detected_points(target: Path, measured: Measured) -> None:
    report = measured("--target", target, "--points", "keypoints_2d_det", "--camera", 1)
    assert report["points"]["kind"] == "detected"
    assert (report["frames"], report["frames_missing"]) == (FRAMES - 5, 5), "nobody is seen in five frames"


def test_every_takes_frames_of_both_sides(target: Path, tmp_path: Path, measured: Measured) -> None:
    true_poses(target, 1).save(tmp_path / "true.poses.npz")
    report = measured("--target", target, "--camera", 1, "--every", 4, "--poses", tmp_path / "true.poses.npz")
    assert report["frames"] == FRAMES // 4 and report["overall"]["mpjpe_mm"]["mean"] < 0.01
    assert report["overall"]["velocity_mm_per_frame"]["mean"] < 0.01


def test_noise_has_the_size_and_the_seed_that_is_said(target: Path, measured: Measured) -> None:
    exact = read_target(target)
    noisy, again, other = (with_noise(exact, 0.02, seed) for seed in (1, 1, 2))
    moved_px = noisy.views[0].keypoints.xy_px - exact.views[0].keypoints.xy_px
    side_px = np.ptp(exact.views[0].keypoints.xy_px, axis=2).max(-1)
    assert (moved_px / side_px[..., None, None]).std() == pytest.approx(0.02, rel=0.1)
    np.testing.assert_array_equal(noisy.views[1].keypoints.xy_px, again.views[1].keypoints.xy_px)
    assert (noisy.views[1].keypoints.xy_px != other.views[1].keypoints.xy_px).any()
    report = measured("--target", target, "--noise", 0.02, "--seed", 1)
    assert report["points"]["noise_added"] == "sigma 0.02 of the person's box, seed 1"
    clean_mm = measured("--target", target)["overall"]["velocity_mm_per_frame"]["mean"]
    assert report["overall"]["velocity_mm_per_frame"]["mean"] > 2 * clean_mm


def write_part(folder: Path, name: str, *, matlab_order: bool = False, univ_scale: float = 0.9) -> np.ndarray:
    """One part of the test set: 20 frames, of which 0 to 4 are not valid and 5 has a wrist outside; its joints in m."""
    import h5py

    size_wh = (1920, 1080) if name in ("TS5", "TS6") else (2048, 2048)
    camera = Camera(size_wh, (1500.0, 1490.0), (size_wh[0] / 2 + 9, size_wh[1] / 2 - 7))
    rotation, translation = looking_down(0.1)
    xyz_m = walk_m(20) @ rotation.T + translation
    xyz_m[5, H36M17.index("left_wrist"), 0] += 4
    univ_m = xyz_m[:, :1] + univ_scale * (xyz_m - xyz_m[:, :1])
    order = [H36M17.index(joint) for joint in MPI_ORDER.split()]
    arrays = {
        "annot2": camera.project(xyz_m)[:, None, order],
        "annot3": 1000 * xyz_m[:, None, order],
        "univ_annot3": 1000 * univ_m[:, None, order],
        "valid_frame": (np.arange(20) >= 5).astype(float)[:, None],
    }
    (folder / name).mkdir(parents=True)
    with h5py.File(folder / name / "annot_data.mat", "w") as archive:
        for key, array in arrays.items():
            archive[key] = array.T if matlab_order else array
    return xyz_m


def test_mpi_inf_3dhp_is_read_by_joint_names(tmp_path: Path) -> None:
    xyz_m = write_part(tmp_path, "TS1")
    write_part(tmp_path, "TS5", matlab_order=True)
    truth = read_mpi_inf_3dhp(tmp_path)
    assert [view.name for view in truth.views] == ["TS1", "TS5"]
    assert truth.missing == tuple(f"{name}: no {name}/annot_data.mat" for name in PARTS if name not in ("TS1", "TS5"))
    for view in truth.views:
        np.testing.assert_allclose(view.true_m, xyz_m[5:], atol=1e-9)
        np.testing.assert_allclose(view.camera.project(view.true_m), view.keypoints.xy_px[:, 0], atol=0.01)
        np.testing.assert_allclose(view.camera.focal_px, (1500, 1490), atol=1e-6)
    assert [view.camera.size_wh for view in truth.views] == [(2048, 2048), (1920, 1080)]


def test_mpi_inf_3dhp_protocols(tmp_path: Path, measured: Measured) -> None:
    xyz_m = write_part(tmp_path, "TS2")
    figures = {}
    for protocol in ("3dhp-2929", "3dhp-official", "h36m16"):
        report = measured("--mpi-inf-3dhp", tmp_path, "--protocol", protocol, "--every", 1)
        assert len(report["parts_missing"]) == 5 and list(report["cameras"]) == ["TS2"]
        figures[protocol] = (report["frames"], *list(report["protocol"].values())[1:], report["reference"])
    assert figures == {
        "3dhp-2929": (14, 16, 16, "univ_annot3"),
        "3dhp-official": (15, 17, 14, "annot3"),
        "h36m16": (15, 16, 16, "annot3"),
    }
    univ = read_mpi_inf_3dhp(tmp_path, "univ_annot3", inside_only=True).views[0].true_m
    np.testing.assert_allclose(univ[:, 0], xyz_m[6:, 0], atol=1e-9)
    np.testing.assert_allclose(univ - univ[:, :1], 0.9 * (xyz_m[6:] - xyz_m[6:, :1]), atol=1e-9)


def damaged(folder: Path) -> Path:
    (folder / "TS3").mkdir(parents=True)
    (folder / "TS3" / "annot_data.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    return folder


def other_camera(folder: Path) -> Path:
    """3D of another camera than the 2D."""
    import h5py

    write_part(folder, "TS1")
    with h5py.File(folder / "TS1" / "annot_data.mat", "r+") as archive:
        archive["annot3"][..., 0] += 2000 * (np.arange(17) % 7)
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none", "folder not found"),
        (lambda p: p, "holds none of TS1/annot_data.mat"),
        (damaged, "not a readable MATLAB 7.3 file"),
        (other_camera, "does not project onto annot2"),
    ],
)
def test_bad_mpi_inf_3dhp(
    make: Callable[[Path], Path], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--mpi-inf-3dhp", str(make(tmp_path))]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_without_h5py(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_part(tmp_path, "TS1")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert main(["--mpi-inf-3dhp", str(tmp_path)]) == 3
    assert "pip install 'poseda-deploy[train]'" in capsys.readouterr().err


def write_peer(path: Path, rows: int | str = "n", joints: int = 16) -> Path:
    """A lifter that gives 2 * (u, v, 0), with the right wrist 0.2 m further in x."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    bias = np.zeros((1, joints, 3), np.float32)
    bias[0, -1, 0] = 0.2
    weight = np.array([[2, 0, 0], [0, 2, 0]], np.float32)
    nodes = [helper.make_node("MatMul", ["uv", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["xyz"])]
    graph = helper.make_graph(
        nodes,
        "peer",
        [helper.make_tensor_value_info("uv", TensorProto.FLOAT, [rows, joints, 2])],
        [helper.make_tensor_value_info("xyz", TensorProto.FLOAT, [rows, joints, 3])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("rows", ["n", 1])
def test_peer_gets_screen_coordinates(rows: int | str, target: Path, tmp_path: Path, measured: Measured) -> None:
    report = measured("--target", target, "--peer-onnx", write_peer(tmp_path / "peer.onnx", rows))
    assert (report["peer_onnx"], report["flip_averaging"]) == ("peer.onnx", "no")
    assert report["provider"] == "CPUExecutionProvider" and "root_error_mm" not in report["overall"]
    assert report["calibration"]["door"] == {"from": "none: it takes no camera"}
    order = [H36M17.index(joint) for joint in PEER_JOINTS]
    off_mm = []
    for view in read_target(target).views:
        pose_m = np.zeros((FRAMES, 16, 3))
        pose_m[..., :2] = 2 * (view.keypoints.xy_px[:, 0, order] * 2 / 1280 - (1, 720 / 1280))
        pose_m[:, -1, 0] += 0.2
        true_m = view.true_m[:, order]
        off_mm.append(np.linalg.norm(pose_m - pose_m[:, :1] - true_m + true_m[:, :1], axis=-1) * 1000)
    assert report["overall"]["mpjpe_mm"]["mean"] == pytest.approx(np.mean(off_mm), abs=0.01)


class Spy:
    """Stands for an onnxruntime session; keeps what it was fed."""

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="uv")]

    def run(self, _: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.fed = feed["uv"]
        return [np.zeros((len(self.fed), 16, 3), np.float32)]


def test_screen_coordinates_keep_the_shape_of_the_image(target: Path) -> None:
    """u = 2x/w - 1, v = 2y/w - h/w: corners at (-1, -9/16) and (1, 9/16) of a 16:9 image."""
    (view,) = read_target(target, cameras=(1,)).views
    view.keypoints.xy_px[:, 0, 0] = (0, 0)
    view.keypoints.xy_px[:, 0, 16] = (1280, 720)
    spy = Spy()
    PeerLifter(target, spy, FRAMES, flip=False).lift(view, lambda _: None)
    np.testing.assert_allclose(spy.fed[:, [0, 15]], np.broadcast_to([[-1, -9 / 16], [1, 9 / 16]], (FRAMES, 2, 2)))


def test_peer_flip_shares_a_one_sided_error(target: Path, tmp_path: Path, measured: Measured) -> None:
    """The right wrist is 0.2 m off to the right: half of it, and as much to the left at the left wrist."""
    (view,) = read_target(target, cameras=(1,)).views
    path = write_peer(tmp_path / "peer.onnx")
    plain, flipped = (open_peer(path, flip=flip).lift(view, lambda _: None).pose_m for flip in (False, True))
    moved_m = (flipped - plain)[:, WRISTS]
    np.testing.assert_allclose(moved_m, np.broadcast_to([[-0.1, 0, 0], [-0.1, 0, 0]], moved_m.shape), atol=1e-5)
    report = measured("--target", target, "--peer-onnx", path, "--peer-flip")
    assert report["flip_averaging"] == "yes"


def target_without(arrays: dict[str, Any], path: Path, *keys: str, **other: np.ndarray) -> Path:
    np.savez(path, **{key: value for key, value in (arrays | other).items() if key not in keys})
    return path


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "exactly one of --target"),
        (["--target", "no.npz"], "file not found"),
        (["--target", "{t}", "--mpi-inf-3dhp", "."], "exactly one of --target"),
        (["--target", "{t}", "--points", "mediapipe33_px"], "no points 'mediapipe33_px'"),
        (["--target", "{t}", "--points", "fps"], "fps must be (T,C,17,2)"),
        (["--target", "{t}", "--reference", "truth"], "lacks truth"),
        (["--target", "{t}", "--reference", "keypoints_2d"], "keypoints_2d must be (T,17,3)"),
        (["--target", "{t}", "--camera", "3"], "no camera 3"),
        (["--target", "{t}", "--camera", "0"], "counts from 1 to 2"),
        (["--target", "{t}", "--every", "0"], "--every must be"),
        (["--target", "{t}", "--noise", "2"], "--noise must lie"),
        (["--target", "{t}", "--peer-flip"], "belongs to --peer-onnx"),
        (["--target", "{t}", "--bundle", "b", "--poses", "p"], "at most one of --bundle"),
        (["--target", "{t}", "--poses", "p.npz", "--noise", "0.1"], "nothing to act on"),
        (["--target", "{t}", "--poses", "p.npz"], "of one camera"),
        (["--target", "{t}", "--protocol", "3dhp-2929"], "defined on --mpi-inf-3dhp"),
        (["--mpi-inf-3dhp", ".", "--points", "x"], "belong to --target"),
        (["--target", "{t}", "--seed", "-1", "--noise", ".1"], "--seed must be 0 or more"),
        (["--target", "{t}", "--camera", "9" * 30], "camera"),
        (["--target", "{t}", "--bundle", "none"], "no bundle at none"),
        (["--target", "{t}", "--peer-onnx", "none.onnx"], "ONNX file not found"),
        (["--target", "{t}", "--peer-onnx", "{p}", "--protocol", "h36m17"], "no frame of target.npz has both"),
        (["--target", "{t}", "--peer-onnx", "{p17}"], "expected one of (N,16,2)"),
    ],
)
def test_bad_input_is_one_line(
    flags: list[str], message: str, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer, peer17 = write_peer(tmp_path / "p.onnx"), write_peer(tmp_path / "p17.onnx", joints=17)
    assert main([flag.format(t=target, p=peer, p17=peer17) for flag in flags] + ["--quiet"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and message in lines[0] and lines[0].startswith("poseda-eval: ")


def test_a_target_that_lacks_a_camera_is_refused(
    target_arrays: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, message in (
        (target_without(target_arrays, tmp_path / "a.npz", "R"), "lacks R"),
        (target_without(target_arrays, tmp_path / "b.npz", T=np.zeros((1, 3))), "T must be (2, 3) for 2 cameras"),
        (target_without(target_arrays, tmp_path / "c.npz", seq_id=np.zeros(3, int)), "seq_id has 3 frames"),
    ):
        assert main(["--target", str(path)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("points", "reference", "protocol"),
    [
        ("mediapipe33_px", "positions_world_openpose", "limbs12"),
        ("keypoints_2d_det", "positions_world", "h36m16"),
    ],
)
def test_real_target_reads_as_poseda_run_does(
    points: str, reference: str, protocol: str, shared_data: Path, tmp_path: Path, measured: Measured
) -> None:
    path = shared_data / "pose2sim_single_4cam_mediapipe.npz"
    data = np.load(path)
    px = data[points][:, 1]
    score = px[..., 2] if px.shape[-1] == 3 else data["keypoints_2d_conf"][:, 1]
    np.savez(
        tmp_path / "k.npz",
        xy=px[..., :2], score=np.clip(score, 0, 1), skeleton="mediapipe33" if px.shape[1] == 33 else "h36m17",
        image_size=data["image_size"][1], K=data["K"][1], dist=data["dist"][1], fps=data["fps"],
    )  # fmt: skip
    assert (
        run_main(["--keypoints", str(tmp_path / "k.npz"), "--out", str(tmp_path / "a"), "--quiet", "--no-smooth"]) == 0
    )
    poses = load_poses(tmp_path / "a.poses.npz")
    true_m = data[reference].astype(float) @ data["R"][1].T + data["T"][1]
    limbs = [j for j in range(17) if j not in (0, 7, 8, 9, 10)]
    joints = limbs if protocol == "limbs12" else [j for j in range(17) if j != 9]
    off_mm = np.linalg.norm(poses.pose_m - (true_m - true_m[:, :1]), axis=-1)[:, joints] * 1000
    root_mm = np.linalg.norm(poses.root_m - true_m[:, 0], axis=-1) * 1000
    flags = ("--target", path, "--camera", 2, "--points", points, "--reference", reference, "--protocol", protocol)
    report = measured(*flags)
    assert report["points"]["kind"] == "detected" and report["interval"] == "none: one sequence only"
    assert report["overall"]["mpjpe_mm"]["mean"] == pytest.approx(off_mm.mean(), abs=0.01)
    assert report["overall"]["root_error_mm"]["mean"] == pytest.approx(root_mm.mean(), abs=0.01)
