"""Metric 3D people from one ordinary camera, in real time, adapted to that camera without a 3D label.

Numpy only: torch is imported by the lifter (`bf16`, `model`, `networks`, `layers`, `rays`, `onnx_graph`), the train and
the export stage.
"""

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from os import PathLike
from typing import Any

from poseda_deploy.camera import Camera as Camera
from poseda_deploy.keypoints import Keypoints2D as Keypoints2D
from poseda_deploy.keypoints import load_keypoints as load_keypoints
from poseda_deploy.poses import PosedFrame as PosedFrame
from poseda_deploy.poses import Poses3D as Poses3D
from poseda_deploy.poses import load_poses as load_poses
from poseda_deploy.skeleton import SKELETONS as SKELETONS
from poseda_deploy.skeleton import Skeleton as Skeleton

__version__ = version("poseda-deploy")


def run(video: str | PathLike[str] | int | None = None, **flags: Any) -> Iterator[PosedFrame]:
    """The people of every frame of a video file, folder of images, camera (by number) or stream (by address).

    `flags` are those of `poseda-run` by name: persons=2, fov_deg=65, bundle=Path("models/adapted"), smooth=False, ... A
    recording is lifted whole before its first frame comes; a live source gives its newest frame whenever asked.
    """
    frames: Iterator[PosedFrame] = import_module("poseda_deploy.runtime.api").run(video, **flags)
    return frames
