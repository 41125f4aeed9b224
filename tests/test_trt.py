"""TensorRT: real engines by TensorRT-RTX, which builds without a GPU; run with stand-ins for driver and runtime.

Nothing here shows that an engine runs: the tests marked gpu do, on a machine that has one.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lifters import KINDS, striding_lifter

from poseda_deploy import engines
from poseda_deploy.backend import open_backend, open_foreign_onnx, replay_golden
from poseda_deploy.bundle import ONNX, Bundle, Engine, Precision, save_manifest
from poseda_deploy.cuda import Cuda, Gpu, find_gpu
from poseda_deploy.errors import BackendError, BundleError, CheckFailed, InputError, MissingDependency
from poseda_deploy.export import parity, to_tensorrt
from poseda_deploy.export.precision import in_precision
from poseda_deploy.files import sha256
from poseda_deploy.model import load_lifter
from poseda_deploy.networks import Kind
from poseda_deploy.onnx_graph import example_inputs, write_onnx

Exported = tuple[Bundle, dict[str, Any]]
BATCH = (1, 4, 16)
RTX4090 = Gpu("NVIDIA GeForce RTX 4090", "sm89", "13.0")


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def half_onnx(precision: Precision, tiny: Bundle, exported: Exported, tmp_path: Path) -> Path:
    """ONNX of that precision."""
    if precision == "fp16":
        return exported[0].file("lifter.fp16.onnx")
    write_onnx(in_precision(load_lifter(tiny), precision), tmp_path / "lifter.onnx")
    return tmp_path / "lifter.onnx"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_engines_are_half(precision: Precision, half_onnx: Path, rtx: Any) -> None:
    plan = to_tensorrt.build(half_onnx, precision, BATCH, ("sm86", "sm89"), rtx, None)
    assert plan.engine.half_share > to_tensorrt.LEAST_HALF and plan.engine.layers > 100
    assert plan.name == f"lifter.{precision}.tensorrt_rtx-{rtx.__version__}.sm86+sm89.engine"
    assert to_tensorrt.share_of_weights(plan.data, half_onnx, precision) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_papers_lifters_in_half(kind: Kind, tiny: Bundle, tmp_path: Path, rtx: Any) -> None:
    """Each within its limits in ONNX Runtime, and an engine of it is half."""
    lifter, path = striding_lifter(kind), tmp_path / "lifter.fp16.onnx"
    write_onnx(in_precision(lifter, "fp16"), path)
    session = open_foreign_onnx(path)
    for people, inputs in parity.probe(tiny, None).items():
        got = tuple(session.run(["pose", "root"], dict(inputs)))
        result = parity.compare(kind, "fp16", people, parity.reference(lifter, inputs), got)
        print(result.summary())
        assert result.passed
    plan = to_tensorrt.build(path, "fp16", BATCH, ("sm86", "sm89"), rtx, None)
    assert plan.engine.half_share > to_tensorrt.LEAST_HALF
    print(kind, len(plan.data), plan.engine.layers, plan.engine.half_share, plan.seconds)


def test_a_full_engine_under_a_half_request_is_refused(tiny: Bundle, rtx: Any) -> None:
    """What other exporters write without a word."""
    with pytest.raises(CheckFailed, match="asked for fp16, but only 0 % of the network"):
        to_tensorrt.build(tiny.file(ONNX), "fp16", BATCH, ("sm89",), rtx, None)


def test_a_full_engine_is_full(tiny: Bundle, rtx: Any) -> None:
    plan = to_tensorrt.build(tiny.file(ONNX), "fp32", BATCH, (), rtx, None)
    assert plan.engine.half_share == 0 and ".any.engine" in plan.name
    assert to_tensorrt.share_of_weights(plan.data, tiny.file(ONNX), "fp32") == 1
    assert to_tensorrt.share_of_weights(plan.data[: len(plan.data) // 20], tiny.file(ONNX), "fp32") < 1


def test_a_gpu_that_it_cannot_build_for(tiny: Bundle, rtx: Any) -> None:
    with pytest.raises(InputError, match="--gpu sm90: tensorrt_rtx builds for sm120"):
        to_tensorrt.build(tiny.file(ONNX), "fp32", BATCH, ("sm90",), rtx, None)


def test_tensorrt_itself_needs_the_gpu() -> None:
    with pytest.raises(BackendError, match="on the GPU that will run them") as caught:
        to_tensorrt._builder(ModuleType("tensorrt"), None, None)
    assert "rtx" in caught.value.hint


INSPECTED = """{"Layers": [
 {"Name": "__myl_A", "Metadata": "[ONNX Layer: network/Gemm_1]", "Outputs": [{"Format/Datatype": "Half"}]},
 {"Name": "network/Gemm_2", "Outputs": [{"Format/Datatype": "%s"}]},
 {"Name": "rays/cat", "Outputs": [{"Format/Datatype": "Float"}]}]}"""


@pytest.mark.parametrize(("second", "share"), [("Half", 1.0), ("Float", 0.5), ("Row-major FP32", 0.5)])
def test_the_inspector_is_read(second: str, share: float) -> None:
    assert to_tensorrt.read_inspector(INSPECTED % second, "fp16") == (3, share)


def test_nothing_installed_gives_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(engines, "import_module", absent)
    with pytest.raises(MissingDependency) as caught:
        engines.load_tensorrt()
    assert caught.value.hint == "pip install 'poseda-deploy[tensorrt]' or pip install 'poseda-deploy[rtx]'"


# --- running ----------------------------------------------------------------------------------------------------------

ENGINE = Engine("fp32", "tensorrt", "11.4.0", ("sm89",), RTX4090.name, BATCH, 100, 0.0, "engine inspector")


class FakeCuda(Cuda):
    """Host memory in place of the GPU's; keeps what is queued until it is waited for, as a stream does."""

    def __init__(self) -> None:
        self.gpu, self.stream = RTX4090, 7
        self.memory: dict[int, np.ndarray] = {}
        self.queue: list[Callable[[], None]] = []
        self.captures = 0

    def use(self) -> None:
        pass

    def pinned(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, np.nan, np.float32)

    def device_bytes(self, size: int) -> int:
        self.memory[len(self.memory) + 1] = np.full(size // 4, np.nan, np.float32)
        return len(self.memory)

    def free(self, host: np.ndarray, address: int) -> None:
        self.memory[address][:] = np.nan

    def upload(self, address: int, host: np.ndarray) -> None:
        self.queue.append(lambda: np.copyto(self.memory[address], host.reshape(-1)))

    def download(self, host: np.ndarray, address: int) -> None:
        self.queue.append(lambda: np.copyto(host, self.memory[address].reshape(host.shape)))

    def wait(self) -> None:
        for work in self.queue:
            work()
        self.queue.clear()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        work()
        recorded, self.queue = self.queue, []
        return lambda: self.queue.extend(recorded)


class FakeContext:
    """Runs the ONNX file on the addresses it was given."""

    def __init__(self, cuda: FakeCuda, path: Path) -> None:
        self.cuda, self.session = cuda, open_foreign_onnx(path)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return BATCH[0] <= shape[0] <= BATCH[2]

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        self.cuda.queue.append(self._run)
        return stream == self.cuda.stream

    def _run(self) -> None:
        feed = {n: self.cuda.memory[self.addresses[n]].reshape(shape) for n, shape in self.shapes.items()}
        for name, value in zip(("pose", "root"), self.session.run(["pose", "root"], feed), strict=True):
            self.cuda.memory[self.addresses[name]][:] = value.reshape(-1)


@pytest.fixture
def engine_bundle(tiny: Bundle) -> Iterator[Bundle]:
    """The tiny bundle with an engine file, which holds nothing but its name."""
    (tiny.path / "a.engine").write_bytes(b"plan")
    files = {**tiny.manifest.files, "a.engine": sha256(tiny.path / "a.engine")}
    manifest = replace(tiny.manifest, files=files, engines={"a.engine": ENGINE})
    yield Bundle(tiny.path, manifest, {**tiny.content, "a.engine": b"plan"})
    (tiny.path / "a.engine").unlink()


@pytest.fixture
def cuda(engine_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """A machine with an RTX 4090 and TensorRT 11.4.0, as far as the backend can tell."""
    from poseda_deploy.runtime import trt

    cuda = FakeCuda()
    context = SimpleNamespace(create_execution_context=lambda: FakeContext(cuda, engine_bundle.file(ONNX)))
    loaded = SimpleNamespace(deserialize_cuda_engine=lambda plan: context if plan == b"plan" else None)
    tensorrt = ModuleType("tensorrt")
    vars(tensorrt).update(__version__="11.4.0", Logger=_Logger, Runtime=lambda logger: loaded)
    monkeypatch.setattr(trt, "Cuda", lambda: cuda)
    monkeypatch.setattr(trt, "load_tensorrt", lambda flavours: tensorrt)
    return cuda


class _Logger:
    ERROR = 1

    def __init__(self, level: int) -> None:
        pass


def test_an_engine_lifts_and_is_captured_once_a_batch_size(engine_bundle: Bundle, cuda: FakeCuda) -> None:
    people = example_inputs(40)
    with open_backend(engine_bundle, "ort-cpu") as reference, open_backend(engine_bundle, "trt") as backend:
        replay_golden(backend, engine_bundle)
        assert backend.provider == "tensorrt 11.4.0 fp32 on NVIDIA GeForce RTX 4090"
        for count in (1, 3, 1, 3, 1, 3, 1, 3, 40):
            values = [value[-count:] for value in people.values()]
            for ours, theirs in zip(backend.lift(*values), reference.lift(*values), strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert cuda.captures == 2 + 1, "1, 3, and 16 of the 40 and of the golden ones"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tensorrt": "10.16.1"}, "it is for tensorrt 10.16.1, and 11.4.0 is installed"),
        ({"flavour": "tensorrt_rtx"}, "it is for tensorrt_rtx, and tensorrt is installed"),
        ({"gpus": ("sm86", "sm120")}, r"it is for sm86 sm120, and this GPU \(NVIDIA GeForce RTX 4090\) is sm89"),
        ({"gpu_name": "NVIDIA L4"}, "it was tuned on NVIDIA L4, and this GPU is NVIDIA GeForce RTX 4090"),
    ],
)
def test_an_engine_of_elsewhere_is_refused(
    change: dict[str, Any], why: str, engine_bundle: Bundle, cuda: FakeCuda
) -> None:
    foreign = replace(engine_bundle.manifest, engines={"a.engine": replace(ENGINE, **change)})
    with pytest.raises(BackendError, match=why) as caught:
        open_backend(replace(engine_bundle, manifest=foreign), "trt")
    assert "poseda-export --trt" in caught.value.hint


def test_a_bundle_without_an_engine_says_how_to_build_one(tiny: Bundle) -> None:
    with pytest.raises(BundleError, match="has no TensorRT engine") as caught:
        open_backend(tiny, "trt")
    assert caught.value.hint == "poseda-export --trt fp16"


def test_the_manifest_keeps_engines(engine_bundle: Bundle) -> None:
    from poseda_deploy.bundle import MANIFEST, load_bundle

    before = (engine_bundle.path / MANIFEST).read_bytes()
    save_manifest(engine_bundle.path, engine_bundle.manifest)
    try:
        assert load_bundle(engine_bundle.path).manifest.engines == {"a.engine": ENGINE}
    finally:
        (engine_bundle.path / MANIFEST).write_bytes(before)


def test_a_machine_without_a_driver_says_so() -> None:
    if find_gpu() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        Cuda()


@pytest.mark.gpu
def test_the_driver_copies_there_and_back() -> None:
    cuda = Cuda()
    assert cuda.gpu.capability.startswith("sm")
    host, back = cuda.pinned((5, 3)), cuda.pinned((5, 3))
    host[:] = np.arange(15).reshape(5, 3)
    address = cuda.device_bytes(host.nbytes)

    def there_and_back() -> None:
        cuda.upload(address, host)
        cuda.download(back, address)

    cuda.capture(there_and_back)()
    cuda.wait()
    np.testing.assert_array_equal(back, host)
    cuda.free(host, address)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_built_here_runs_here(precision: str, tiny: Bundle, tmp_path: Path) -> None:
    from poseda_deploy.bundle import load_bundle
    from poseda_deploy.export.cli import main

    engines.load_tensorrt()
    out = tmp_path / "out"
    assert main(["--bundle", str(tiny.path), "--out", str(out), "--trt", precision, "--quiet"]) == 0
    bundle = load_bundle(out)
    with open_backend(bundle, "trt") as backend:
        replay_golden(backend, bundle)
