"""Recordings for Rerun's viewer: joints and bones of everybody over time, and the camera that filmed them."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.camera import Camera
from poseda_deploy.poses import Poses3D
from poseda_deploy.skeleton import H36M17

from .draw import BONE_WIDTH_M, PEOPLE, tint
from .takes import at_constant_rate, upright_axes

Array = np.ndarray


def write_rrd(poses: Poses3D, up: Float[Array, "3"], camera: Camera | None, path: Path) -> None:
    """Metres, y up, origin at the camera; timelines `frame` and `time`; whoever leaves is cleared one frame later."""
    import rerun  # require_libraries has looked for it

    recording = rerun.RecordingStream("poseda-deploy")
    recording.save(path)
    axes = upright_axes(up)
    recording.log("world", rerun.ViewCoordinates.RIGHT_HAND_Y_UP, static=True)
    if camera is not None:
        recording.log("world/camera", rerun.Transform3D(mat3x3=axes), static=True)
        focal, center, size = _drawn_focal_px(camera), camera.center_px, camera.size_wh
        recording.log(
            "world/camera", rerun.Pinhole(focal_length=focal, principal_point=center, resolution=size), static=True
        )
    period_s = 1 / float(at_constant_rate(poses)[1])
    for who in np.unique(poses.person).tolist():
        mine = (poses.person == who) & np.isfinite(poses.joints_m).all((1, 2))
        _log_person(recording, who, poses.frame[mine], poses.time_s[mine], poses.joints_m[mine] @ axes.T, period_s)
    recording.flush()
    recording.disconnect()


def _drawn_focal_px(camera: Camera) -> tuple[float, float]:
    """Of the pinhole that Rerun draws for this camera; for a fisheye, which it has not, one of about its view."""
    if camera.lens != "fisheye":
        return camera.focal_px
    across, down = camera.pyramid
    return camera.size_wh[0] / 2 / across, camera.size_wh[1] / 2 / down


def _log_person(
    recording: Any, who: int, frame: Array, time_s: Array, joints_m: Float[Array, "t 17 3"], period_s: float
) -> None:
    import rerun

    name = f"world/person{who}"
    hue, edges = PEOPLE[who % len(PEOPLE)], np.array(H36M17.edges)
    colours = [tint(joint, hue)[::-1] for joint in range(17)]
    at = [rerun.TimeColumn("frame", sequence=frame), rerun.TimeColumn("time", duration=time_s)]
    joints = rerun.Points3D.columns(positions=joints_m.reshape(-1, 3)).partition([17] * len(frame))
    bones = rerun.LineStrips3D.columns(strips=joints_m[:, edges].reshape(-1, 2, 3)).partition([len(edges)] * len(frame))
    radius_m, of_bones = BONE_WIDTH_M / 2, [colours[child] for _, child in H36M17.edges]
    recording.log(f"{name}/joints", rerun.Points3D.from_fields(colors=colours, radii=radius_m), static=True)
    recording.log(f"{name}/bones", rerun.LineStrips3D.from_fields(colors=of_bones, radii=radius_m / 2), static=True)
    recording.send_columns(f"{name}/joints", indexes=at, columns=joints)
    recording.send_columns(f"{name}/bones", indexes=at, columns=bones)
    for i in np.flatnonzero(np.diff(frame, append=frame[-1] + 2) > 1):  # the viewer keeps what nobody clears
        recording.set_time("frame", sequence=int(frame[i]) + 1)
        recording.set_time("time", duration=float(time_s[i]) + period_s)
        recording.log(name, rerun.Clear(recursive=True))
