"""Which camera, and how it stands: flags of every command that reads 2D, and what is assumed where they say nothing."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from poseda_deploy.calibrate import Known, unit, without_scene
from poseda_deploy.camera import Camera, default_camera, same_shape, unlike
from poseda_deploy.errors import InputError
from poseda_deploy.intrinsics import load_intrinsics
from poseda_deploy.terminal import ReadOptions, say

_BLIND = 0.005  # of the picture: less than that, at the very corners, no body is lost


@dataclass(frozen=True)
class CameraOptions(ReadOptions):
    """Flags that say what camera it was."""

    intrinsics: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Camera file: OpenCV YAML or JSON, Pose2Sim TOML."""
    camera_name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Which camera, where that file has several."""
    focal_px: Annotated[float | None, tyro.conf.arg(metavar="PX")] = None
    """Focal length in pixels."""
    fov_deg: Annotated[float | None, tyro.conf.arg(metavar="DEG")] = None
    """Angle of view across the longer image side."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """A name without a file that has several."""
        yield from super().idle()
        if self.intrinsics is None:
            yield "camera_name", "--intrinsics FILE"


@dataclass(frozen=True)
class SceneOptions(CameraOptions):
    """And flags that say how it stands, and before whom: what is given is not estimated."""

    up: tuple[float, float, float] | None = None
    """Direction that points up in camera axes (x right, y down, z forward), from an IMU: 0 -1 0 is a level camera."""
    person_height: Annotated[float | None, tyro.conf.arg(metavar="M")] = None
    """Height of the people in metres, which one camera cannot see."""
    camera_height: Annotated[float | None, tyro.conf.arg(metavar="M")] = None
    """Or height of the camera above their floor."""

    def check(self) -> None:
        """One scale, of a person or camera; an up that points somewhere."""
        super().check()
        if self.up is not None and not 0 < math.hypot(*self.up) < math.inf:
            raise InputError(f"--up must point somewhere, got {' '.join(map(str, self.up))}", hint="--up 0 -1 0")
        if self.person_height is not None and self.camera_height is not None:
            raise InputError("expected at most one of --person-height, --camera-height: each gives the scale")
        for flag, height_m, lowest, highest in (
            ("--person-height", self.person_height, 0.5, 2.5),
            ("--camera-height", self.camera_height, 0.3, 50.0),
        ):
            if height_m is not None and not lowest < height_m < highest:
                raise InputError(f"{flag} is {height_m:g}, expected {lowest:g} to {highest:g}", hint="in metres")


def known_of(known: Known, adapted: Camera | None, camera: Camera, prog: str) -> Known:
    """What a bundle knows of this camera's scene; where it is adapted to another, that is said, and is little."""
    why = "" if adapted is None else unlike(adapted, camera)
    of_scene = (known.up, known.person_height_m, known.camera_height_m)
    if not why or all(what is None for what in of_scene):
        return known
    say(
        f"{prog}: the bundle is adapted to another camera ({why}): its tilt and heights are not taken; what no flag "
        "gives, the run estimates"
    )
    return without_scene(known)


def known_scene(options: SceneOptions, known: Known) -> Known:
    """What a bundle knows, and over it what the flags say."""
    if options.up is not None:
        known = replace(known, up=unit(np.array(options.up, np.float32)), up_from="--up")
    if options.person_height is None and options.camera_height is None:
        return known
    return replace(known, person_height_m=options.person_height, camera_height_m=options.camera_height)


def choose_camera(
    options: CameraOptions, own: Camera | None, size_wh: tuple[int, int], prog: str, adapted: Camera | None = None
) -> Camera:
    """The file's own camera, else the flags, else the one that the bundle is adapted to, else the stated default.

    Says so where one is ignored or guessed, or its lens model does not reach into the picture's corners.
    """
    camera = _chosen(options, own, size_wh, prog, adapted)
    if camera.blind_share > _BLIND:
        say(
            f"{prog}: the lens model of {camera.origin} gives no ray to {camera.blind_share:.0%} of the picture, "
            f"beyond {camera.limit_deg:.0f} degrees off its axis; joints there count as missing"
        )
    return camera


def _chosen(
    options: CameraOptions, own: Camera | None, size_wh: tuple[int, int], prog: str, adapted: Camera | None
) -> Camera:
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
