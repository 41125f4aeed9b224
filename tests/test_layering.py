"""Who may import whom, read from the code; and that the runtime runs without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE, STAGES = "poseda_deploy", ("train", "export", "runtime")
TORCH = {f"poseda_deploy/{name}.py" for name in ("bf16", "layers", "model", "networks", "onnx_graph", "rays")}
HEAVY = {
    "torch": {*TORCH, "train", "export"},
    "onnx": {"poseda_deploy/onnx_graph.py", "export"},
    "onnxruntime": {"runtime/ort.py"},
    "tensorrt": set(),  # by name, in poseda_deploy/engines.py
    "tensorrt_rtx": set(),
    "tritonclient": set(),
    "mediapipe": {"runtime/detect.py", "runtime/pose_task.py"},
    "cv2": {"poseda_deploy/opencv.py"},
    "viser": {"runtime/web.py"},
    "trimesh": {"runtime/solids.py"},
    "ezc3d": {"runtime/markers.py"},
    "rerun": {"runtime/rerun_file.py"},
    "websockets": {"runtime/outlets.py", "runtime/web.py"},
    "scipy": {"train", "runtime/track.py"},
    "h5py": {"train"},
    "safetensors": {"poseda_deploy/model.py", "train", "export"},
}
"""Package -> files or folders that may import it."""


def modules() -> list[Path]:
    return [path for folder in (CORE, *STAGES) for path in sorted((ROOT / folder).glob("*.py"))]


def imports(source: str) -> Iterator[tuple[int, str]]:
    """(level, dotted name) of every import, wherever it stands in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def breaches(folder: str, name: str, source: str) -> list[str]:
    """What a module imports that its place forbids."""
    found = []
    for level, module in imports(source):
        top, _, rest = module.partition(".")
        inside = rest.split(".")[0] if top == CORE else ""
        if level > 1 or top in STAGES or inside in STAGES or (level == 1 and folder == CORE):
            found.append(f"{'.' * level}{module}")
        allowed = HEAVY.get(top)
        if level == 0 and allowed is not None and not {folder, f"{folder}/{name}"} & allowed:
            found.append(module)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_imports_stay_in_their_lane(path: Path) -> None:
    assert breaches(path.parent.name, path.name, path.read_text()) == []


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("runtime", "from poseda_deploy.train.loop import fit"),
        ("runtime", "def f():\n    import torch"),
        ("train", "from ..camera import Camera"),
        ("train", "import runtime"),
        ("poseda_deploy", "from .camera import Camera"),
        ("poseda_deploy", "import cv2"),
    ],
)
def test_the_rule_can_fail(folder: str, source: str) -> None:
    assert breaches(folder, "x.py", source)


def modules_after(code: str) -> set[str]:
    """Top-level modules that are loaded once the code has run in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint('MODULES', *sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize(
    "command",
    [
        "runtime.cli",
        "runtime.detect_cli",
        "runtime.doctor",
        "export.cli",
        "export.bench_cli",
        "train.cli",
        "train.eval_cli",
    ],
)
def test_help_loads_nothing_heavy(command: str) -> None:
    loaded = modules_after(f"from poseda_deploy.{command} import main\nassert main(['--help']) == 0")
    assert not loaded & {"torch", "onnxruntime", "mediapipe", "scipy", "onnx", "matplotlib", "tensorrt_rtx"}


def test_a_run_needs_no_torch(walker_file: Path, tmp_path: Path) -> None:
    flags = ["--keypoints", str(walker_file), "--out", str(tmp_path / "a"), "--quiet"]
    loaded = modules_after(f"from poseda_deploy.runtime.cli import main\nassert main({flags}) == 0")
    assert "onnxruntime" in loaded and not loaded & {"torch", "onnx", "mediapipe"}
    assert "torch" in modules_after("import poseda_deploy.model"), "the test above can fail"


@pytest.mark.parametrize("path", modules(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_nothing_is_pickled(path: Path) -> None:
    source = path.read_text()
    allowed = {"pickle"} if path.name == "import_h36m.py" else set()  # its Unpickler finds stand-ins for arrays only
    assert not {module for _, module in imports(source)} & {"pickle", "dill", "joblib", "shelve"} - allowed
    assert "pickle.load" not in source
    assert "torch.load(" not in source
    assert source.count("np.load(") == source.count("allow_pickle=False)")
