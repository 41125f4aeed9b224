"""The run on calibrated targets with 3D truth: each camera's 2D through poseda-run, its error in mm.

    python benchmarks/targets.py TARGET.npz --joints 16 [--points keypoints_2d] [--truth positions_world]
    python benchmarks/targets.py TARGET.npz --joints limbs --points mediapipe33_px --truth positions_world_openpose

TARGET.npz holds positions_world (T,17,3) m, R (C,3,3), T (C,3) with x_cam = R x_world + T, K, dist, image_size, fps,
and points (T,C,J,2) px, or (T,C,33,3) with MediaPipe's visibility last. Prints one JSON line a camera and the means.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from poseda_deploy.poses import load_poses
from poseda_deploy.runtime.cli import RunOptions, run
from poseda_deploy.skeleton import H36M17

LIMBS = [
    H36M17.index(f"{s}_{j}") for s in ("left", "right") for j in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
]
JOINTS = {"17": list(range(17)), "16": [j for j in range(17) if H36M17.joints[j] != "neck"], "limbs": LIMBS}


def write_keypoints(target: dict[str, np.ndarray], camera: int, points: str, path: Path) -> None:
    """The camera's 2D as a Keypoints2D file; not finite = missing."""
    px = target[points][:, camera].astype(np.float64)
    score = np.clip(px[..., 2], 0, 1) if px.shape[-1] == 3 else np.ones(px.shape[:2])
    score = np.where(np.isfinite(px).all(-1), score, 0)
    skeleton = "mediapipe33" if px.shape[1] == 33 else "h36m17"
    np.savez(
        path,
        xy=px[..., :2],
        score=score,
        image_size=target["image_size"][camera],
        skeleton=skeleton,
        K=target["K"][camera],
        dist=target["dist"][camera],
        fps=target["fps"],
    )


def errors_mm(
    target: dict[str, np.ndarray], camera: int, truth: str, joints: list[int], path: Path
) -> dict[str, float]:
    """Root-relative and absolute root error of the poses file."""
    true_m = target[truth] @ target["R"][camera].T + target["T"][camera]
    poses = load_poses(path)
    true_m = true_m[poses.frame]
    known = np.isfinite(true_m).all((1, 2))
    off_m = np.linalg.norm(poses.pose_m - (true_m - true_m[:, :1]), axis=-1)[known][:, joints]
    root_m = np.linalg.norm(poses.root_m - true_m[:, 0], axis=-1)[known]
    return {"mpjpe_mm": round(1000 * float(off_m.mean()), 1), "root_mm": round(1000 * float(root_m.mean()), 1)}


def main() -> None:
    """Every camera in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("--joints", choices=sorted(JOINTS), required=True)
    parser.add_argument("--points", default="keypoints_2d")
    parser.add_argument("--truth", default="positions_world")
    parser.add_argument("--bundle", type=Path, default=None)
    args = parser.parse_args()
    with np.load(args.target, allow_pickle=False) as archive:
        target = dict(archive)
    rows = []
    for camera in range(len(target["K"])):
        with tempfile.TemporaryDirectory() as folder:
            keypoints = Path(folder) / "k.npz"
            write_keypoints(target, camera, args.points, keypoints)
            run(RunOptions(keypoints=keypoints, out=Path(folder) / "a", bundle=args.bundle, quiet=True))
            poses = Path(folder) / "a.poses.npz"
            rows.append(errors_mm(target, camera, args.truth, JOINTS[args.joints], poses))
        print(json.dumps({"camera": camera + 1, **rows[-1]}))
    print(json.dumps({f"mean_{key}": round(float(np.mean([row[key] for row in rows])), 1) for key in rows[0]}))


if __name__ == "__main__":
    main()
