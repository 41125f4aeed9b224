"""The edge of every command: flags to a dataclass, errors to one line and an exit code, progress on stderr."""

import json
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from poseda_deploy.errors import INTERNAL_ERROR, InputError, PosedaError
from poseda_deploy.files import require_file
from poseda_deploy.npz import MAX_BYTES
from poseda_deploy.parsing import MAX_TOML_BYTES, parse_toml, read_text

if TYPE_CHECKING:
    from rich.text import Text

Options = TypeVar("Options", bound="CommonOptions")
Advance = Callable[[int], None]


@dataclass(frozen=True)
class CommonOptions:
    """Flags that mean the same in every command."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object on stdout instead of the table."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """No progress and no table; warnings and errors only."""
    debug: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Full traceback where something fails."""

    def check(self) -> None:
        """InputError where flags do not go together; before any work is done."""

    def idle(self) -> Iterator[tuple[str, str]]:
        """(field, what it needs) of flags that have no effect beside the others; one that is given is an error."""
        yield from ()


@dataclass(frozen=True)
class ReadOptions(CommonOptions):
    """And of every command that reads files of users."""

    max_memory: Annotated[float, tyro.conf.arg(metavar="GB")] = MAX_BYTES / 1e9
    """Most that one file may unpack to; working on it takes up to three times as much."""

    def check(self) -> None:
        """Some memory."""
        super().check()
        if not 0 < self.max_memory < 1e6:
            raise InputError(f"--max-memory must be above 0, got {self.max_memory:g}", hint="in GB")

    @property
    def max_bytes(self) -> int:
        """The same for readers."""
        return int(self.max_memory * 1e9)


def run_command(
    options_type: type[Options],
    work: Callable[[Options], Mapping[str, Any]],
    argv: Sequence[str] | None,
    prog: str,
    description: str,
) -> int:
    """Parse flags, do the work, print its summary; returns the exit code of errors.py, 130 on Ctrl-C, 143 on SIGTERM.

    What libraries print on stdout meanwhile goes to stderr: stdout has the summary and nothing else.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    _prepare_streams(debug=debug)
    try:
        with _sigterm_ends():
            with _stdout_arrives():
                words = with_config(words)
                options = tyro.cli(options_type, args=words, prog=prog, description=description)
            with redirect_stdout(sys.stderr):
                options.check()
                refuse_idle(options, _typed(words))
                summary = work(options)
            with _stdout_arrives():
                _tell(options, summary)
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException as error:
        if debug and not isinstance(error, KeyboardInterrupt):
            for line in "".join(traceback.format_exception(error)).splitlines():
                say(line)
        return _fail(prog, error)
    return 0


def refuse_idle(options: CommonOptions, given: Collection[str]) -> None:
    """InputError at the first of the given fields that has no effect."""
    for name, needs in options.idle():
        if name in given:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} has no effect here: it needs {needs}", hint=f"leave out {flag}")


def _typed(words: Sequence[str]) -> set[str]:
    """Fields named on a command line; one that is switched off (--no-overlay) asks for nothing."""
    return {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}


def _tell(options: CommonOptions, summary: Mapping[str, Any]) -> None:
    if options.json:
        print(json.dumps(summary, default=str))
    elif not options.quiet:
        print_summary(summary)


def _fail(prog: str, error: BaseException) -> int:
    """Say in one line what went wrong; returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        say(f"{prog}: stopped")
        return 143 if isinstance(error, _Terminated) else 130
    if isinstance(error, OSError) and not isinstance(error, PosedaError):
        error = PosedaError(str(error), hint="check the path, its permissions and the disk")
    if isinstance(error, PosedaError):
        hint = f" Try: {error.hint}" if error.hint else ""
        say(f"{prog}: {_one_line(str(error))}.{_one_line(hint)}")
        return error.exit_code
    what = f"{prog}: internal error: {type(error).__name__}: {_one_line(str(error))}"
    say(f"{what}. Try: the same with --debug, and send us what it prints")
    return INTERNAL_ERROR


def _one_line(text: str) -> str:
    return (" " if text[:1].isspace() else "") + " ".join(text.split())


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: everything under way is closed or taken back."""


@contextmanager
def _sigterm_ends() -> Iterator[None]:
    """Where nobody else has a use for SIGTERM, it raises; without that the process would be gone with no clean-up."""

    def end(number: int, frame: Any) -> None:
        raise _Terminated

    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if free:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if free:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _prepare_streams(*, debug: bool) -> None:
    """Standard streams that take any text. Those that were closed swallow it: else the next file opened would get their
    number, and with it what libraries print."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, stream=sys.stderr)


