"""Which detector: the flags that poseda-detect and poseda-run share."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from poseda_deploy.errors import InputError
from poseda_deploy.terminal import CommonOptions

MOST_PERSONS = 100


@dataclass(frozen=True)
class DetectorFlags(CommonOptions):
    """What finds the people in a picture."""

    detector: Literal["mediapipe", "onnx"] = "mediapipe"
    """MediaPipe's pose landmarker, or any top-down ONNX pose model of the RTMPose kind."""
    pose_model: Annotated[str, tyro.conf.arg(metavar="lite|full|heavy|FILE")] = "full"
    """MediaPipe's pose model (a name or a .task file), or the ONNX pose model."""
    person_model: Annotated[Path | None, tyro.conf.arg(metavar="FILE.onnx")] = None
    """The ONNX model that finds the persons' boxes."""
    person_input: Literal["rtmdet", "yolox"] = "rtmdet"
    """How it wants its pixels."""
    detector_device: Literal["cpu", "cuda", "trt"] = "cpu"
    """What runs the ONNX models, never silently another; trt: ONNX Runtime's TensorRT provider."""
    persons: int = 1
    """People to look for in each frame, or to keep of JSON; of --keypoints everybody is lifted, live and whole."""

    def check(self) -> None:
        """A number of people that a picture can show."""
        if not 1 <= self.persons <= MOST_PERSONS:
            raise InputError(f"--persons must be 1 to {MOST_PERSONS}, got {self.persons}")

    def idle(self) -> Iterator[tuple[str, str]]:
        """What only ONNX models take."""
        yield from super().idle()
        if self.detector == "mediapipe":
            yield from ((name, "--detector onnx") for name in ("person_model", "person_input", "detector_device"))


DETECTING = tuple(field.name for field in fields(DetectorFlags) if field.name not in vars(CommonOptions))
"""Fields that say how people are found."""


def open_detector(flags: DetectorFlags, *, quiet: bool) -> AbstractContextManager[Any]:
    """The detector asked for, ready to run."""
    if flags.detector == "mediapipe":
        if flags.person_model is not None:
            raise InputError("--person-model is for --detector onnx", hint="leave it out: MediaPipe has its own")
        from .detect import MediaPipeDetector

        return MediaPipeDetector(flags.pose_model, flags.persons, quiet=quiet)
    if flags.person_model is None or not flags.pose_model.endswith(".onnx"):
        raise InputError("--detector onnx needs --pose-model FILE.onnx and --person-model FILE.onnx")
    from .topdown import Provider, TopDownDetector

    providers: dict[str, Provider] = {
        "cpu": "CPUExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "trt": "TensorrtExecutionProvider",
    }
    provider = providers[flags.detector_device]
    return TopDownDetector(
        Path(flags.pose_model), flags.person_model, flags.persons, provider=provider, person_input=flags.person_input
    )
