"""Read the pickles of CIFAR-10 and of the competition without running them.

`pickle.load` runs code from the file, even behind an allow-list.  So our own interpreter walks the opcodes that a dict
of arrays needs and refuses everything else.  It loads protocols 2 to 5, from Python 2 and 3 and numpy 1.x and 2.x.

It refuses a hostile file in well under a second, and takes at most three times its size plus a constant in memory.
"""

import codecs
import math
import mmap
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData, printable
from pipeline.store import formats

# A CIFAR-10 batch takes 30,100 opcodes (10,000 labels and 10,000 file names), CIFAR-100's largest 200,100.
_MAX_OPCODES = 300_000  # also the most values in a result, and the highest index of the memo
_MAX_NESTING = 32  # containers in containers; honest files need 4
_EXTRA = 32 * 1024**2  # bytes for decoded text, whatever the file's size
_MAX_DIMENSIONS = 8  # images need 4
_MAX_ELEMENTS = 2**40  # of an array, counting zero sizes as ones: far below numpy's overflow
_LONG = 4096  # bytes; longer strings stay views of the file until they are needed
_CHUNK = 1024**2  # bytes of text encoded at a time


def loads(data: bytes | mmap.mmap, source: str = "pickle") -> object:
    """The value of a pickle: dicts, lists, tuples, str, bytes, int, float, bool, None and numpy arrays.

    Arrays are read-only, in native byte order, and views of `data` where possible.  Python 2's str and bytearrays
    become bytes, numpy scalars Python numbers.  `source` is the name for messages.

    Raises:
        BadData: the pickle is damaged, or needs more than a dict of arrays does.
    """
    machine = _Machine(data)
    try:
        return machine.run()
    except _Malformed as error:
        why = str(error)
    except (IndexError, KeyError):
        why = "a value that is not on the stack or in the memo"
    except MemoryError:
        why = "it does not fit into memory"
    if other := formats.explained(source, data[: formats.HEAD], machine.refused):
        raise BadData(other)
    cure = f"save it with plain arrays alone, or {formats.REPLACE}"
    raise BadData(f"{printable(source)}: {why}, at byte {machine.start}; the file was not loaded: {cure}")


class _Malformed(Exception):
    """Why a pickle is refused; `loads` adds the byte and the file."""


# The stack holds plain values and inert markers, never functions of numpy.
_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"),  # numpy 1.x: an empty array, filled by BUILD
    ("numpy._core.multiarray", "_reconstruct"),  # numpy 2.x
    ("numpy.core.numeric", "_frombuffer"),  # an array at once (protocol 5)
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),  # only as an argument of _reconstruct
    ("numpy", "dtype"),  # completed by BUILD
    ("_codecs", "encode"),  # bytes as text (protocol 2 written by Python 3)
    ("__builtin__", "bytes"),  # empty bytes (likewise)
    ("numpy.core.multiarray", "scalar"),  # one number of an array
    ("numpy._core.multiarray", "scalar"),
}


@dataclass(frozen=True)
class _Global:
    name: str  # from the closed list; decides what a call means


@dataclass(eq=False)
class _LongText:
    utf8: memoryview  # text over _LONG bytes, not decoded: only `encode` may use it


@dataclass(eq=False)
class _DType:
    code: str  # as in "u1", from its REDUCE
    complete: np.dtype[np.generic] | None = None  # from its BUILD


@dataclass(eq=False)
class _Array:
    complete: NDArray[np.generic] | None = None  # from its BUILD, or at once


# numpy's own codes for the plain numbers: bool, integers and floats of 1 to 8 bytes.
_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def _text(value: object) -> object:
    return value.decode("latin-1") if isinstance(value, bytes) else value  # Python 2 writes text as bytes


