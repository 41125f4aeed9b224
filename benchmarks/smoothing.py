"""Jitter, lag, error and running calibration, on real video and on targets whose truth is known.

    python benchmarks/smoothing.py VIDEO_DIR DATA_DIR jitter|calibration|error

VIDEO_DIR holds pose2sim_cam01..04.mp4 and sports2d_demo.mp4; DATA_DIR pose2sim_single_4cam_mediapipe.npz and
free_target_cmu13_14_x_pose2sim_cams.npz. Prints JSON.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy.signal import savgol_filter
from tracking import Detections, detections

from poseda_deploy.backend import Backend, open_backend, with_camera
from poseda_deploy.bundle import Bundle, load_bundle, shipped_bundle_path
from poseda_deploy.calibrate import Known, angle_rad, calibrate, tiled
from poseda_deploy.camera import Camera
from poseda_deploy.keypoints import Keypoints2D
from poseda_deploy.runtime.lift import lift_tracked, smooth_and_fill
from poseda_deploy.runtime.people import LivePeople
from poseda_deploy.runtime.smooth import LiveSmoother, smoothed
from poseda_deploy.runtime.timing import StageClock
from poseda_deploy.runtime.track import identities, track_clip
from poseda_deploy.runtime.video import Frame
from poseda_deploy.sides import swapped_sides, with_sides
from poseda_deploy.skeleton import H36M17, MEDIAPIPE33, to_h36m17

LIMBS = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]
SLOW_M_S = 0.35

Smoother = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def live(time_s: np.ndarray, pose_m: np.ndarray, root_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One Euro."""
    smoother = LiveSmoother()
    rows = [smoother(float(t), p, r) for t, p, r in zip(time_s, pose_m, root_m, strict=True)]
    return np.stack([p for p, _ in rows]), np.stack([r for _, r in rows])


SMOOTHERS: dict[str, Smoother] = {
    "raw": lambda time_s, pose_m, root_m: (pose_m, root_m),
    "one euro": live,
    "zero lag": lambda time_s, pose_m, root_m: smoothed(time_s, pose_m, root_m, time_s),
}


def window(time_s: np.ndarray, seconds: float) -> int:
    """An odd number of frames."""
    return round(seconds / float(np.median(np.diff(time_s)))) | 1


def speed_m_s(time_s: np.ndarray, xyz_m: np.ndarray) -> np.ndarray:
    """Of the slow part of the motion, over about 0.35 s."""
    step_s = float(np.median(np.diff(time_s)))
    return np.linalg.norm(savgol_filter(xyz_m, max(5, window(time_s, 0.35)), 2, deriv=1, delta=step_s, axis=0), axis=-1)


def jitter_mm(time_s: np.ndarray, xyz_m: np.ndarray, slow: np.ndarray) -> float:
    """Deviation from the drift over 0.5 s, of joints in the frames in which they hardly move."""
    rest_m = xyz_m - savgol_filter(xyz_m, window(time_s, 0.5), 2, axis=0)
    return float(np.sqrt(np.square(rest_m).sum(-1)[slow].mean()) * 1000)


def lag_ms(time_s: np.ndarray, before_m: np.ndarray, after_m: np.ndarray) -> int:
    """Delay of one joint's velocity by cross-correlation, in steps of 1 ms."""
    grid_s = np.arange(time_s[0], time_s[-1], 0.001)
    a, b = (
        savgol_filter(np.stack([np.interp(grid_s, time_s, x) for x in xyz.T], -1), 101, 2, deriv=1, axis=0)
        for xyz in (before_m, after_m)
    )
    a, b, delays = a - a.mean(0), b - b.mean(0), range(-60, 151)
    parts = [b[200 + delay : len(b) - 200 + delay] for delay in delays]
    return delays[int(np.argmax([(a[200:-200] * part).sum() / np.linalg.norm(part) for part in parts]))]


