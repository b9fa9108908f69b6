"""Pickles of numbers, text, lists, dictionaries and numpy arrays, taken apart without running anything in them.

A pickle is a program for a small stack machine, and some of its instructions call whatever function it names. This is
that machine without those calls: the few names that arrays need are answered by stand-ins, every other one is refused.

`pickle.Unpickler` with a short list of admitted names would run none of an attacker's code either. But it reserves
whatever memory a file asks for, hands the file's values to numpy's own readers, and hashes tuples nested until the
stack overflows. Here nothing is larger than the file, and only text is hashed. Instructions: Python's `pickletools`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Damaged(ValueError):
    """What was found that makes no sense."""


class Refused(Damaged):
    """A name that no array needs, and so may be an attack."""


class Dtype:
    """Stands for numpy.dtype: a code such as "u1", and a byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = as_text(code)
        self.order = "="

    def build(self, state: Any) -> None:
        """Take the state that numpy pickles: a version number, the byte order, and what only other types have."""
        self.order = as_text(state[1])

    def dtype(self) -> np.dtype[Any]:
        """The real one, of whole numbers only."""
        if self.code[:1] not in {"u", "i"} or self.code[1:] not in {"1", "2", "4", "8"}:
            raise Damaged(f"an array of type {self.code[:20]!r}")
        if self.order not in {"|", "<", ">", "="}:
            raise Damaged(f"an array in byte order {self.order[:20]!r}")
        return np.dtype(self.order + self.code)


class Array:
    """Stands for numpy.ndarray: a shape, a type, whether columns come first, and bytes that stay where they are."""

    def __init__(self, *state: Any) -> None:
        self.state = state

    def build(self, state: Any) -> None:
        """Take the state that numpy pickles: a version number, except in the oldest files, then what is above."""
        self.state = state[-4:]

    def values(self) -> NDArray[Any]:
        """The real array, without a copy.

        Raises:
            Damaged: its parts do not fit together.
        """
        try:
            shape, dtype, by_column, content = self.state
            if not all(type(length) is int and length >= 0 for length in _of_kind(tuple, shape)):
                raise Damaged("an array of no proper shape")
            flat = np.frombuffer(content, dtype=_of_kind(Dtype, dtype).dtype())
            return flat.reshape(shape, order="F" if by_column is True else "C")
        except (TypeError, ValueError, OverflowError) as error:
            raise Damaged(str(error)) from None


def take_apart(content: bytes, most_parts: int) -> object:
    """The value in a pickle of protocol 2 to 5.

    Args:
        content: the pickle. Its long byte strings stay in it: `Array.values` gives views.
        most_parts: bound on the number of instructions, and with it on memory (about 80 bytes each).

    Returns:
        The value, with an `Array` for each array. Keys of dictionaries are text; what was text in Python 2 is bytes.

    Raises:
        Refused: it names something that no array needs.
        Damaged: it makes no sense, or needs an instruction that such values do not need.
    """
    try:
        return _run(content, most_parts)
    except Damaged:
        raise
    except IndexError:
        raise Damaged("it ends too early") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Damaged(f"it makes no sense: {error}") from None


def as_text(value: object) -> str:
    """Text, also where Python 2 wrote it as bytes.

    Raises:
        Damaged: it is neither.
    """
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise Damaged(f"a {type(value).__name__} in place of text")


def _encode(text: Any, encoding: Any) -> bytes:
    if as_text(encoding) != "latin1":
        raise Damaged("text in an encoding other than latin1")
    return bytes(_of_kind(str, text).encode("latin-1"))


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    return Array(shape, dtype, order == "F", content)


def _not_called(*_: object) -> None:
    raise Damaged("numpy.ndarray called by itself")


_NAMES: Mapping[str, Callable[..., Any]] = {
    "numpy.ndarray": _not_called,
    "numpy.dtype": Dtype,
    "numpy.core.multiarray._reconstruct": lambda *_: Array(),
    "numpy._core.multiarray._reconstruct": lambda *_: Array(),
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,  # how Python 3 writes bytes for Python 2
}
"""All that an array may ask for, as old and new versions of numpy spell it, and what answers here."""


@dataclass(frozen=True)
class _Name:
    """One of `_NAMES`, on the stack."""

    call: Callable[..., Any]


_NUMBERS = {ord("K"): (1, False), ord("M"): (2, False), ord("J"): (4, True)}  # BININT1, BININT2, BININT: bytes, signed
_STRINGS = {  # instruction: (bytes that its length takes, whether it is Unicode)
    ord("U"): (1, False),  # SHORT_BINSTRING
    ord("T"): (4, False),  # BINSTRING
    ord("C"): (1, False),  # SHORT_BINBYTES
    ord("B"): (4, False),  # BINBYTES
    0x8E: (8, False),  # BINBYTES8
    0x96: (8, False),  # BYTEARRAY8
    0x8C: (1, True),  # SHORT_BINUNICODE
    ord("X"): (4, True),  # BINUNICODE
    0x8D: (8, True),  # BINUNICODE8
}
_PUTS = {ord("q"): 1, ord("r"): 4}  # BINPUT, LONG_BINPUT: bytes of the place
_GETS = {ord("h"): 1, ord("j"): 4}  # BINGET, LONG_BINGET
_CONSTANTS = {ord("N"): None, 0x88: True, 0x89: False}  # NONE, NEWTRUE, NEWFALSE
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}  # TUPLE1, TUPLE2, TUPLE3
_LONG_STRING = 65_536
"""Byte strings above this size are not copied."""


