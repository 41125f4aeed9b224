"""A pickle's program, run step by step: numbers, text, plain containers and calls of stand-ins, all within bounds.

pickle.Unpickler hashes keys nested as deep as the program says and makes a memo as long: 200 bytes end the process or
fill its memory. Here keys are text, tuples are short and flat, and the memo is as long as what was put there.
"""

import pickletools
from collections.abc import Callable
from typing import Any

MOST_STEPS = 200_000
"""Human3.6M's 210 arrays take 15,000."""
LONGEST_TUPLE = 16
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINSTRING", "SHORT_BINSTRING"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], object]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

FindCall = Callable[[str, str], Callable[..., object]]
"""The stand-in of a module's name, or an error."""


def run_pickle(program: bytes, find_call: FindCall) -> object:
    """What the program leaves; a ValueError (of pickletools, any error) where it is damaged or does anything else."""
    machine = _Machine(find_call)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if count == MOST_STEPS:
            raise ValueError(f"more than {MOST_STEPS} steps")
        if opcode.name == "STOP":
            break
        machine.step(opcode.name, argument)
    return machine.pop()


class _Machine:
    def __init__(self, find_call: FindCall) -> None:
        self.find_call = find_call
        self.calls: list[Callable[..., object]] = []
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def pop(self) -> Any:
        """The last value, if it stands after the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("the stack is empty")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """All values after the last mark."""
        if not self.marks:
            raise ValueError("no mark")
        at = self.marks.pop()
        values, self.stack[at:] = self.stack[at:], []
        return values

    def step(self, name: str, argument: Any) -> None:
        """One instruction."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "TUPLE" or name in _TUPLES:
            values = self.pop_to_mark() if name == "TUPLE" else [self.pop() for _ in range(_TUPLES[name])][::-1]
            self.stack.append(_flat_tuple(values))
        elif name in ("PROTO", "FRAME"):
            pass
        else:
            self._step_with_effect(name, argument)

    def _step_with_effect(self, name: str, argument: Any) -> None:
        match name:
            case "APPEND" | "APPENDS":
                values = [self.pop()] if name == "APPEND" else self.pop_to_mark()
                _require(self._top(), list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self.pop_to_mark()
                _require(self._top(), dict).update(_pairs(values))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self._top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self._top()
            case "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise ValueError("asks for what it never put into its memo")
                self.stack.append(self.memo[argument])
            case "GLOBAL" | "STACK_GLOBAL":
                words = argument.split(" ", 1) if name == "GLOBAL" else [self.pop(), self.pop()][::-1]
                self.calls.append(self.find_call(*(_require(word, str) for word in words)))
                self.stack.append(self.calls[-1])
            case "REDUCE":
                words, call = self.pop(), self.pop()
                if not any(call is known for known in self.calls):
                    raise ValueError("calls what is no stand-in")
                self.stack.append(call(*_require(words, tuple)))
            case "BUILD":
                state, built = self.pop(), self._top()
                if isinstance(built, type) or not hasattr(built, "__setstate__"):
                    raise ValueError("gives a state to what has none")
                built.__setstate__(_require(state, tuple))
            case _:
                raise ValueError(f"{name}, which no array needs")

    def _top(self) -> Any:
        value = self.pop()
        self.stack.append(value)
        return value


def _require(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _flat_tuple(values: list[Any]) -> tuple[Any, ...]:
    """A tuple of at most two levels: an array's state holds its shape."""
    if len(values) > LONGEST_TUPLE:
        raise ValueError(f"a tuple of {len(values)}")
    if any(isinstance(part, tuple) for value in values if isinstance(value, tuple) for part in value):
        raise ValueError("tuples nested too deep")
    return tuple(values)


def _pairs(values: list[Any]) -> list[tuple[str, Any]]:
    keys, rest = values[::2], values[1::2]
    if len(keys) != len(rest) or not all(type(key) is str for key in keys):
        raise ValueError("a dictionary whose keys are no text")
    return list(zip(keys, rest, strict=True))
