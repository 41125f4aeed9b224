"""Camera files in YAML or XML as OpenCV and ROS write them: maps, lists, numbers and text, and nothing else.

cv2.FileStorage is not used: damaged text makes it write past its buffers.
"""

import re
from dataclasses import dataclass
from typing import Any, NoReturn
from xml.etree import ElementTree

from poseda_deploy.errors import InputError

DEEPEST = 16
"""Maps and lists inside each other; calibration files have three."""
_QUOTED_OR_COMMENT = re.compile(r"""("[^"]*"|'[^']*')|(?:^|(?<=\s))#.*""")
_TOKEN = re.compile(r""""[^"]*"|'[^']*'|[\[\]{},:]|[^\[\]{},:"'\s]+(?:[ \t]+[^\[\]{},:"'\s]+)*""")
_TAG = re.compile(r"!\S*\s*")


@dataclass(frozen=True)
class _Line:
    number: int
    indent: int
    text: str

    @property
    def is_item(self) -> bool:
        """Of a list."""
        return self.text[:2] in ("-", "- ")

    def fail(self, what: str) -> NoReturn:
        """Raise, naming the line."""
        raise InputError(f"line {self.number}: {what}, got {self.text[:40]!r}", hint="write it with cv2.FileStorage")


def parse_yaml(text: str) -> dict[str, Any]:
    """The top map of a YAML file; an InputError names the line that is not of this kind."""
    lines = _lines(text)
    value, end = _block(lines, 0, 0) if lines else ({}, 0)
    if end < len(lines) or not isinstance(value, dict):
        lines[min(end, len(lines) - 1)].fail("expected one map, its keys below each other")
    return value


def _lines(text: str) -> list[_Line]:
    """What stands in each line; brackets that stay open take in the lines after them."""
    out: list[_Line] = []
    parts: list[str] = []
    open_brackets, start, indent = 0, 0, 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = _QUOTED_OR_COMMENT.sub(lambda found: found[1] or "", raw).rstrip()
        if not line.strip() or (not parts and line.startswith(("%", "---", "..."))):
            continue
        if not parts:
            start, indent = number, len(line) - len(line.lstrip())
        parts.append(line.strip())
        signs = _TOKEN.findall(line)
        open_brackets += sum(map(signs.count, "[{")) - sum(map(signs.count, "]}"))
        if open_brackets <= 0:
            out.append(_Line(start, indent, " ".join(parts)))
            parts, open_brackets = [], 0
    if parts:
        raise InputError(f"line {start}: brackets that nothing closes")
    return out


def _block(lines: list[_Line], at: int, depth: int) -> tuple[Any, int]:
    """The map or list that begins at a line, and the line after it."""
    if depth > DEEPEST:
        lines[at].fail("nested too deep")
    if lines[at].is_item:
        return _items(lines, at, depth)
    indent, out = lines[at].indent, dict[str, Any]()
    while at < len(lines) and lines[at].indent == indent:
        found = _key(lines[at].text)
        if not found:
            lines[at].fail("expected 'key: value'")
        out[found[0]], at = _value(lines, at, found[1], depth)
    return out, at


def _items(lines: list[_Line], at: int, depth: int) -> tuple[list[Any], int]:
    indent, out = lines[at].indent, list[Any]()
    while at < len(lines) and lines[at].indent == indent and lines[at].is_item:
        rest = lines[at].text[1:].lstrip()
        if _key(rest) or rest[:2] in ("-", "- "):  # a map or list of its own that begins on this line
            lines[at] = _Line(lines[at].number, indent + len(lines[at].text) - len(rest), rest)
            item, at = _block(lines, at, depth + 1)
        else:
            item, at = _value(lines, at, rest, depth)
        out.append(item)
    return out, at


def _key(text: str) -> tuple[str, str] | None:
    """Key and value of a line, if it has both or the first."""
    key, colon, rest = text.partition(":")
    if not colon or not key.strip() or key[0] in "[{" or (rest and not rest[0].isspace()):
        return None
    return key.strip().strip("\"'"), rest.strip()


def _value(lines: list[_Line], at: int, rest: str, depth: int) -> tuple[Any, int]:
    """What stands behind a key or a dash on the same line, else below it."""
    line, below, rest = lines[at], at + 1, _TAG.sub("", rest, count=1) if rest[:1] == "!" else rest
    if rest:
        return _flow(line, rest), below
    if below < len(lines):
        further = lines[below].indent - line.indent
        if further > 0 or (further == 0 and lines[below].is_item and not line.is_item):
            return _block(lines, below, depth + 1)
    return None, below


def _flow(line: _Line, text: str) -> Any:
    """A scalar, or brackets and all that is in them."""
    if text[0] not in "[{":
        return _scalar(text)
    tokens = _TOKEN.findall(text)[::-1]
    try:
        value = _bracketed(tokens, 0)
    except (IndexError, ValueError) as error:
        line.fail(str(error) if isinstance(error, ValueError) else "brackets that nothing closes")
    if tokens:
        line.fail("something after the last bracket")
    return value


def _bracketed(tokens: list[str], depth: int) -> Any:
    """Takes one value off the end of the tokens."""
    token = tokens.pop()
    if depth > DEEPEST:
        raise ValueError("nested too deep")
    if token not in ("[", "{"):
        if token in ("]", "}", ",", ":"):
            raise ValueError(f"{token!r} is out of place")
        return _scalar(token)
    pairs: list[tuple[str, Any]] = []
    while tokens[-1] != ("]" if token == "[" else "}"):
        key = ""
        if token == "{":
            key = tokens.pop().strip("\"'")
            if tokens.pop() != ":":
                raise ValueError(f"expected ':' after {key[:20]!r}")
        pairs.append((key, _bracketed(tokens, depth + 1)))
        if tokens[-1] == ",":
            tokens.pop()
    tokens.pop()
    return [value for _, value in pairs] if token == "[" else dict(pairs)


def _scalar(text: str) -> float | str | bool:
    """A number where it is one, true or false; YAML has a dot before nan and inf."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text[0] in "\"'":
        return text.strip("\"'")
    try:
        return float(text.replace(".nan", "nan").replace(".inf", "inf") if len(text) < 6 else text)
    except ValueError:
        return text


def parse_xml(text: str) -> dict[str, Any]:
    """What stands under the root of an XML file: maps by tag, numbers, lists of numbers, text."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError("XML with declarations of its own", hint="write it with cv2.FileStorage")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"not XML ({error})", hint="write it with cv2.FileStorage") from error
    return {child.tag: _node(child, 0) for child in root}


def _node(node: ElementTree.Element, depth: int) -> Any:
    if depth > DEEPEST:
        raise InputError("XML nested too deep")
    if len(node):
        return {child.tag: _node(child, depth + 1) for child in node}
    words = [_scalar(word) for word in (node.text or "").split()]
    if len(words) > 1 and all(isinstance(word, float) for word in words):
        return words
    return words[0] if len(words) == 1 else (node.text or "").strip().strip('"')
