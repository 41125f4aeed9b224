"""poseda-doctor: what this machine can run, what stands in the way, and the command that mends it."""

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from poseda_deploy.bundle import Bundle, default_bundle_path, load_bundle
from poseda_deploy.cuda import Cuda, Gpu
from poseda_deploy.engines import load_tensorrt, refusal
from poseda_deploy.errors import BackendError, BundleError, CheckFailed, MissingDependency, PosedaError
from poseda_deploy.files import sha256
from poseda_deploy.terminal import CommonOptions, printable, run_command, say

if TYPE_CHECKING:
    from rich.text import Text

State = Literal["ok", "note", "problem", "missing"]
"""note: something optional that is not here; problem: it stops a run; missing: a note about what --need asked for."""
Need = Literal["ort-cuda", "trt", "video", "live", "model-lite", "model-full", "model-heavy", "gpu", "camera", "window"]
Packages = Mapping[str, str]
"""Name -> version of what pip has installed here."""

FAMILIES = (
    ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
)
"""Wheels that write into one and the same folder: the last one installed wins, and pip does not mind."""
EXTRAS = ("video", "live")
"""What runs may use beside a backend."""
OUTSIDE = {"mediapipe": "later ones send usage metrics and bring a second cv2"}
MIN_CUDA = 13
"""Of the driver: onnxruntime-gpu 1.31 and TensorRT-RTX 1.7 are built with CUDA 13."""
MIN_FREE_MB = 200  # of the cache: the largest archive and what is taken out of it
CAMERAS = 4


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    state: State
    found: str
    mend: str = ""
    """The command that mends it or brings what is not here; empty where no command can."""

    def row(self) -> "Text":
        """For the table."""
        from rich.text import Text

        colour = {"ok": "green", "note": "yellow"}.get(self.state, "red")
        mend = f"\n-> {printable(self.mend)}" if self.mend else ""
        return Text.assemble((f"{self.state:7}", colour), f" {printable(self.found)}{mend}")


@dataclass(frozen=True)
class DoctorOptions(CommonOptions):
    """Flags of poseda-doctor."""

    bundle: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Bundle to try; default: models/adapted here if there is one, else the one that ships."""
    need: tuple[Need, ...] = ()
    """What must be here, on top of what every run needs; exit code 3 if it is not."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of poseda-doctor."""
    findings: list[Finding] = []

    def work(options: DoctorOptions) -> Mapping[str, Any]:
        findings.extend(asked(finding, options.need) for finding in examine(options.bundle or default_bundle_path()))
        if options.json:
            return {"healthy": exit_code(findings) == 0, "checks": [asdict(finding) for finding in findings]}
        if options.quiet:
            for finding in findings:
                if finding.state in ("problem", "missing"):
                    say(
                        f"poseda-doctor: {finding.check}: {finding.found}"
                        + f". Try: {finding.mend}" * bool(finding.mend)
                    )
        return {finding.check: finding.row() for finding in findings}

    return run_command(DoctorOptions, work, argv, "poseda-doctor", __doc__ or "") or exit_code(findings)


def asked(finding: Finding, needs: Sequence[Need]) -> Finding:
    """A note about something needed is no mere note."""
    name = finding.check.split()[0]
    return replace(finding, state="missing") if finding.state == "note" and name in needs else finding


def exit_code(findings: Sequence[Finding]) -> int:
    """1 something stops a run, 3 something asked for is missing, else 0."""
    states = {finding.state for finding in findings}
    return 1 if "problem" in states else 3 if "missing" in states else 0


def examine(bundle_path: Path) -> Iterator[Finding]:
    """Every check, in order; what one finds does not end the others."""
    packages = installed()
    yield python(sys.version_info[:2])
    yield from wheels(packages)
    yield required(packages)
    yield from (extra(name, packages) for name in EXTRAS)
    gpu, finding = graphics(packages)
    yield finding
    try:
        bundle = load_bundle(bundle_path)
    except BundleError as error:
        yield Finding("bundle", "problem", str(error), error.hint)
    else:
        yield Finding("bundle", "ok", f"{bundle.manifest.name} in {bundle_path}, every hash as recorded")
        yield from backends(bundle, gpu)
        yield from engines(bundle, gpu)
    yield from models()
    yield cache()
    yield camera()
    yield window(packages)


def installed() -> dict[str, str]:
    """Every package of this Python, by its lower-case name with hyphens."""
    found = ((each.metadata["Name"], each.version) for each in distributions())
    return {name.lower().replace("_", "-"): version for name, version in found if name}


def python(version: tuple[int, int]) -> Finding:
    """3.11 or newer."""
    text = f"{version[0]}.{version[1]} ({sys.executable})"
    if version < (3, 11):
        return Finding("python", "problem", f"{text}, expected 3.11 or newer", "python3.12 -m venv .venv")
    return Finding("python", "ok", text)