def lifted_clip(lift_with: Backend, camera: Camera, xy_px: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pose and root of one person of h36m17 pixels, calibrated over the whole clip."""
    rows = np.concatenate([camera.undistorted(xy_px) * (score > 0)[..., None], score[..., None]], -1)
    rows, lift = rows.astype(np.float32), with_camera(lift_with, camera)
    found = calibrate(lift, rows, Known())
    return lift(rows, tiled(found.up, rows), tiled(found.bones_m, rows))


def real_clips(videos: Path, data: Path) -> Iterator[tuple[str, Camera, Detections, Detections, np.ndarray]]:
    """Name, camera, detections without and with MediaPipe's smoothing, and (frames, slot) of the person."""
    target = np.load(data / "pose2sim_single_4cam_mediapipe.npz")
    for c in range(4):
        size = (int(target["image_size"][c][0]), int(target["image_size"][c][1]))
        camera = Camera.from_matrix(target["K"][c], size, target["dist"][c])
        video = videos / f"pose2sim_cam0{c + 1}.mp4"
        yield video.stem, camera, detections(video, 2), detections(video, 1), only_person(video)
    video = videos / "sports2d_demo.mp4"
    yield (
        "man on the wall",
        Camera.from_fov(60, (1768, 994), ""),
        detections(video, 2),
        detections(video, 1),
        man(video),
    )


def only_person(video: Path) -> np.ndarray:
    """(n,2) frame and slot of whoever is seen best."""
    score = detections(video, 2).score.mean(-1)
    return np.stack([np.arange(len(score)), score.argmax(1)], 1)


def man(video: Path) -> np.ndarray:
    """(n,2) frame and slot of the man in frames 19 to 165, where both runs of the detector follow him."""
    found = detections(video, 2)
    identity = identities(found.time_s, *to_h36m17(found.xy_px, found.score, MEDIAPIPE33))[19:165]
    frame, slot = np.nonzero(identity == np.bincount(identity[identity >= 0]).argmax())
    return np.stack([frame + 19, slot], 1)


def report_jitter(videos: Path, data: Path) -> dict[str, Any]:
    """Of limbs relative to the pelvis, ours and MediaPipe's world landmarks, on the same frames."""
    report: dict[str, Any] = {}
    world_limbs = [MEDIAPIPE33.index(H36M17.joints[j]) for j in LIMBS]
    with open_backend(load_bundle(shipped_bundle_path()), "ort-cpu") as backend:
        for name, camera, plain, own, where in real_clips(videos, data):
            frame, slot = where.T
            time_s, row = plain.time_s[frame], report.setdefault(name, {})
            xy_px, score = to_h36m17(plain.xy_px[frame, slot], plain.score[frame, slot], MEDIAPIPE33)
            swapped = swapped_sides(time_s, np.zeros((len(frame), 1), int), xy_px[:, None], score[:, None])[:, 0]
            rows = with_sides(np.concatenate([xy_px, score[..., None]], -1), swapped)
            pose_m, root_m = lifted_clip(backend, camera, rows[..., :2], rows[..., 2])
            for kind, smoother in SMOOTHERS.items():
                row[f"ours {kind}"] = figures(time_s, pose_m, smoother(time_s, pose_m, root_m)[0], LIMBS)
                row[f"root {kind}"] = root_jitter_mm(time_s, smoother(time_s, pose_m, root_m)[1])
            before_m, after_m = plain.world_m[frame, slot], own.world_m[frame, 0]
            row["mediapipe raw"] = figures(time_s, before_m, before_m, world_limbs)
            row["mediapipe smoothed"] = figures(time_s, before_m, after_m, world_limbs)
    return report


def figures(time_s: np.ndarray, before_m: np.ndarray, after_m: np.ndarray, joints: list[int]) -> dict[str, float]:
    """Jitter of slow joints and lag of the fastest; speeds are those before."""
    speed = speed_m_s(time_s, before_m)[:, joints]
    fastest = joints[int(np.quantile(speed, 0.8, axis=0).argmax())]
    slow = jitter_mm(time_s, after_m[:, joints], speed < SLOW_M_S)
    return {"jitter_mm": round(slow, 1), "lag_ms": lag_ms(time_s, before_m[:, fastest], after_m[:, fastest])}


def root_jitter_mm(time_s: np.ndarray, root_m: np.ndarray) -> dict[str, float]:
    """Deviation from the drift over 0.5 s."""
    rest_mm = (root_m - savgol_filter(root_m, window(time_s, 0.5), 2, axis=0)).std(0) * 1000
    return {"across_mm": round(float(np.hypot(*rest_mm[:2])), 1), "depth_mm": round(float(rest_mm[2]), 1)}


def noisy_walkers(data: Path) -> Iterator[tuple[Camera, Keypoints2D, np.ndarray, np.ndarray]]:
    """Camera, 10 s of detections, true joints and true up: 2 virtual cameras, 4 times each, noise like a detector's."""
    target, random = np.load(data / "free_target_cmu13_14_x_pose2sim_cams.npz"), np.random.default_rng(0)
    for c, start in itertools.product((0, 2), (300, 1500, 2700, 3900)):
        size = (int(target["image_size"][c][0]), int(target["image_size"][c][1]))
        camera = Camera.from_matrix(target["K"][c], size, target["dist"][c])
        xy_px = target["keypoints_2d"][start : start + 300, c].astype(np.float64)
        noise = random.normal(size=xy_px.shape)
        noise += savgol_filter(random.normal(size=xy_px.shape), 9, 0, axis=0) * 3
        xy_px += 0.007 * np.ptp(xy_px[..., 1], axis=1)[:, None, None] * noise
        score = np.ones(xy_px.shape[:2], np.float32)
        score[:, [7, 9]] = 0
        keypoints = Keypoints2D(xy_px[:, None].astype(np.float32), score[:, None], size, H36M17, np.arange(300) / 30)
        true_m = target["positions_world"][start : start + 300] @ target["R"][c].T + target["T"][c]
        yield camera, keypoints, true_m, target["R"][c][:, 2]


def report_calibration(videos: Path, data: Path) -> dict[str, Any]:
    """Up and bone lengths after 1, 3 and 10 s against those of the whole clip, and what a frame costs."""
    bundle = load_bundle(shipped_bundle_path())
    off: dict[float, list[tuple[float, float, float]]] = {1.0: [], 3.0: [], 10.0: []}
    whole_deg, cost_ms, step_ms = [], [], []
    with open_backend(bundle, "ort-cpu") as backend:
        for camera, keypoints, _, true_up in noisy_walkers(data):
            whole = calibrate(with_camera(backend, camera), keypoints.model_input(camera)[:, 0], bundle.manifest.known)
            whole_deg.append(off_deg(whole.up, true_up))
            people = LivePeople(backend, camera, bundle.manifest.known, H36M17, 1)
            timed(people, cost_ms)
            for i, now_s in enumerate(keypoints.time_s.tolist()):
                start = perf_counter()
                people.step(Frame(i, now_s, np.zeros((2, 2, 3), np.uint8)), keypoints.xy_px[i], keypoints.score[i])
                step_ms.append((perf_counter() - start) * 1000)
                if (i + 1) / 30 in off:
                    bones_mm = np.abs(people.scene.bones_m[0] - whole.bones_m).mean() * 1000
                    up_deg = off_deg(people.up, true_up), off_deg(people.up, whole.up)
                    off[(i + 1) / 30].append((float(bones_mm), *up_deg))
    names = ("bones_off_whole_mm", "up_off_true_deg", "up_off_whole_deg")
    report = {
        f"after {s:g} s": dict(zip(names, np.round(np.mean(rows, 0), 1).tolist(), strict=True))
        for s, rows in off.items()
    }
    cost = {"mean": np.mean(cost_ms), "worst": np.max(cost_ms), "whole step p50": np.median(step_ms)}
    return {**report, "whole clip up_off_true_deg": round(float(np.mean(whole_deg)), 1)} | {
        "calibration ms a frame": {name: round(float(ms), 2) for name, ms in cost.items()}
    }


def timed(people: LivePeople, cost_ms: list[float]) -> None:
    """Note what each frame's calibration takes."""
    plain = people._calibrate

    def calibrate_timed() -> None:
        start = perf_counter()
        plain()
        cost_ms.append((perf_counter() - start) * 1000)

    people._calibrate = calibrate_timed  # type: ignore[method-assign]


def off_deg(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between two vectors."""
    return float(np.degrees(angle_rad(a[None], b[None]))[0])


def report_error(videos: Path, data: Path) -> dict[str, Any]:
    """MPJPE (pelvis-centred) and absolute error of the pelvis, mm, before and after smoothing."""
    bundle = load_bundle(shipped_bundle_path())
    joints = [j for j in range(17) if j != H36M17.index("neck")]
    report: dict[str, Any] = {}
    with open_backend(bundle, "ort-cpu") as backend:
        for name, clips, counted in (
            ("virtual cameras, noise", noisy_walkers(data), joints),
            ("real, MediaPipe heavy", real_target(data), LIMBS),
        ):
            rows = [errors_mm(backend, bundle, *clip[:3], counted) for clip in clips]
            report[name] = {k: np.round(np.mean([r[k] for r in rows], 0), 1).tolist() for k in rows[0]}
    return report


def real_target(data: Path) -> Iterator[tuple[Camera, Keypoints2D, np.ndarray]]:
    """Camera, MediaPipe's points and OpenPose's triangulated joints in camera axes, of each of four views."""
    target = np.load(data / "pose2sim_single_4cam_mediapipe.npz")
    for c in range(4):
        size = (int(target["image_size"][c][0]), int(target["image_size"][c][1]))
        seen = target["mediapipe33_px"][:, c].astype(np.float32)
        score = seen[..., 2].clip(0, 1)[:, None]
        keypoints = Keypoints2D(seen[:, None, :, :2], score, size, MEDIAPIPE33, np.arange(len(seen)) / 60)
        true_m = target["positions_world_openpose"] @ target["R"][c].T + target["T"][c]
        yield Camera.from_matrix(target["K"][c], size, target["dist"][c]), keypoints, true_m


def errors_mm(
    backend: Backend, bundle: Bundle, camera: Camera, keypoints: Keypoints2D, true_m: np.ndarray, joints: list[int]
) -> dict[str, tuple[float, float]]:
    """(MPJPE, root) of whole-clip lifting as it is, with One Euro, and without lag; the same frames for all."""
    raw, _ = lift_tracked(
        backend, track_clip(keypoints), camera, bundle.manifest.known, StageClock(), lambda _: None, smooth=False
    )
    steady = smooth_and_fill(raw, keypoints.time_s)
    kinds = {"raw": (raw.pose_m, raw.root_m), "one euro": live(raw.time_s, raw.pose_m, raw.root_m)}
    kinds["zero lag"] = (steady.pose_m, steady.root_m)
    true_m = true_m[raw.frame]
    good = np.isfinite(true_m).all((1, 2))
    return {
        kind: (
            float(np.linalg.norm(pose - true_m + true_m[:, :1], axis=-1)[good][:, joints].mean() * 1000),
            float(np.linalg.norm(root - true_m[:, 0], axis=-1)[good].mean() * 1000),
        )
        for kind, (pose, root) in kinds.items()
    }


REPORTS = {"jitter": report_jitter, "calibration": report_calibration, "error": report_error}


def main() -> None:
    """Measure one part and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("part", choices=sorted(REPORTS))
    args = parser.parse_args()
    print(json.dumps(REPORTS[args.part](args.videos, args.data), indent=1))


if __name__ == "__main__":
    main()
