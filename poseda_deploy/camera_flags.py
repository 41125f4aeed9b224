"""Which camera: the flags that every command with 2D takes, and what is assumed where they say nothing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from poseda_deploy.camera import Camera, default_camera, same_shape
from poseda_deploy.errors import InputError
from poseda_deploy.intrinsics import load_intrinsics
from poseda_deploy.terminal import CommonOptions, say


@dataclass(frozen=True)
class CameraOptions(CommonOptions):
    """Flags that say what camera it was."""

    intrinsics: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Camera file: OpenCV YAML or JSON, Pose2Sim TOML."""
    camera_name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Which camera, where that file has several."""
    focal_px: Annotated[float | None, tyro.conf.arg(metavar="PX")] = None
    """Focal length in pixels."""
    fov_deg: Annotated[float | None, tyro.conf.arg(metavar="DEG")] = None
    """Angle of view across the longer image side."""


def choose_camera(
    options: CameraOptions, own: Camera | None, size_wh: tuple[int, int], prog: str, adapted: Camera | None = None
) -> Camera:
    """The file's own camera, else the flags, else the one that the bundle is adapted to, else the stated default.

    Says so where one is ignored or guessed.
    """
    flags = (options.intrinsics, options.focal_px, options.fov_deg)
    if sum(flag is not None for flag in flags) > 1:
        raise InputError("expected at most one of --intrinsics, --focal-px, --fov-deg")
    if own is not None:
        if any(flag is not None for flag in flags):
            say(f"{prog}: the keypoints file has its own K, which is used; the camera flags are ignored")
        return own
    if options.intrinsics is not None:
        return load_intrinsics(options.intrinsics, size_wh, options.camera_name)
    if options.focal_px is not None:
        return Camera.from_focal(options.focal_px, size_wh, "--focal-px")
    if options.fov_deg is not None:
        return Camera.from_fov(options.fov_deg, size_wh, "--fov-deg")
    if adapted is not None and same_shape(adapted.size_wh, size_wh):
        return replace(adapted.resized(size_wh), origin=f"bundle ({adapted.origin})")
    camera = default_camera(size_wh)
    say(f"{prog}: no intrinsics given: {camera.origin}; distances scale with it (--intrinsics, --fov-deg)")
    return camera
