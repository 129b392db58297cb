"""The pickle machine: walks the opcodes that a dict of arrays needs, and refuses all others.

One parser, so there is one meaning: nothing is scanned first and loaded by somebody else afterwards.
"""

import mmap
import struct
from collections.abc import Callable, Mapping

from pipeline.errors import printable
from pipeline.store.pickle_arrays import GLOBALS, LONG, Array, Budget, LongText, Malformed, build, call

# An honest batch takes 30,100 opcodes (10,000 labels and 10,000 file names), CIFAR-100's largest 200,100.
_MAX_OPCODES = 300_000  # also the most values in a result, and the highest index of the memo
_MAX_NESTING = 32  # containers in containers; honest files need 4
_MAX_INTEGER = 8  # bytes of a LONG1
_MAX_INTEGER_KEYS = 100  # in a file: integers can be chosen so that their hashes collide, text cannot
_MAX_NAME = 64  # bytes of a GLOBAL's module or name
_MAX_TEXT = 16 * 1024**2  # bytes of decoded text: a character may take four bytes in memory

_SCALARS = frozenset({str, bytes, int, float, bool, type(None)})
PROTO, _STOP = 0x80, ord(".")


class Machine:
    """The pickle machine: a stack, marks in it, and a memo.

    Whatever a method finds amiss it raises as Malformed; `start` is then the byte of the opcode at fault.
    Opcodes never reach below the latest mark.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = data
        self.view = memoryview(data)
        self.position = 0
        self.start = 0  # of the opcode at work
        self.in_frame = False
        self.limit = len(data)  # where the current frame ends, or the file outside of frames
        self.stack: list[object] = []
        self.marks: list[int] = []  # the stack's heights at each MARK
        self.memo: dict[int, object] = {}
        self.integer_keys = 0
        self.text_left = _MAX_TEXT
        self.values_left = _MAX_OPCODES
        # Twice the file: text may become bytes once, and bytes an array once.
        self.budget = Budget(2 * len(data))

    def run(self) -> object:
        """Walk all opcodes; the value at STOP."""
        self.take(1)  # PROTO
        if (protocol := self.number(1)) not in range(2, 6):
            raise Malformed(f"pickle protocol {protocol}, and 2 to 5 can be read")
        for _ in range(_MAX_OPCODES):
            if self.in_frame and self.position == self.limit:
                self.in_frame, self.limit = False, len(self.data)
            self.start = self.position
            opcode = self.number(1)
            if opcode == _STOP:
                return self.result()
            handler = _OPCODES.get(opcode)
            if handler is None:
                raise Malformed(f"opcode 0x{opcode:02x}, which no pickle of plain arrays needs")
            handler(self)
        raise Malformed(f"more than {_MAX_OPCODES} opcodes")

    def result(self) -> object:
        """The one value on the stack, if STOP is the file's last byte."""
        if self.position != len(self.data):
            raise Malformed("the pickle ends before the file does")
        if self.marks or len(self.stack) != 1:
            raise Malformed("the pickle ends with other than one value")
        return self.plain(self.stack.pop(), 0)

    def plain(self, value: object, nesting: int) -> object:
        """A copy of `value` as a tree, free of markers: neither cycles nor repeated references grow it."""
        self.values_left -= 1
        if self.values_left < 0 or nesting > _MAX_NESTING:
            raise Malformed("values that hold themselves, or too many of them")
        kind = type(value)
        if kind in _SCALARS:
            return value
        if isinstance(value, list):
            return [self.plain(item, nesting + 1) for item in value]
        if isinstance(value, tuple):
            return tuple([self.plain(item, nesting + 1) for item in value])
        if isinstance(value, dict):
            return {key: self.plain(item, nesting + 1) for key, item in value.items()}
        if isinstance(value, memoryview):
            self.budget.spend(len(value))
            return bytes(value)
        if isinstance(value, Array) and value.complete is not None:
            return value.complete
        raise Malformed("the value holds an unfinished array, a function, a dtype or a very long text")

    # --- bytes of the file ---

    def take(self, count: int) -> int:
        """Step over `count` bytes; where they begin."""
        begin = self.position
        if count > self.limit - begin:
            raise Malformed("an opcode crosses the end of its frame" if self.in_frame else "the file ends too early")
        self.position = begin + count
        return begin

    def number(self, size: int, signed: bool = False) -> int:
        """The next `size` bytes as a little-endian integer."""
        begin = self.take(size)
        return int.from_bytes(self.data[begin : self.position], "little", signed=signed)

    def line(self) -> str:
        """The next bytes up to a newline, without it."""
        end = self.data.find(b"\n", self.position, min(self.limit, self.position + _MAX_NAME + 1))
        if end < 0:
            raise Malformed("a GLOBAL with a name that is too long or does not end")
        begin = self.take(end + 1 - self.position)
        return self.data[begin:end].decode("latin-1")

    # --- the stack ---

    def floor(self) -> int:
        """The height of the stack at the latest MARK: nothing reaches below."""
        return self.marks[-1] if self.marks else 0

    def top(self) -> object:
        """The stack's last value."""
        if len(self.stack) <= self.floor():
            raise Malformed("a value is missing on the stack")
        return self.stack[-1]

    def pop(self) -> object:
        """The stack's last value, taken off."""
        value = self.top()
        del self.stack[-1]
        return value

    def pop_mark(self) -> list[object]:
        """The values since the latest MARK, taken off with it."""
        if not self.marks:
            raise Malformed("a MARK is missing")
        begin = self.marks.pop()
        values = self.stack[begin:]
        del self.stack[begin:]
        return values

    # --- opcodes ---

    def frame(self) -> None:
        """FRAME: exactly the opcodes in the next bytes; `take` sees to it that none crosses the end."""
        if self.in_frame:
            raise Malformed("a frame in a frame")
        size = self.number(8)
        if not 0 < size <= self.limit - self.position:
            raise Malformed("a frame that is empty or longer than the file")
        self.in_frame, self.limit = True, self.position + size

    def mark(self) -> None:
        """MARK."""
        if len(self.marks) >= _MAX_NESTING:
            raise Malformed(f"more than {_MAX_NESTING} containers in each other")
        self.marks.append(len(self.stack))

    def push_long(self) -> None:
        """LONG1."""
        size = self.number(1)
        if size > _MAX_INTEGER:
            raise Malformed(f"an integer of {size} bytes")
        self.stack.append(self.number(size, signed=True))

    def push_float(self) -> None:
        """BINFLOAT: the only number that is big-endian."""
        self.stack.extend(struct.unpack_from(">d", self.data, self.take(8)))

    def push_bytes(self, size_of_size: int) -> None:
        """BINBYTES and its kin, Python 2's BINSTRING, BYTEARRAY8."""
        size = self.number(size_of_size)
        begin = self.take(size)
        source = self.data if size <= LONG else self.view
        self.stack.append(source[begin : self.position])

    def push_text(self, size_of_size: int) -> None:
        """BINUNICODE and its kin."""
        size = self.number(size_of_size)
        begin = self.take(size)
        if size > LONG:
            self.stack.append(LongText(self.view[begin : self.position]))
            return
        self.text_left -= size
        if self.text_left < 0:
            raise Malformed(f"more than {_MAX_TEXT} bytes of text")
        try:
            self.stack.append(self.data[begin : self.position].decode())
        except UnicodeDecodeError:
            raise Malformed("text that is not UTF-8") from None

    def push_tuple(self, count: int) -> None:
        """EMPTY_TUPLE, TUPLE1 to TUPLE3."""
        begin = len(self.stack) - count
        if begin < self.floor():
            raise Malformed("a value is missing on the stack")
        self.stack[begin:] = [tuple(self.stack[begin:])]

    def append(self, values: list[object]) -> None:
        """APPEND and APPENDS."""
        target = self.top()
        if not isinstance(target, list):
            raise Malformed("an append to something that is not a list")
        target.extend(values)

    def set_items(self, values: list[object]) -> None:
        """SETITEM and SETITEMS: keys and values in turn."""
        target = self.top()
        if not isinstance(target, dict) or len(values) % 2:
            raise Malformed("items that do not fit into a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            self.integer_keys += type(key) is int
            if type(key) not in (str, bytes, int) or self.integer_keys > _MAX_INTEGER_KEYS:
                raise Malformed("a dict's key that is no short text, or too many integers as keys")
            if key in target:
                raise Malformed(f"the key {printable(repr(key))} twice in a dict")
            target[key] = value

    def put(self, index: int) -> None:
        """BINPUT, LONG_BINPUT, MEMOIZE."""
        if index > _MAX_OPCODES:
            raise Malformed(f"index {index} of the memo")
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        """BINGET, LONG_BINGET."""
        if index not in self.memo:
            raise Malformed(f"index {index} of the memo, which is empty there")
        self.stack.append(self.memo[index])

    def find(self, module: object, name: object) -> None:
        """GLOBAL and STACK_GLOBAL: an inert marker."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a global whose name is not text")
        marker = GLOBALS.get((module, name))
        if marker is None:
            raise Malformed(f"a global that no array needs, {printable(f'{module} {name}')}")
        self.stack.append(marker)

    def stack_global(self) -> None:
        """STACK_GLOBAL."""
        name, module = self.pop(), self.pop()
        self.find(module, name)

    def reduce(self) -> None:
        """REDUCE: the call of a marker."""
        arguments, function = self.pop(), self.pop()
        self.stack.append(call(function, arguments, self.budget))

    def build(self) -> None:
        """BUILD."""
        state = self.pop()
        build(self.top(), state, self.budget)


# Protocol 0's and 1's opcodes, classes (INST, OBJ, NEWOBJ, EXT), POP, DUP, sets, LONG4, persistent ids and
# out-of-band buffers are left out: no writer of these files needs them.
_OPCODES: Mapping[int, Callable[[Machine], None]] = {
    0x95: Machine.frame,
    ord("("): Machine.mark,
    # constants and numbers
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("K"): lambda m: m.stack.append(m.number(1)),  # BININT1
    ord("M"): lambda m: m.stack.append(m.number(2)),  # BININT2
    ord("J"): lambda m: m.stack.append(m.number(4, signed=True)),  # BININT
    0x8A: Machine.push_long,
    ord("G"): Machine.push_float,
    # bytes and text
    ord("U"): lambda m: m.push_bytes(1),  # SHORT_BINSTRING
    ord("T"): lambda m: m.push_bytes(4),  # BINSTRING
    ord("C"): lambda m: m.push_bytes(1),  # SHORT_BINBYTES
    ord("B"): lambda m: m.push_bytes(4),  # BINBYTES
    0x8E: lambda m: m.push_bytes(8),  # BINBYTES8
    0x96: lambda m: m.push_bytes(8),  # BYTEARRAY8
    0x8C: lambda m: m.push_text(1),  # SHORT_BINUNICODE
    ord("X"): lambda m: m.push_text(4),  # BINUNICODE
    0x8D: lambda m: m.push_text(8),  # BINUNICODE8
    # containers
    ord(")"): lambda m: m.push_tuple(0),
    0x85: lambda m: m.push_tuple(1),
    0x86: lambda m: m.push_tuple(2),
    0x87: lambda m: m.push_tuple(3),
    ord("t"): lambda m: m.stack.append(tuple(m.pop_mark())),
    ord("]"): lambda m: m.stack.append([]),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.pop_mark()),
    ord("}"): lambda m: m.stack.append({}),
    ord("s"): lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    # the memo
    ord("q"): lambda m: m.put(m.number(1)),  # BINPUT
    ord("r"): lambda m: m.put(m.number(4)),  # LONG_BINPUT
    0x94: lambda m: m.put(len(m.memo)),  # MEMOIZE
    ord("h"): lambda m: m.get(m.number(1)),  # BINGET
    ord("j"): lambda m: m.get(m.number(4)),  # LONG_BINGET
    # arrays
    ord("c"): lambda m: m.find(m.line(), m.line()),  # GLOBAL
    0x93: Machine.stack_global,
    ord("R"): Machine.reduce,
    ord("b"): Machine.build,
}
