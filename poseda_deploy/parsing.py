"""JSON and TOML of users in bounded time and memory: any text gives a value or an InputError."""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from poseda_deploy.errors import InputError
from poseda_deploy.npz import MAX_BYTES

MAX_TOML_BYTES = 1 << 18
"""Each part of a dotted key takes 1 kB: 0.1 GB and a second at the most. A file of 100 cameras has 40 kB."""
_MOST_PARTS = 8
# tomllib takes the square of a key's parts in time and memory
_KEY_PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_KEY_PART}(?:[ \t]*+\.[ \t]*+{_KEY_PART}){{{_MOST_PARTS},}}")
# What CPython 3.11 to 3.13 takes at most for each: a list and its place, a map or a key with its entry, a number.
_JSON_BYTES = {"[": 96, "{": 240, ":": 240, ",": 41}


def read_text(path: Path, max_bytes: int) -> str:
    """UTF-8 text of a file that is there, of at most so many bytes."""
    size = path.stat().st_size
    if size > max_bytes:
        raise InputError(f"has {size / 1e6:.3g} MB, more than {max_bytes / 1e6:.3g} MB")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not text in UTF-8 ({error.reason} at byte {error.start})") from error


def parse_json(text: str, max_bytes: int = MAX_BYTES) -> Any:
    """The value in a JSON text, refused before it is parsed where it would take more than max_bytes of memory."""
    needed = 2 * sys.getsizeof(text) + sum(size * text.count(sign) for sign, size in _JSON_BYTES.items())
    if needed > max_bytes:
        raise InputError(
            f"takes up to {needed / 1e9:.3g} GB of memory, more than {max_bytes / 1e9:.3g} GB",
            hint="split it, or --max-memory where there is more memory",
        )
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError("not JSON that can be read: nested too deep") from error
    except ValueError as error:
        raise InputError(f"not JSON ({error})") from error


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text of at most MAX_TOML_BYTES."""
    if len(text) > MAX_TOML_BYTES:
        raise InputError(f"more TOML than {MAX_TOML_BYTES >> 10} KiB")
    if long := _LONG_KEY.search(text):
        raise InputError(f"a key of more than {_MOST_PARTS} parts: {long[0][:40]} ...")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise InputError("not TOML that can be read: nested too deep") from error
    except ValueError as error:
        raise InputError(f"not TOML ({error})") from error
