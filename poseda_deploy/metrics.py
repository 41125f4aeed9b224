"""How far lifted joints are from true ones: pure functions on metres, nothing rounded or averaged over frames.

Each gives an array whose plain mean is the figure that papers print, so that any share of the frames, joints, cameras
or sequences can be averaged afterwards. Inputs are finite; frames with an unknown joint are left out before. Unless
said otherwise both poses are relative to the pelvis (`root_relative`) and restricted to the joints that count.
"""

import numpy as np
from jaxtyping import Float, Int

from poseda_deploy.skeleton import BONES, GROUP_FROM_LENGTH

PCK_LIMIT_MM = 150.0
AUC_LIMITS_MM = np.linspace(0, 150, 31)
"""0, 5, ..., 150: a perfect pose reads 30/31, because no error is below 0."""


def root_relative(xyz_m: Float[np.ndarray, "n j 3"], root: int = 0) -> Float[np.ndarray, "n j 3"]:
    """The same joints with the root joint at the origin; metres."""
    return xyz_m - xyz_m[:, root : root + 1]


def mpjpe_mm(pose_m: Float[np.ndarray, "n j 3"], true_m: Float[np.ndarray, "n j 3"]) -> Float[np.ndarray, "n j"]:
    """Protocol 1: distance of each joint as the poses stand (Ionescu et al., Human3.6M, PAMI 2014)."""
    return np.linalg.norm(pose_m.astype(np.float64) - true_m, axis=-1) * 1000


def without_joint(error_mm: Float[np.ndarray, "n j"], joint: int) -> Float[np.ndarray, "n k"]:
    """The errors less one joint: the root's is zero, so counting it reads (J-1)/J of the mean without it."""
    return np.delete(error_mm, joint, axis=1)


def n_mpjpe_mm(pose_m: Float[np.ndarray, "n j 3"], true_m: Float[np.ndarray, "n j 3"]) -> Float[np.ndarray, "n j"]:
    """Protocol 3: after the scale s = <pose, true> / <pose, pose> of each frame (Rhodin et al., CVPR 2018)."""
    pose_m = pose_m.astype(np.float64)
    scale = (pose_m * true_m).sum((1, 2)) / np.maximum((pose_m**2).sum((1, 2)), 1e-12)
    return mpjpe_mm(scale[:, None, None] * pose_m, true_m)


def p_mpjpe_mm(pose_m: Float[np.ndarray, "n j 3"], true_m: Float[np.ndarray, "n j 3"]) -> Float[np.ndarray, "n j"]:
    """Protocol 2: after the best rotation, translation and scale of each frame."""
    return mpjpe_mm(procrustes_m(pose_m, true_m), true_m)


def procrustes_m(pose_m: Float[np.ndarray, "n j 3"], true_m: Float[np.ndarray, "n j 3"]) -> Float[np.ndarray, "n j 3"]:
    """Each pose moved onto the true one by its least-squares similarity, no mirroring (Umeyama, PAMI 1991)."""
    pose_m, true_m = pose_m.astype(np.float64), true_m.astype(np.float64)
    middle = true_m.mean(1, keepdims=True)
    pose_m, true_m = pose_m - pose_m.mean(1, keepdims=True), true_m - middle
    u, strength, v = np.linalg.svd(pose_m.swapaxes(1, 2) @ true_m)
    proper = np.ones_like(strength)
    proper[:, 2] = np.sign(np.linalg.det(u @ v))
    scale = (strength * proper).sum(1) / np.maximum((pose_m**2).sum((1, 2)), 1e-12)
    return scale[:, None, None] * (pose_m @ (u * proper[:, None]) @ v) + middle


def pck_percent(error_mm: Float[np.ndarray, "n j"], limit_mm: float = PCK_LIMIT_MM) -> Float[np.ndarray, "n j"]:
    """100 where a joint is strictly nearer than the limit, else 0 (Mehta et al., 3DV 2017)."""
    return np.where(error_mm < limit_mm, 100.0, 0.0)


def auc_percent(error_mm: Float[np.ndarray, "n j"]) -> Float[np.ndarray, "n j"]:
    """Mean of `pck_percent` over AUC_LIMITS_MM, strictly nearer (Mehta et al., 3DV 2017)."""
    hits = sum((pck_percent(error_mm, limit_mm) for limit_mm in AUC_LIMITS_MM), np.zeros_like(error_mm))
    return hits / len(AUC_LIMITS_MM)


def velocity_error_mm(
    pose_m: Float[np.ndarray, "n j 3"], true_m: Float[np.ndarray, "n j 3"], run: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "m j"]:
    """MPJVE: distance between the steps of pose and truth from one frame to the next (Pavllo et al., CVPR 2019).

    mm a frame. `run` numbers the unbroken stretches of film; a step from one into another does not count.
    """
    joined = np.diff(run) == 0
    return mpjpe_mm(np.diff(pose_m, axis=0)[joined], np.diff(true_m, axis=0)[joined])


def root_error_mm(root_m: Float[np.ndarray, "n 3"], true_m: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Distance of the pelvis from the true one in camera axes: absolute position, nothing aligned."""
    return np.linalg.norm(root_m.astype(np.float64) - true_m, axis=-1) * 1000


def bone_lengths_m(pose_m: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "n 9"]:
    """Length of each of BONE_GROUPS, mean of left and right; the neck, which some lifters lack, has no say."""
    pairs = np.array([(bone.parent, bone.child) for bone in BONES])
    length = np.linalg.norm(pose_m[:, pairs[:, 1]].astype(np.float64) - pose_m[:, pairs[:, 0]], axis=-1)
    return np.stack([length[:, share > 0].mean(1) for share in GROUP_FROM_LENGTH], axis=1)


def bone_drift_mm(pose_m: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "9"]:
    """How much one person's bones breathe: standard deviation over the frames of each group's length; truth gives 0."""
    return bone_lengths_m(pose_m).std(0) * 1000


def bootstrap_interval(
    value: Float[np.ndarray, " n"], sequence: Int[np.ndarray, " n"], *, rounds: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean when whole sequences are drawn again (Efron, 1979); NaN for one sequence.

    Frames of one sequence resemble each other, so drawing frames would claim a certainty that is not there. With few
    sequences the interval is still too narrow: take it as the least doubt.
    """
    _, index = np.unique(sequence, return_inverse=True)
    count, total = np.bincount(index), np.bincount(index, value)
    if len(count) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(count), size=(rounds, len(count)))
    low, high = np.quantile(total[drawn].sum(1) / count[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)
