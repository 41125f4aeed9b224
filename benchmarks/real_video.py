"""The whole product on calibrated real video: detect, adapt, run, and score against a reference, camera by camera.

    python benchmarks/real_video.py VIDEO_DIR pose2sim_single_4cam_mediapipe.npz [--pose-model full] [--no-adapt]

VIDEO_DIR holds pose2sim_cam01..04.mp4. Prints JSON: MPJPE, P-MPJPE (12 limb joints, pelvis on pelvis), pelvis error in
mm, of recordings as `poseda-run` writes them (smoothed without lag) with the shipped and with an adapted bundle.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from poseda_deploy.bundle import shipped_bundle_path
from poseda_deploy.camera import Camera
from poseda_deploy.keypoints import Keypoints2D, load_keypoints
from poseda_deploy.metrics import p_mpjpe_mm, root_error_mm
from poseda_deploy.poses import load_poses
from poseda_deploy.runtime.cli import run
from poseda_deploy.runtime.detect_cli import DetectOptions, detect
from poseda_deploy.runtime.options import RunOptions
from poseda_deploy.skeleton import H36M17, to_h36m17
from poseda_deploy.train.adapt_cli import AdaptOptions
from poseda_deploy.train.adapt_cli import run as adapt

LIMBS = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]


def truth_of(target: Mapping[str, np.ndarray], camera: int) -> tuple[Camera, np.ndarray]:
    """One camera and the reference in its axes."""
    size_wh = (int(target["image_size"][camera][0]), int(target["image_size"][camera][1]))
    true_m = target["positions_world_openpose"] @ target["R"][camera].T + target["T"][camera]
    return Camera.from_matrix(target["K"][camera], size_wh, target["dist"][camera]), true_m


def first_frame(keypoints: Keypoints2D, camera: Camera, true_m: np.ndarray) -> int:
    """Of the video, in which the reference begins: where its projection fits best, read either way round."""
    seen_px, _ = to_h36m17(keypoints.xy_px[:, 0], keypoints.score[:, 0], keypoints.skeleton)
    true_px = camera.project(true_m)

    def apart_px(start: int) -> float:
        seen = seen_px[start : start + len(true_px)]
        readings = [np.linalg.norm(seen[:, order] - true_px, axis=-1) for order in (slice(None), H36M17.mirror)]
        return float(np.nanmedian(np.minimum(*readings)[:, LIMBS]))

    return min(range(len(seen_px) - len(true_px) + 1), key=apart_px)


def errors_mm(poses_file: Path, start: int, true_m: np.ndarray) -> dict[str, float]:
    """Of the person seen most."""
    poses = load_poses(poses_file)
    frame = poses.frame - start
    kept = (poses.person == np.bincount(poses.person).argmax()) & (frame >= 0) & (frame < len(true_m))
    kept[kept] = np.isfinite(true_m[frame[kept]]).all((1, 2))
    pose_m, root_m, true_m = poses.pose_m[kept], poses.root_m[kept], true_m[frame[kept]]
    ours_m, theirs_m = pose_m[:, LIMBS], (true_m - true_m[:, :1])[:, LIMBS]
    figures = {
        "mpjpe": np.linalg.norm(ours_m - theirs_m, axis=-1) * 1000,
        "p_mpjpe": p_mpjpe_mm(ours_m, theirs_m),
        "pelvis": root_error_mm(root_m, true_m[:, 0]),
    }
    return {"frames": int(kept.sum()), **{name: round(float(value.mean()), 1) for name, value in figures.items()}}


def camera_report(
    args: argparse.Namespace, target: Mapping[str, np.ndarray], index: int, folder: Path
) -> dict[str, Any]:
    """Detect once, then run with the shipped bundle and, unless told otherwise, with one adapted to this camera."""
    seen = folder / f"cam{index}.npz"
    video = str(args.videos / f"pose2sim_cam0{index + 1}.mp4")
    detect(DetectOptions(video=video, pose_model=args.pose_model, out=seen, quiet=True))
    camera, true_m = truth_of(target, index)
    keypoints = replace(load_keypoints(seen), camera=camera)
    keypoints.save(seen)
    start, report = first_frame(keypoints, camera, true_m), dict[str, Any]()
    bundles = {"shipped": shipped_bundle_path()}
    if args.adapt:
        summary = adapt(AdaptOptions(target_2d=(seen,), out=folder / f"adapted{index}", quiet=True))
        bundles["adapted"], report["verdict"] = Path(summary["bundle"]), summary["verdict"]
    for name, bundle in bundles.items():
        out = folder / f"{name}{index}"
        run(RunOptions(keypoints=seen, bundle=bundle, out=out, formats=("npz",), quiet=True))
        report[name] = errors_mm(out.with_name(f"{out.name}.poses.npz"), start, true_m)
    return report


def main() -> None:
    """Four cameras, then their means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--pose-model", default="full")
    parser.add_argument("--no-adapt", dest="adapt", action="store_false")
    args = parser.parse_args()
    with np.load(args.truth, allow_pickle=False) as archive, tempfile.TemporaryDirectory() as folder:
        target = {key: archive[key] for key in ("image_size", "K", "dist", "R", "T", "positions_world_openpose")}
        cameras = {f"cam0{c + 1}": camera_report(args, target, c, Path(folder)) for c in range(4)}
    kinds = ["shipped", "adapted"] if args.adapt else ["shipped"]
    means = {
        kind: {
            name: round(float(np.mean([report[kind][name] for report in cameras.values()])), 1)
            for name in ("mpjpe", "p_mpjpe", "pelvis")
        }
        for kind in kinds
    }
    print(json.dumps({"pose_model": args.pose_model, **cameras, "mean": means}, indent=1))


if __name__ == "__main__":
    main()