def _run(content: bytes, most_parts: int) -> object:
    view = memoryview(content)
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    position = 0

    def number(width: int, signed: bool = False) -> int:
        nonlocal position
        position += width
        return int.from_bytes(content[position - width : position], "little", signed=signed)

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    encoded = 0  # bytes that were made of text
    for _ in range(most_parts):
        instruction = content[position]
        position += 1
        if instruction in _NUMBERS:
            stack.append(number(*_NUMBERS[instruction]))
        elif instruction in _STRINGS:
            width, is_unicode = _STRINGS[instruction]
            length = number(width)
            piece = view[position : position + length]
            position += length
            if is_unicode:
                stack.append(str(piece, "utf-8", "surrogatepass"))
            else:
                stack.append(piece if length > _LONG_STRING else bytes(piece))
        elif instruction in _PUTS:
            memo[number(_PUTS[instruction])] = stack[-1]
        elif instruction in _GETS:
            stack.append(memo[number(_GETS[instruction])])
        elif instruction in _CONSTANTS:
            stack.append(_CONSTANTS[instruction])
        elif instruction in _TUPLES:
            size = _TUPLES[instruction]
            stack[-size:] = [tuple(stack[-size:])]
        else:
            match chr(instruction):
                case "(":  # MARK
                    marks.append(len(stack))
                case "t":  # TUPLE
                    stack.append(tuple(since_mark()))
                case ")":  # EMPTY_TUPLE
                    stack.append(())
                case "]":  # EMPTY_LIST
                    stack.append([])
                case "}":  # EMPTY_DICT
                    stack.append({})
                case "a":  # APPEND
                    item = stack.pop()
                    _of_kind(list, stack[-1]).append(item)
                case "e":  # APPENDS
                    items = since_mark()
                    _of_kind(list, stack[-1]).extend(items)
                case "s":  # SETITEM
                    value, key = stack.pop(), stack.pop()
                    _of_kind(dict, stack[-1])[as_text(key)] = value
                case "u":  # SETITEMS
                    items = since_mark()
                    pairs = zip(items[::2], items[1::2], strict=True)
                    _of_kind(dict, stack[-1]).update((as_text(key), value) for key, value in pairs)
                case "\x94":  # MEMOIZE
                    memo[len(memo)] = stack[-1]
                case "c":  # GLOBAL
                    middle = content.index(b"\n", position, position + 200)
                    end = content.index(b"\n", middle + 1, middle + 200)
                    stack.append(_name(content[position:middle], content[middle + 1 : end]))
                    position = end + 1
                case "\x93":  # STACK_GLOBAL
                    name, module = stack.pop(), stack.pop()
                    stack.append(_name(module, name))
                case "R":  # REDUCE
                    arguments, function = stack.pop(), stack.pop()
                    stack.append(made := _of_kind(_Name, function).call(*_of_kind(tuple, arguments)))
                    encoded += len(made) if isinstance(made, bytes) else 0
                    if encoded > len(content):  # the same text, again and again
                        raise Damaged("more text than the file holds")
                case "b":  # BUILD
                    state = stack.pop()
                    if not isinstance(stack[-1], Array | Dtype):
                        raise Damaged(f"a state for a {type(stack[-1]).__name__}")
                    stack[-1].build(state)
                case "\x8a":  # LONG1
                    stack.append(number(number(1), True))
                case "\x80":  # PROTO
                    if not 2 <= number(1) <= 5:
                        raise Damaged("a protocol other than 2 to 5")
                case "\x95":  # FRAME, which only says how much to read ahead
                    number(8)
                case ".":  # STOP
                    return stack.pop()
                case _:
                    raise Damaged(f"instruction {instruction:#04x} at byte {position - 1:,}")
        if position > len(content):
            raise Damaged("it ends too early")
    raise Damaged(f"more than {most_parts:,} parts")


def _of_kind(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise Damaged(f"a {type(value).__name__.lower()} in place of a {kind.__name__.strip('_').lower()}")
    return value


def _name(module: object, name: object) -> _Name:
    wanted = f"{as_text(module)}.{as_text(name)}"
    if wanted not in _NAMES:
        raise Refused(f"it asks for {wanted[:80].encode('ascii', 'backslashreplace').decode()}")
    return _Name(_NAMES[wanted])
