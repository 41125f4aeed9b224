import json

import pytest

from poseda_deploy.export.bench import Timing, measure, verdict
from poseda_deploy.export.bench_cli import main


def test_every_way_is_timed_or_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--batch", "1", "4", "--seconds", "0.01", "--no-compile", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {(row["way"], row["people"]) for row in found["timings"]}
    assert {("ort-cpu fp32", 1), ("ort-cpu fp32", 4), ("torch cpu fp32 eager", 1)} <= rows
    assert "poseda-export" in found["not_here"]["trt fp16"] or "has no fp16 engine" in found["not_here"]["trt fp16"]
    assert all(row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] and row["runs"] >= 10 for row in found["timings"])
    assert found["machine"]["versions"]["onnxruntime"] and "ort-cpu" in found["verdict"] + "torch"


def test_a_call_is_warmed_up_and_counted() -> None:
    calls: list[int] = []
    timing = measure("x", lambda: calls.append(1), 8, 0.001)
    assert timing.runs >= 10 and len(calls) > timing.runs
    assert timing.people_per_s > 0


@pytest.mark.parametrize(
    ("cuda_ms", "says"), [(0.29, "the GPU does not help for one person"), (0.05, "the GPU helps for one person")]
)
def test_it_says_where_a_gpu_does_not_help(cuda_ms: float, says: str) -> None:
    rows = [Timing("ort-cpu fp32", 1, 0.3, 0.3, 0.3, 1.0, 10), Timing("ort-cuda fp32", 1, cuda_ms, 1.0, 1.0, 1.0, 10)]
    assert says in verdict(rows)


def test_impossible_batches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--batch", "0"]) == 2
    assert "must be positive" in capsys.readouterr().err