def wheels(packages: Packages) -> Iterator[Finding]:
    """One wheel of each family, and OpenCV loads."""
    for family in FAMILIES:
        here = [name for name in family if name in packages]
        text = " and ".join(f"{name} {packages[name]}" for name in here)
        if len(here) > 1:
            what = f"{text} write into the same folder; whichever came last runs"
            one = f"pip install --force-reinstall --no-deps {here[-1]}=={packages[here[-1]]}"
            yield Finding(family[0], "problem", what, f"pip uninstall -y {' '.join(here)} && {one}")
        elif not here:
            bring = "pip install 'poseda-deploy[cpu]'" if family == FAMILIES[0] else f"pip install {family[0]}"
            yield Finding(family[0], "problem", f"{family[0]} is not installed", bring)
        else:
            yield _loads(text) if family[0] == "opencv-python" else Finding(family[0], "ok", text)


def _loads(text: str) -> Finding:
    try:
        from poseda_deploy.opencv import cv2
    except MissingDependency as error:
        return Finding("opencv-python", "problem", str(error), error.hint)
    return Finding("opencv-python", "ok", f"{text}, cv2 {cv2.__version__}")


def required(packages: Packages) -> Finding:
    """Everything that the package depends on, in the versions it asks for; OpenCV has its own check."""
    wanted = [text for text in requirements("") if not text.startswith("opencv")]
    wrong = [text for text in wanted if unmet(text, packages)]
    if wrong:
        return _unmet("packages", "problem", wrong, packages)
    return Finding("packages", "ok", _versions(wanted, packages))


def extra(name: str, packages: Packages) -> Finding:
    """The packages of one of our extras; those in a version that we refuse are a problem."""
    wanted = requirements(name)
    wrong = [text for text in wanted if unmet(text, packages)]
    if not wrong:
        return Finding(name, "ok", _versions(wanted, packages) or f"this version has no extra {name}")
    return _unmet(name, "problem" if any(_name(text) in packages for text in wrong) else "note", wrong, packages)


def _versions(wanted: Sequence[str], packages: Packages) -> str:
    return ", ".join(f"{_name(text)} {packages[_name(text)]}" for text in wanted)


def _unmet(check: str, state: State, wrong: Sequence[str], packages: Packages) -> Finding:
    found = "; ".join(unmet(text, packages) for text in wrong)
    return Finding(check, state, found, f"pip install {' '.join(repr(text) for text in wrong)}")


def requirements(name: str) -> list[str]:
    """What this package itself requires, as in "numpy>=2"; with a name, what that extra adds."""
    try:
        every = [text.partition(";") for text in requires("poseda-deploy") or ()]
    except PackageNotFoundError:  # run from a source folder
        return []
    marker = re.compile(rf"extra == .{name}\b" if name else r"^\s*$")
    return [text.strip() for text, _, condition in every if marker.search(condition)]