@contextmanager
def _stdout_arrives() -> Iterator[None]:
    """What is printed inside is sent off, or it is an error. A reader who left early, as `head` does, is none."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # what could not be written would be tried again, and said, when the process ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(0) from error
        raise PosedaError(f"stdout cannot be written ({error.strerror})", hint="free the disk, or --quiet") from error


def with_config(argv: Sequence[str] | None) -> list[str]:
    """The command line with the flags of its --config FILE.toml before it, so that its own win."""
    own = list(sys.argv[1:] if argv is None else argv)
    named = [after for flag, after in pairwise(own) if flag == "--config"]
    named += [flag.partition("=")[2] for flag in own if flag.startswith("--config=")]
    if not named:
        return own
    path = require_file(Path(named[-1]), "config")
    try:
        flags = parse_toml(read_text(path, MAX_TOML_BYTES))
    except InputError as error:
        raise InputError(f"{path}: {error}", hint="one line a flag: steps = 600") from error
    return [word for name, value in flags.items() for word in _words(name, value)] + own


def _words(name: str, value: Any) -> list[str]:
    """One flag as typed: true alone, false left out, a list after it."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, *map(str, value if isinstance(value, list) else [value])]


@contextmanager
def stop_asked(prog: str, minutes: float | None) -> Iterator[Callable[[], bool]]:
    """Yields whether to stop: time is up, or Ctrl-C or SIGTERM came; the second of those interrupts as ever."""
    deadline_s = math.inf if minutes is None else time.monotonic() + 60 * minutes
    asked = False

    def first(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        restore()
        say(f"{prog}: stopping, what there is is kept; Ctrl-C again interrupts")

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    for number in before:
        signal.signal(number, first)
    try:
        yield lambda: asked or time.monotonic() > deadline_s
    finally:
        restore()


def say(line: str) -> None:
    """One line on stderr, whatever is in it."""
    print(printable(line), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text with control characters spelled out: names of files and words of a network may not steer a terminal."""
    return "".join(letter if letter.isprintable() else _spelled(letter) for letter in text)


def _spelled(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def print_summary(summary: Mapping[str, Any]) -> None:
    """The summary as an aligned table on stdout."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in _flat(summary):
        table.add_row(f"[bold]{escape(printable(key))}[/bold]", value if isinstance(value, Text) else escape(value))
    console = Console()
    with console.capture() as shown:  # rich itself would end the process where nobody reads stdout any more
        console.print(table)
    print(shown.get(), end="")


def _flat(summary: Mapping[str, Any]) -> "Iterator[tuple[str, str | Text]]":
    """One row a scalar, a list of scalars or a mapping of scalars; what is deeper gets a row each."""
    for key, value in summary.items():
        if isinstance(value, Mapping) and any(isinstance(v, Mapping | list) for v in value.values()):
            yield from ((f"{key} {name}", text) for name, text in _flat(value))
        elif isinstance(value, Mapping):
            yield key, ", ".join(f"{name} {_text(number)}" for name, number in value.items())
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            yield from _flat({f"{key} {i}": item for i, item in enumerate(value)})
        elif isinstance(value, list):
            yield key, ", ".join(_text(item) for item in value)
        else:
            yield key, _cell(value)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _cell(value: Any) -> "str | Text":
    """Coloured text as it is; who made it made it printable."""
    return value if hasattr(value, "spans") else _text(value)


@contextmanager
def progress(what: str, total: int | None, *, quiet: bool) -> Iterator[Advance]:
    """A bar with rate and ETA on stderr; yields advance(n). `total` None = unknown."""
    with _bar(what, total, quiet) as (bar, task):
        yield lambda n: bar.advance(task, n)


@contextmanager
def progress_to(what: str, total: int, *, quiet: bool) -> Iterator[Advance]:
    """The same, yielding advance_to(done so far)."""
    with _bar(what, total, quiet) as (bar, task):
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def _bar(what: str, total: int | None, quiet: bool) -> Iterator[tuple[Any, Any]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=False, disable=quiet) as bar:
        yield bar, bar.add_task(what, total=total)
