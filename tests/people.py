"""A walking stick figure and a known camera: the data of every test that needs people."""

import numpy as np

from poseda_deploy.skeleton import H36M17


def walk_m(frames: int, shin_m: float = 0.42) -> np.ndarray:
    """(frames,17,3) of someone walking on a circle and swinging the arms; metres, y up, floor at 0."""
    t = np.arange(frames) / 30
    swing, lift = 0.5 * np.sin(2 * np.pi * t), 0.5 * (1 - np.cos(2 * np.pi * t))
    pose = np.zeros((frames, 17, 3))

    def put(joint: str, xyz: tuple[object, object, object]) -> None:
        pose[:, H36M17.index(joint)] = np.stack([np.broadcast_to(np.asarray(x, float), frames) for x in xyz], -1)

    put("pelvis", (0, 0.93, 0))
    put("spine", (0, 1.15, 0.02))
    put("thorax", (0, 1.43, 0))
    put("neck", (0, 1.54, 0.02))
    put("head", (0, 1.65, 0.03))
    for side, x, phase in (("left", 0.1, 1.0), ("right", -0.1, -1.0)):
        leg, arm = swing * phase, -swing * phase
        put(f"{side}_hip", (x, 0.93, 0))
        put(f"{side}_knee", (x, 0.93 - 0.42 * np.cos(leg), 0.42 * np.sin(leg)))
        bend = leg - 0.4 * lift
        knee = pose[:, H36M17.index(f"{side}_knee")]
        put(f"{side}_ankle", (x, knee[:, 1] - shin_m * np.cos(bend), knee[:, 2] + shin_m * np.sin(bend)))
        put(f"{side}_shoulder", (1.75 * x, 1.43, 0))
        put(f"{side}_elbow", (1.9 * x, 1.43 - 0.28 * np.cos(arm), 0.28 * np.sin(arm)))
        elbow = pose[:, H36M17.index(f"{side}_elbow")]
        put(f"{side}_wrist", (2 * x, elbow[:, 1] - 0.25 * np.cos(arm + 0.4), elbow[:, 2] + 0.25 * np.sin(arm + 0.4)))
    placed = turned(pose, 0.4 * t) + np.stack([np.sin(0.4 * t), 0 * t, 0.5 * np.cos(0.4 * t)], -1)[:, None]
    return np.round(placed, 12)  # the last bits of sines are the processor's own


def turned(pose: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Rotate (T,17,3) about the y axis by (T,) radians."""
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y, z = np.moveaxis(pose, -1, 0)
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], -1)


def looking_down(pitch_rad: float, height_m: float = 1.6, distance_m: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """R, T of x_cam = R x_world + T for a world with y up; camera axes x right, y down, z forward."""
    cos, sin = np.cos(pitch_rad), np.sin(pitch_rad)
    rotation = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ np.diag([1.0, -1.0, -1.0])
    return rotation, -rotation @ np.array([0, height_m, distance_m])
