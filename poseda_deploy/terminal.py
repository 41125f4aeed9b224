"""The edge of every command: flags to a dataclass, errors to one line and an exit code, progress on stderr."""

import json
import logging
import math
import signal
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from poseda_deploy.errors import InputError, PosedaError
from poseda_deploy.files import require_file

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


def run_command(
    options_type: type[Options],
    work: Callable[[Options], Mapping[str, Any]],
    argv: Sequence[str] | None,
    prog: str,
    description: str,
) -> int:
    """Parse flags, do the work, print its summary; returns the exit code (0, 1, 2, 3, or 130 on Ctrl-C)."""
    try:
        options = tyro.cli(options_type, args=with_config(argv), prog=prog, description=description)
    except SystemExit as stop:
        return int(stop.code or 0)
    except PosedaError as error:
        return _fail(prog, error)
    logging.basicConfig(level=logging.DEBUG if options.debug else logging.WARNING, stream=sys.stderr)
    try:
        options.check()
        summary = work(options)
    except PosedaError as error:
        if options.debug:
            raise
        return _fail(prog, error)
    except KeyboardInterrupt:
        say(f"{prog}: stopped")
        return 130
    except OSError as error:
        if options.debug:
            raise
        return _fail(prog, PosedaError(str(error), hint="check the path, its permissions and the disk"))
    if options.json:
        print(json.dumps(summary, default=str))
    elif not options.quiet:
        print_summary(summary)
    return 0


def with_config(argv: Sequence[str] | None) -> list[str]:
    """The command line with the flags of its --config FILE.toml before it, so that its own win."""
    own = list(sys.argv[1:] if argv is None else argv)
    named = [after for flag, after in pairwise(own) if flag == "--config"]
    named += [flag.partition("=")[2] for flag in own if flag.startswith("--config=")]
    if not named:
        return own
    path = Path(named[-1])
    try:
        flags = tomllib.loads(require_file(path, "config").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}", hint="one line a flag: steps = 600") from error
    return [word for name, value in flags.items() for word in _words(name, value)] + own


def _words(name: str, value: Any) -> list[str]:
    """One flag as typed: true alone, false left out, a list after it."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, *map(str, value if isinstance(value, list) else [value])]


@contextmanager
def stop_asked(prog: str, minutes: float | None) -> Iterator[Callable[[], bool]]:
    """Yields whether to stop: time is up, or Ctrl-C was pressed; a second Ctrl-C interrupts as ever."""
    deadline_s = math.inf if minutes is None else time.monotonic() + 60 * minutes
    asked = False

    def first(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)
        say(f"{prog}: stopping, what there is is kept; Ctrl-C again interrupts")

    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if main:
        signal.signal(signal.SIGINT, first)
    try:
        yield lambda: asked or time.monotonic() > deadline_s
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _fail(prog: str, error: PosedaError) -> int:
    hint = f" Try: {error.hint}" if error.hint else ""
    line = " ".join(f"{prog}: {error}.{hint}".split())
    say(line)
    return error.exit_code


def say(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr, flush=True)


def print_summary(summary: Mapping[str, Any]) -> None:
    """The summary as an aligned table on stdout."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in _flat(summary):
        table.add_row(f"[bold]{escape(key)}[/bold]", value if isinstance(value, Text) else escape(value))
    Console().print(table)


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
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> "str | Text":
    """Coloured text as it is."""
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
