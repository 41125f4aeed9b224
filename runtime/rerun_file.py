"""Recordings for Rerun's viewer: joints and bones of everybody over time, and the camera that filmed them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from poseda_deploy.camera import Camera
from poseda_deploy.poses import Poses3D
from poseda_deploy.skeleton import H36M17

from .draw import BONE_WIDTH_M, PEOPLE, tint
from .takes import Rate, blocks_of, constant_rate, people, upright_axes

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
    rate = constant_rate(poses)
    for who, (first, last) in sorted(people(poses).items()):
        _log_person(recording, who, blocks_of(poses, first, last, who), axes, rate)
    recording.flush()
    recording.disconnect()


def _drawn_focal_px(camera: Camera) -> tuple[float, float]:
    """Of the pinhole that Rerun draws for this camera; for a fisheye, which it has not, one of about its view."""
    if camera.lens != "fisheye":
        return camera.focal_px
    across, down = camera.pyramid
    return camera.size_wh[0] / 2 / across, camera.size_wh[1] / 2 / down


def _log_person(recording: Any, who: int, blocks: Iterable[Poses3D], axes: Float[Array, "3 3"], rate: Rate) -> None:
    import rerun

    name = f"world/person{who}"
    hue, edges = PEOPLE[who % len(PEOPLE)], np.array(H36M17.edges)
    colours = [tint(joint, hue)[::-1] for joint in range(17)]
    radius_m, of_bones = BONE_WIDTH_M / 2, [colours[child] for _, child in H36M17.edges]
    recording.log(f"{name}/joints", rerun.Points3D.from_fields(colors=colours, radii=radius_m), static=True)
    recording.log(f"{name}/bones", rerun.LineStrips3D.from_fields(colors=of_bones, radii=radius_m / 2), static=True)
    left = (-1, -np.inf)
    for block in blocks:
        joints_m, rows = block.joints_m @ axes.T, len(block)
        at = [rerun.TimeColumn("frame", sequence=block.frame), rerun.TimeColumn("time", duration=block.time_s)]
        joints = rerun.Points3D.columns(positions=joints_m.reshape(-1, 3)).partition([17] * rows)
        bones = rerun.LineStrips3D.columns(strips=joints_m[:, edges].reshape(-1, 2, 3)).partition([len(edges)] * rows)
        recording.send_columns(f"{name}/joints", indexes=at, columns=joints)
        recording.send_columns(f"{name}/bones", indexes=at, columns=bones)
        for frame, time_s in zip(block.frame.tolist(), block.time_s.tolist(), strict=True):
            if frame - left[0] > 1 and rate.longest_s < time_s - left[1] < np.inf:
                _clear(recording, name, *left, rate)
            left = (frame, time_s)
    _clear(recording, name, *left, rate)


def _clear(recording: Any, name: str, frame: int, time_s: float, rate: Rate) -> None:
    """One frame after the person was last there: the viewer keeps what nobody clears."""
    import rerun

    recording.set_time("frame", sequence=frame + 1)
    recording.set_time("time", duration=time_s + 1 / float(rate.fps))
    recording.log(name, rerun.Clear(recursive=True))
