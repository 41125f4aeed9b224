import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poseda_deploy.errors import BackendError, CheckFailed, InputError, MissingDependency, PosedaError
from poseda_deploy.terminal import CommonOptions, print_summary, progress, run_command, say


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


ENDINGS: list[tuple[BaseException, int]] = [
    (InputError("x"), 2),
    (CheckFailed("x"), 1),
    (MissingDependency("x"), 3),
    (FileNotFoundError("x"), 2),
    (ZeroDivisionError("x"), 4),
]


@pytest.mark.parametrize(("error", "code"), ENDINGS)
def test_debug_shows_where_and_changes_no_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([], error) == code
    assert "Traceback" not in capsys.readouterr().err
    assert command(["--debug"], error) == code
    said = capsys.readouterr().err
    assert "Traceback" in said and type(error).__name__ in said and "raise error" in said
    assert said.splitlines()[-1].startswith("poseda-test: ")


def test_what_nobody_foresaw_is_one_line_and_no_failed_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert command([], RecursionError("maximum depth\nexceeded")) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("poseda-test: internal error: RecursionError: maximum depth exceeded")
    assert "--debug" in line


# Where the summary goes.

SCRIPT = """
import os, sys, time
from poseda_deploy.terminal import CommonOptions, run_command

def work(options):
    {work}
    return dict(answer=42)

sys.exit(run_command(CommonOptions, work, sys.argv[1:], "poseda-test", "A test."))
"""


def started(work: str, flags: list[str], **streams: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(work=work), *flags], stderr=subprocess.PIPE, text=True, **streams
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("flags", [["--json"], [], ["--help"]])
def test_a_full_stdout_is_said(flags: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = started("pass", flags, stdout=full)
        _, said = command.communicate(timeout=60)
    assert command.returncode == 2
    (line,) = said.splitlines()
    assert line.startswith("poseda-test: stdout") and "No space left" in line


@pytest.mark.parametrize("flags", [["--json"], [], ["--help"]])
def test_a_reader_who_has_gone_is_no_error(flags: list[str]) -> None:
    """As of `poseda-run --json | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = started("pass", flags, stdout=writer)
    os.close(writer)
    _, said = command.communicate(timeout=60)
    assert (command.returncode, said) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="file descriptors are inherited otherwise there")
def test_with_stdout_closed_no_file_takes_its_place(tmp_path: Path) -> None:
    """Else what a library prints would land in the first file that the work opens."""
    work = f"stream = open({str(tmp_path / 'a')!r}, 'w'); os.write(1, b'noise'); stream.write('kept'); stream.close()"
    command = started(work, ["--json"], preexec_fn=lambda: os.close(1))
    _, said = command.communicate(timeout=60)
    assert (command.returncode, said) == (0, "")
    assert (tmp_path / "a").read_text() == "kept"


def test_what_a_library_prints_stays_out_of_the_json() -> None:
    """onnxruntime prints on stdout which provider failed."""
    command = started("print('EP Error')", ["--json"], stdout=subprocess.PIPE)
    out, said = command.communicate(timeout=60)
    assert json.loads(out) == {"answer": 42} and "EP Error" in said


def test_a_stdout_that_has_no_such_letters_is_no_error() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = started("return {'bundle': 'Grüße'}", [], stdout=subprocess.PIPE, env=environment)
    out, said = command.communicate(timeout=60)
    assert (command.returncode, said) == (0, "") and "Gr" in out


# Names that are more than names.

ESCAPES = "\x1b]0;title\x07\x1b[2Jname\x9b31m\u202eflipped\udc80"


def shown_safely(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


def test_no_control_character_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"a {ESCAPES}")
    command([], InputError(ESCAPES, hint=ESCAPES))
    command([], OSError(ESCAPES))
    command(["--debug"], RuntimeError(ESCAPES))
    print_summary({ESCAPES: ESCAPES, "list": [ESCAPES], "deep": {ESCAPES: {"a": ESCAPES}}})
    captured = capsys.readouterr()
    assert shown_safely(captured.err) and shown_safely(captured.out)
    assert "\\x1b[2Jname" in captured.err and "\\x1b[2Jname" in captured.out, "and it is seen that there was one"


@given(st.text())
def test_whatever_the_text_one_line_is_one_line(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda line, **_: lines.append(line))
        say(text)
    assert len(lines) == 1 and shown_safely(lines[0]) and "\n" not in lines[0]


# SIGTERM, as `docker stop` sends it.

BEGUN = "print('begun', file=sys.stderr, flush=True)"
CLEANED = f"""
    import signal  # a suite in a shell's background inherits Ctrl-C as ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        {BEGUN}
        time.sleep(60)
    finally:
        print('cleaned up', file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_who_is_told_to_end_cleans_up_first(number: signal.Signals, code: int) -> None:
    command = started(CLEANED, [])
    assert command.stderr is not None and command.stderr.readline() == "begun\n"
    command.send_signal(number)
    _, said = command.communicate(timeout=60)
    assert command.returncode == code
    assert said.splitlines() == ["cleaned up", "poseda-test: stopped"]


STOPPED = f"""
    from poseda_deploy.terminal import stop_asked
    with stop_asked('poseda-test', None) as stop:
        {BEGUN}
        while not stop(): time.sleep(0.01)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_can_stop_half_way_keeps_what_there_is(number: signal.Signals) -> None:
    command = started(STOPPED, ["--json"], stdout=subprocess.PIPE)
    assert command.stderr is not None and command.stderr.readline() == "begun\n"
    command.send_signal(number)
    out, said = command.communicate(timeout=60)
    assert command.returncode == 0 and json.loads(out) == {"answer": 42}
    assert "what there is is kept" in said


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


def test_max_memory_bounds_what_a_file_may_unpack_to(
    walker_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One flag of every command that reads users' files."""
    from poseda_deploy.export.cli import ExportOptions
    from poseda_deploy.runtime.cli import main
    from poseda_deploy.runtime.detect_cli import DetectOptions
    from poseda_deploy.train.adapt_cli import AdaptOptions
    from poseda_deploy.train.cli import PriorOptions, TrainOptions
    from poseda_deploy.train.eval_cli import EvalOptions

    for options in (ExportOptions, DetectOptions, AdaptOptions, PriorOptions, TrainOptions, EvalOptions):
        assert options().max_bytes == 2_000_000_000
    assert main(["--keypoints", str(walker_file), "--out", str(tmp_path / "a"), "--max-memory", "1e-6"]) == 2
    assert "unpacks to" in capsys.readouterr().err
    assert main(["--keypoints", str(walker_file), "--out", str(tmp_path / "a"), "--max-memory", "0"]) == 2
    assert "--max-memory must be above 0" in capsys.readouterr().err
