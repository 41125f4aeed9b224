"""TensorRT and TensorRT-RTX, of whichever version is installed, and which engine runs with which."""

from importlib import import_module
from types import ModuleType

from poseda_deploy.bundle import Engine
from poseda_deploy.cuda import Gpu
from poseda_deploy.errors import MissingDependency

FLAVOURS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}
"""Python package -> our extra that brings it."""


def load_tensorrt(flavours: tuple[str, ...] = tuple(FLAVOURS)) -> ModuleType:
    """The first of those packages that is installed; MissingDependency names the command that brings one."""
    broken = ""
    for flavour in flavours:
        try:
            return import_module(flavour)
        except ModuleNotFoundError as error:
            if error.name != flavour:  # the package is there, a part of it is not
                broken = f" ({flavour}: {error})"
        except ImportError as error:
            broken = f" ({flavour}: {str(error).splitlines()[0]})"
    extras = " or ".join(f"pip install 'poseda-deploy[{FLAVOURS[flavour]}]'" for flavour in flavours)
    names = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
    missing = " and ".join(names[flavour] for flavour in flavours)
    raise MissingDependency(f"{missing} cannot be imported{broken}", hint=extras)


def refusal(engine: Engine, tensorrt: ModuleType, gpu: Gpu) -> str:
    """Why that engine cannot run here; empty where it can."""
    if engine.flavour != tensorrt.__name__:
        return f"it is for {engine.flavour}, and {tensorrt.__name__} is installed"
    if engine.tensorrt != tensorrt.__version__:
        return f"it is for {engine.flavour} {engine.tensorrt}, and {tensorrt.__version__} is installed"
    if engine.gpus and gpu.capability not in engine.gpus:
        return f"it is for {' '.join(engine.gpus)}, and this GPU ({gpu.name}) is {gpu.capability}"
    if engine.gpu_name and engine.gpu_name != gpu.name:
        return f"it was tuned on {engine.gpu_name}, and this GPU is {gpu.name}"
    return ""
