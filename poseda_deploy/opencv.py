"""The one place that imports OpenCV, so that a broken installation is explained once: `from ...opencv import cv2`."""

import numpy as np
from jaxtyping import UInt8

from poseda_deploy.errors import MissingDependency

try:
    import cv2
except ModuleNotFoundError as error:
    raise MissingDependency(
        "OpenCV is not installed (no module named cv2)",
        hint="pip install opencv-python, or opencv-python-headless on a machine without a display; "
        "if it was there before, add --force-reinstall (all variants share one folder)",
    ) from error
except ImportError as error:
    # The desktop wheels link libGL and libglib, which servers and slim containers do not have; headless needs neither.
    raise MissingDependency(
        f"OpenCV is installed but does not load: {error}",
        hint="apt-get install libgl1 libglib2.0-0, or, without system packages: "
        "pip uninstall opencv-python && pip install opencv-python-headless",
    ) from error

Image = UInt8[np.ndarray, "_ _ 3"]
"""A picture as OpenCV has it: rows, columns; blue, green, red."""

__all__ = ["Image", "cv2"]