def unmet(requirement: str, packages: Packages) -> str:
    """Why it is not met; empty where it is."""
    name = _name(requirement)
    if name not in packages:
        return f"{name} is not installed"
    version = _numbers(packages[name])
    for sign, limit in re.findall(r"(>=|<)\s*([\d.]+)", requirement):
        if (version < _numbers(limit)) == (sign == ">="):
            why = f" ({OUTSIDE[name]})" if name in OUTSIDE and sign == "<" else ""
            return f"{name} {packages[name]}, expected {sign}{limit}{why}"
    return ""


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _numbers(version: str) -> tuple[int, ...]:
    """Of a release: 0.10.31rc1 counts as 0.10.31."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version)[0]))


def graphics(packages: Packages) -> tuple[Gpu | None, Finding]:
    """The GPU and its driver. Without one everything runs on the CPU, unless there should be one."""
    try:
        gpu = Cuda().gpu
    except BackendError as error:
        if _has_nvidia():
            return None, Finding("gpu", "problem", f"there is an NVIDIA GPU, but {error}", "nvidia-smi")
        return None, Finding("gpu", "note", f"{error}; the CPU runs")
    text = f"{gpu.name}, {gpu.capability}, driver for CUDA {gpu.driver_cuda}"
    if "onnxruntime-gpu" in packages and int(gpu.driver_cuda.split(".")[0]) < MIN_CUDA:
        what = f"{text}; onnxruntime-gpu needs a driver for CUDA {MIN_CUDA}"
        return gpu, Finding("gpu", "problem", what, "apt-get install --only-upgrade nvidia-driver")
    return gpu, Finding("gpu", "ok", text)


def _has_nvidia() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()


def backends(bundle: Bundle, gpu: Gpu | None) -> Iterator[Finding]:
    """Each one opened, asked what really runs, and made to give the recorded poses."""
    from poseda_deploy.backend import RUNTIME_BACKENDS, open_backend, replay_golden

    for name in RUNTIME_BACKENDS:
        try:
            with open_backend(bundle, name) as backend:
                off_mm = replay_golden(backend, bundle)
                yield Finding(name, "ok", f"{backend.provider} runs, {off_mm:.3f} mm from the recorded poses")
        except CheckFailed as error:
            yield Finding(name, "problem", str(error), "pip install --force-reinstall 'poseda-deploy[cpu]'")
        except (BackendError, BundleError, MissingDependency) as error:
            yield _does_not_run(name, error, gpu)


def _does_not_run(name: str, error: PosedaError, gpu: Gpu | None) -> Finding:
    """The CPU must run. CUDA that is listed but does not run is a problem where there is a GPU for it."""
    if name != "ort-cuda":
        return Finding(name, "problem" if name == "ort-cpu" else "note", str(error), error.hint)
    if "would run" in str(error):
        what = f"CUDA is listed but does not run ({error})"
        return Finding(name, "problem" if gpu else "note", what, "pip install 'onnxruntime-gpu[cuda,cudnn]'")
    return Finding(name, "note", str(error), "pip uninstall -y onnxruntime && pip install 'poseda-deploy[gpu]'")


def engines(bundle: Bundle, gpu: Gpu | None) -> Iterator[Finding]:
    """Whether each engine of the bundle is for the TensorRT and the GPU that are here."""
    for file, engine in bundle.manifest.engines.items():
        try:
            why = refusal(engine, load_tensorrt((engine.flavour,)), gpu) if gpu else "there is no GPU"
        except MissingDependency as error:
            yield Finding(f"trt {file}", "note", str(error), error.hint)
            continue
        mend = "poseda-export --trt fp16 --overwrite" if why else ""
        found = f"cannot run: {why}" if why else f"{engine.flavour} {engine.tensorrt} runs on {gpu.name if gpu else ''}"
        yield Finding(f"trt {file}", "note" if why else "ok", found, mend)


def models() -> Iterator[Finding]:
    """MediaPipe's pose models in the cache; nothing is fetched."""
    from .assets import ASSETS, cache_folder
    from .pose_task import LANDMARKERS, TASK_SHA256, PoseModel

    size = {asset.name: asset.archive.size for asset in ASSETS}
    for model in get_args(PoseModel):
        path = cache_folder() / f"pose_landmarker_{model}.task"
        if not path.is_file():
            what = f"would be fetched on first use ({size[LANDMARKERS[model]] / 1e6:.0f} MB, once)"
            fetch = f"from poseda_deploy.runtime.pose_task import pose_task; pose_task('{model}')"
            yield Finding(f"model-{model}", "note", what, f'python -c "{fetch}"')
        elif sha256(path) != TASK_SHA256[model]:
            yield Finding(f"model-{model}", "problem", f"{path} is damaged or was changed", f"rm {path}")
        else:
            yield Finding(f"model-{model}", "ok", str(path))


def cache() -> Finding:
    """Where models are kept: writable, with room."""
    from .assets import cache_folder

    folder = here = cache_folder()
    while not here.exists():
        here = here.parent
    free_mb = shutil.disk_usage(here).free / 1e6
    elsewhere = "export POSEDA_CACHE=/a/folder/with/room"
    if not here.is_dir() or not os.access(here, os.W_OK):
        return Finding("cache", "problem", f"{folder} cannot be written", elsewhere)
    if free_mb < MIN_FREE_MB:
        return Finding("cache", "problem", f"{folder}: {free_mb:.0f} MB free, expected {MIN_FREE_MB}", elsewhere)
    return Finding("cache", "ok", f"{folder}, {free_mb / 1000:.0f} GB free")


def camera(devices: Path = Path("/dev")) -> Finding:
    """Which of the first cameras open; not tried where the system lists none."""
    nodes = [devices / f"video{index}" for index in range(CAMERAS)]
    here = [node for node in nodes if node.exists()]
    if not here:
        return Finding("camera", "note", f"none: no {devices}/video0 to video{CAMERAS - 1}")
    if locked := [str(node) for node in here if not os.access(node, os.R_OK | os.W_OK)]:
        return Finding("camera", "note", f"no access to {', '.join(locked)}", "sudo usermod -aG video $USER")
    try:
        opened = [str(index) for index, node in enumerate(nodes) if node in here and _opens(index)]
    except MissingDependency as error:
        return Finding("camera", "note", str(error), error.hint)
    if not opened:
        return Finding("camera", "note", f"none of {len(here)} opens; another program may hold it", "fuser /dev/video*")
    return Finding("camera", "ok", f"poseda-run --video {' or '.join(opened)}")


def _opens(index: int) -> bool:
    from poseda_deploy.opencv import cv2

    from .video import quiet

    with quiet():
        capture = cv2.VideoCapture(index)
        works = capture.isOpened() and capture.grab()
        capture.release()
    return bool(works)


def window(packages: Packages) -> Finding:
    """Whether OpenCV can open a window here."""
    headless = [name for name in FAMILIES[1] if name in packages and name.endswith("headless")]
    if headless:
        mend = f"pip uninstall -y {headless[0]} && pip install {headless[0].removesuffix('-headless')}"
        return Finding("window", "note", f"{headless[0]} has no windows", mend)
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return Finding("window", "note", "no display: neither DISPLAY nor WAYLAND_DISPLAY is set", "export DISPLAY=:0")
    return Finding("window", "ok", "there is a display and OpenCV has windows")