class _Machine:
    """The pickle machine: a stack for each MARK, so that no opcode reaches below it, and a memo.

    Methods raise _Malformed, or IndexError or KeyError for a missing value; `start` is the byte of the opcode.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = data
        self.position = 0
        self.start = 0  # byte of the current opcode
        self.refused = ""  # the global that no array needs
        self.stack: list[object] = []
        self.marks: list[list[object]] = []  # the stacks before each MARK
        self.memo: dict[int, object] = {}
        self.values_left = _MAX_OPCODES
        # Bytes that may still be copied, so that no reference is copied again and again: twice the file, as text
        # may become bytes once, and bytes an array once.
        self.copies_left = 2 * len(data) + _EXTRA

    def run(self) -> object:
        """Walk all opcodes; the value at STOP."""
        if self.number(1) != 0x80 or self.number(1) not in range(2, 6):
            raise _Malformed(f"it begins with {self.data[:16]!r}, not like a pickle of protocol 2 to 5")
        for _ in range(_MAX_OPCODES):
            self.start = self.position
            opcode = self.number(1)
            if opcode == ord("."):  # STOP
                break
            if opcode not in _OPCODES:
                raise _Malformed(f"unsupported opcode 0x{opcode:02x}")
            _OPCODES[opcode](self)
        else:
            raise _Malformed(f"more than {_MAX_OPCODES} opcodes")
        if self.position != len(self.data):
            raise _Malformed("the pickle ends before the file does")
        if self.marks or len(self.stack) != 1:
            raise _Malformed("the pickle ends with other than one value")
        return self.plain(self.stack.pop(), 0)

    def plain(self, value: object, nesting: int) -> object:
        """A copy of `value` as a tree without markers; refuses cycles and bounds repeated references."""
        self.values_left -= 1
        if self.values_left < 0 or nesting > _MAX_NESTING:
            raise _Malformed("values that hold themselves, or too many of them")
        if value is None or type(value) in (str, bytes, int, float, bool):
            return value
        if isinstance(value, list | tuple):
            return type(value)([self.plain(item, nesting + 1) for item in value])
        if isinstance(value, dict):
            return {key: self.plain(item, nesting + 1) for key, item in value.items()}
        if isinstance(value, memoryview):
            self.spend(len(value))
            return bytes(value)
        if isinstance(value, _Array) and value.complete is not None:
            return value.complete
        raise _Malformed("the value holds an unfinished array, a function, a dtype or a very long text")

    def spend(self, count: int) -> None:
        """Account for a copy of (or a walk over) `count` bytes; valid files stay within `copies_left`."""
        self.copies_left -= count
        if self.copies_left < 0:
            raise _Malformed("the same bytes are used again and again")

    def take(self, count: int) -> int:
        """Step over `count` bytes; returns where they begin."""
        begin = self.position
        if count > len(self.data) - begin:
            raise _Malformed("the file ends too early")
        self.position = begin + count
        return begin

    def number(self, size: int, signed: bool = False) -> int:
        """The next `size` bytes as a little-endian integer."""
        begin = self.take(size)
        return int.from_bytes(self.data[begin : self.position], "little", signed=signed)

    def line(self) -> str:
        """The rest of the line, of a GLOBAL."""
        end = self.data.find(b"\n", self.position, self.position + 65)
        if end < 0:
            raise _Malformed("a GLOBAL with a name that is too long or does not end")
        begin = self.take(end + 1 - self.position)
        return self.data[begin:end].decode("latin-1")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[object]:
        """Take the last `count` values off the stack."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[object]:
        """Take the values since the latest MARK off the stack, and the MARK."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    def frame(self) -> None:
        """FRAME, a hint for readers of streams; only its length is checked."""
        if not 0 < self.number(8) <= len(self.data) - self.position:
            raise _Malformed("a frame that is empty or longer than the file")

    def push_long(self) -> None:
        size = self.number(1)
        if size > 8:  # what int64 holds
            raise _Malformed(f"an integer of {size} bytes")
        self.push(self.number(size, signed=True))

    def push_bytes(self, size_of_size: int) -> None:
        size = self.number(size_of_size)
        begin = self.take(size)
        self.push((self.data if size <= _LONG else memoryview(self.data))[begin : self.position])

    def push_text(self, size_of_size: int) -> None:
        size = self.number(size_of_size)
        begin = self.take(size)
        if size > _LONG:
            self.push(_LongText(memoryview(self.data)[begin : self.position]))
            return
        self.spend(4 * size)  # the most that its characters take in memory
        try:
            self.push(self.data[begin : self.position].decode())
        except UnicodeDecodeError:
            raise _Malformed("text that is not UTF-8") from None

    def append(self, values: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise _Malformed("an append to something that is not a list")
        target.extend(values)

    def set_items(self, values: list[object]) -> None:
        """SETITEM and SETITEMS: keys and values in turn."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise _Malformed("items that do not fit into a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Integers could be chosen so that their hashes collide.
            if type(key) not in (str, bytes) or key in target:
                raise _Malformed("a dict's key that is not a short text, or is there twice")
            target[key] = value

    def put(self, index: int) -> None:
        if index > _MAX_OPCODES:
            raise _Malformed(f"index {index} of the memo")
        self.memo[index] = self.stack[-1]

    def find(self, module: object, name: object) -> None:
        """GLOBAL and STACK_GLOBAL: an inert marker."""
        if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in _GLOBALS:
            self.refused = f"{module}.{name}"
            raise _Malformed(f"a global that no array needs, {printable(self.refused, 80)}")
        self.push(_Global(name))

    def reduce(self) -> None:
        """REDUCE, the call of a global: only the calls that writers of arrays make."""
        function, arguments = self.pop(2)
        match function, arguments if type(arguments) is tuple else None:
            case _Global("_reconstruct"), (_Global("ndarray"), tuple((0,)), b"b"):
                self.push(_Array())
            case _Global("dtype"), (code, 0, 1) if _text(code) in _NUMBERS:  # 0 and 1: False and True
                self.push(_DType(str(_text(code))))
            case _Global("dtype"), (str() | bytes() as code, 0, 1) if re.match("[SU][0-9]", str(_text(code))):
                self.refused = "numpy.str_"
                raise _Malformed("an array of text")
            case _Global("encode"), (str() | _LongText() as text, "latin1"):
                self.push(self.latin1(text))
            case _Global("bytes"), ():
                self.push(b"")
            case _Global("_frombuffer"), (raw, dtype, shape, "C" | "F" as order):
                self.push(_Array(self.array(raw, dtype, shape, order == "F")))
            case _Global("scalar"), (_DType() as dtype, raw):
                self.push(self.array(raw, dtype, (), False).item())
            case _:
                raise _Malformed("a call that no array of plain numbers needs")

    def build(self) -> None:
        """BUILD: completes an array or dtype of plain numbers, once, with the state that numpy writes."""
        state, target = self.stack.pop(), self.stack[-1]
        match target, state if type(state) is tuple else None:
            case _DType(code, None), (3, order, None, None, None, -1, -1, 0):
                if _text(order) not in (("|",) if code.endswith("1") else ("<", ">")):
                    raise _Malformed("a byte order that plain numbers do not have")
                target.complete = np.dtype(f"{_text(order)}{code}")
            case _Array(None), (1, shape, dtype, bool() as fortran, raw):
                target.complete = self.array(raw, dtype, shape, fortran)
            case _:
                raise _Malformed("BUILD of something other than an incomplete array or dtype of plain numbers")

    def latin1(self, text: str | _LongText) -> bytes | memoryview:
        """The bytes that Python 3 wrote as text, decoded in chunks, without a second copy of a large text.

        As one str, a hostile text could take four times the file: up to four bytes a character.
        """
        utf8 = memoryview(text.encode()) if isinstance(text, str) else text.utf8
        self.spend(len(utf8))
        decoder = codecs.getincrementaldecoder("utf-8")()
        encoded = bytearray()
        try:
            for start in range(0, len(utf8), _CHUNK):
                encoded += decoder.decode(utf8[start : start + _CHUNK]).encode("latin-1")
            decoder.decode(b"", final=True)
        except UnicodeError:
            raise _Malformed("bytes as text that is not UTF-8 or not latin1") from None
        return bytes(encoded) if len(encoded) <= _LONG else memoryview(encoded).toreadonly()

    def array(self, raw: object, dtype: object, shape: object, fortran: bool) -> NDArray[np.generic]:
        """A read-only array on `raw`; a copy if the numbers are unaligned or not in native byte order."""
        if not isinstance(raw, bytes | memoryview) or not isinstance(dtype, _DType) or dtype.complete is None:
            raise _Malformed("an array without bytes or without a complete dtype")
        if type(shape) is not tuple or any(type(size) is not int or size < 0 for size in shape):
            raise _Malformed("an array's shape that is not a tuple of sizes from 0 on")
        if len(shape) > _MAX_DIMENSIONS or math.prod(max(size, 1) for size in shape) > _MAX_ELEMENTS:
            raise _Malformed("an array's shape with too many or too large sizes")
        if (needed := math.prod(shape) * dtype.complete.itemsize) != len(raw):
            raise _Malformed(f"an array of shape {shape} takes {needed} bytes, but {len(raw)} are there")
        array: NDArray[np.generic] = np.ndarray(shape, dtype.complete, buffer=raw, order="F" if fortran else "C")
        if dtype.code == "b1" and array.size:
            self.spend(len(raw))
            if array.view(np.uint8).max() > 1:
                raise _Malformed("an array of bool holds something else than 0 and 1")
        if not (array.flags.aligned and array.dtype.isnative):
            self.spend(len(raw))
            array = array.astype(array.dtype.newbyteorder("="))
        array.flags.writeable = False
        return array


