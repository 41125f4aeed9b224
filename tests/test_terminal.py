import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from poseda_deploy.errors import BackendError, CheckFailed, InputError, MissingDependency, PosedaError
from poseda_deploy.terminal import CommonOptions, progress, run_command


@dataclass(frozen=True)
class Options(CommonOptions):
    number: int = 1


def command(argv: list[str], error: BaseException | None = None) -> int:
    def work(options: Options) -> Mapping[str, Any]:
        if error is not None:
            raise error
        return {"number": options.number, "stages": {"lift": {"p50": 1.5}}, "people": [{"a": 1}], "up": [0.0, -1.0]}

    return run_command(Options, work, argv, "poseda-test", "A test.")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("a\nb", hint="c"), 2),
        (CheckFailed("x"), 1),
        (MissingDependency("x"), 3),
        (BackendError("x"), 3),
        (FileNotFoundError("x"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([], error) == code
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.strip().splitlines()) == 1
    assert captured.err.startswith("poseda-test: ")


def test_the_hint_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    command([], InputError("no such file", hint="look elsewhere"))
    assert capsys.readouterr().err == "poseda-test: no such file. Try: look elsewhere\n"


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError):
        command(["--debug"], InputError("x"))


def test_json_is_one_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--json", "--number", "7"]) == 0
    assert json.loads(capsys.readouterr().out)["number"] == 7


def test_the_table_shows_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert command([]) == 0
    out = capsys.readouterr().out
    assert "stages lift" in out and "p50 1.5" in out and "people 0" in out and "0, -1" in out


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--quiet"]) == 0
    assert capsys.readouterr().out == ""
    with progress("x", 3, quiet=True) as advance:
        advance(3)
    assert capsys.readouterr().err == ""


def test_wrong_flags_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["--numbr", "7"]) == 2


def test_every_error_is_caught_at_the_edge() -> None:
    """And is also the builtin that a caller would expect."""
    assert all(issubclass(e, PosedaError) for e in (InputError, CheckFailed, MissingDependency, BackendError))
    assert issubclass(InputError, ValueError) and issubclass(MissingDependency, ImportError)
