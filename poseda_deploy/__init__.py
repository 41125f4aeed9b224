"""Metric 3D people from one ordinary camera, in real time, adapted to that camera without a 3D label.

Numpy only: torch is imported by the lifter (`model`, `networks`, `layers`, `rays`, `onnx_graph`), the train and the
export stage.
"""

from importlib.metadata import version

from poseda_deploy.camera import Camera as Camera
from poseda_deploy.keypoints import Keypoints2D as Keypoints2D
from poseda_deploy.keypoints import load_keypoints as load_keypoints
from poseda_deploy.poses import Poses3D as Poses3D
from poseda_deploy.poses import load_poses as load_poses
from poseda_deploy.skeleton import SKELETONS as SKELETONS
from poseda_deploy.skeleton import Skeleton as Skeleton

__version__ = version("poseda-deploy")