# Protocol 0's and 1's opcodes, classes (INST, OBJ, NEWOBJ, EXT), POP, DUP, sets, LONG4, persistent ids and
# out-of-band buffers are missing: no writer of these files needs them.
_OPCODES: Mapping[int, Callable[[_Machine], None]] = {
    0x95: _Machine.frame,
    ord("("): _Machine.mark,
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("K"): lambda m: m.push(m.number(1)),  # BININT1
    ord("M"): lambda m: m.push(m.number(2)),  # BININT2
    ord("J"): lambda m: m.push(m.number(4, signed=True)),  # BININT
    0x8A: _Machine.push_long,  # LONG1
    ord("G"): lambda m: m.push(*struct.unpack_from(">d", m.data, m.take(8))),  # BINFLOAT
    ord("U"): lambda m: m.push_bytes(1),  # SHORT_BINSTRING, of Python 2
    ord("T"): lambda m: m.push_bytes(4),  # BINSTRING, of Python 2
    ord("C"): lambda m: m.push_bytes(1),  # SHORT_BINBYTES
    ord("B"): lambda m: m.push_bytes(4),  # BINBYTES
    0x8E: lambda m: m.push_bytes(8),  # BINBYTES8
    0x96: lambda m: m.push_bytes(8),  # BYTEARRAY8
    0x8C: lambda m: m.push_text(1),  # SHORT_BINUNICODE
    ord("X"): lambda m: m.push_text(4),  # BINUNICODE
    0x8D: lambda m: m.push_text(8),  # BINUNICODE8
    ord(")"): lambda m: m.push(()),  # EMPTY_TUPLE
    0x85: lambda m: m.push(tuple(m.pop(1))),  # TUPLE1
    0x86: lambda m: m.push(tuple(m.pop(2))),
    0x87: lambda m: m.push(tuple(m.pop(3))),
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    ord("]"): lambda m: m.push([]),
    ord("a"): lambda m: m.append(m.pop(1)),
    ord("e"): lambda m: m.append(m.pop_mark()),
    ord("}"): lambda m: m.push({}),
    ord("s"): lambda m: m.set_items(m.pop(2)),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    ord("q"): lambda m: m.put(m.number(1)),  # BINPUT
    ord("r"): lambda m: m.put(m.number(4)),  # LONG_BINPUT
    0x94: lambda m: m.put(len(m.memo)),  # MEMOIZE
    ord("h"): lambda m: m.push(m.memo[m.number(1)]),  # BINGET
    ord("j"): lambda m: m.push(m.memo[m.number(4)]),  # LONG_BINGET
    ord("c"): lambda m: m.find(m.line(), m.line()),  # GLOBAL
    0x93: lambda m: m.find(*m.pop(2)),  # STACK_GLOBAL
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
}
