"""Reads the pickles of CIFAR-10 and of the competition without running them.

`pickle.load` does whatever a file says, so it stays out of this program, and so does every allow-list put
around it: our own interpreter walks the opcodes that a dict of arrays needs, and refuses everything else.
Pickles of protocols 2 to 5 by Python 2 and 3 and by numpy 1.x and 2.x load.

`pickle_machine` walks, `pickle_arrays` knows what an array's pickle means.  A hostile file is refused in well
under a second, and takes less than three times its size in memory, but for a fixed amount under the caps.

A very large file is mapped instead of read: its arrays take memory only where they are looked at.
"""

import codecs
import enum
import math
import mmap
import stat
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData, printable

# --- What the globals in an array's pickle mean: inert markers come in, plain numpy arrays come out.


LONG = 4096  # bytes; longer strings stay views of the file until somebody needs them

_MAX_DIMENSIONS = 8  # images need 4
_MAX_ELEMENTS = 2**40  # of an array whose zeros count as ones: far from what makes numpy overflow
_CHUNK = 1 << 20  # bytes of text that become bytes at a time

# numpy's own codes for the plain numbers: bool, integers and floats of 1 to 8 bytes.
_NUMBERS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
# What follows the byte order in a plain dtype's state: no subarray, names, fields, size, alignment, flags.
_PLAIN_STATE = (None, None, None, -1, -1, 0)


class Malformed(Exception):
    """Why a pickle is refused, in words; `pickle_reader` adds the byte and the file."""


class Global(enum.Enum):
    """The globals that may stand in a file, as inert markers."""

    RECONSTRUCT = "_reconstruct"  # an empty array, filled by BUILD
    FROMBUFFER = "_frombuffer"  # an array at once (protocol 5)
    NDARRAY = "ndarray"  # only as an argument of RECONSTRUCT
    DTYPE = "dtype"  # completed by BUILD
    ENCODE = "encode"  # bytes as text (protocol 2 written by Python 3)
    BYTES = "bytes"  # no bytes at all (as before)


GLOBALS: Mapping[tuple[str, str], Global] = {
    ("numpy.core.multiarray", "_reconstruct"): Global.RECONSTRUCT,  # numpy 1.x
    ("numpy._core.multiarray", "_reconstruct"): Global.RECONSTRUCT,  # numpy 2.x
    ("numpy.core.numeric", "_frombuffer"): Global.FROMBUFFER,
    ("numpy._core.numeric", "_frombuffer"): Global.FROMBUFFER,
    ("numpy", "ndarray"): Global.NDARRAY,
    ("numpy", "dtype"): Global.DTYPE,
    ("_codecs", "encode"): Global.ENCODE,
    ("__builtin__", "bytes"): Global.BYTES,
}


class LongText:
    """UTF-8 text over LONG bytes, not decoded: it is good for nothing but ENCODE."""

    def __init__(self, utf8: memoryview) -> None:
        self.utf8 = utf8


class DType:
    """A dtype between its REDUCE (`code`, as in "u1") and its BUILD, which sets `complete`."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.complete: np.dtype[np.generic] | None = None


class Array:
    """An array between its REDUCE and its BUILD, which sets `complete`."""

    def __init__(self, complete: NDArray[np.generic] | None = None) -> None:
        self.complete = complete


class Budget:
    """Bytes that may still be copied out of a file, so that no reference can be copied again and again."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int) -> None:
        """Allow a copy of `count` bytes.

        Raises:
            Malformed: an honest file needs no such copy.
        """
        self.left -= count
        if self.left < 0:
            raise Malformed("the same bytes are used again and again")


def call(function: object, arguments: object, budget: Budget) -> object:
    """The meaning of REDUCE: an Array, a DType, or bytes.

    Raises:
        Malformed: `function` is no marker of ours, or `arguments` are not what a writer gives it.
    """
    if not isinstance(function, Global):
        raise Malformed("a call of something that is no function")
    if type(arguments) is not tuple:
        raise Malformed("the arguments of a call are not a tuple")
    if function is Global.RECONSTRUCT and arguments == (Global.NDARRAY, (0,), b"b"):
        return Array()
    if function is Global.DTYPE and len(arguments) == 3 and arguments[1:] == (False, True):
        return DType(_number_code(arguments[0]))
    if function is Global.ENCODE and len(arguments) == 2 and arguments[1] == "latin1":
        return _latin1(arguments[0], budget)
    if function is Global.BYTES and arguments == ():
        return b""
    if function is Global.FROMBUFFER and len(arguments) == 4:
        raw, dtype, shape, order = arguments
        return Array(_array(raw, dtype, shape, _order(order), budget))
    raise Malformed(f"a call of {function.value} that no array needs")


def build(target: object, state: object, budget: Budget) -> None:
    """The meaning of BUILD: completes `target`, an Array or a DType, once.

    Raises:
        Malformed: `target` is anything else or already complete, or `state` is not what numpy writes.
    """
    if not isinstance(target, Array | DType):
        raise Malformed("BUILD on something that is neither an array nor a dtype")
    if target.complete is not None:
        raise Malformed("a second BUILD on the same object")
    if type(state) is not tuple:
        raise Malformed("a state that is not a tuple")
    if isinstance(target, DType):
        target.complete = _dtype(target.code, state)
        return
    if len(state) != 5 or state[0] != 1 or type(state[3]) is not bool:
        raise Malformed("an array's state that numpy does not write")
    _, shape, dtype, fortran, raw = state
    target.complete = _array(raw, dtype, shape, "F" if fortran else "C", budget)


def _number_code(code: object) -> str:
    """A dtype's code, of the closed list; Python 2 writes it as bytes."""
    text = code.decode("latin-1") if isinstance(code, bytes) else code
    if not isinstance(text, str) or text not in _NUMBERS:
        raise Malformed("an array of something else than plain numbers")
    return text


def _dtype(code: str, state: tuple[object, ...]) -> np.dtype[np.generic]:
    """The dtype of `code`, its byte order from `state`."""
    if len(state) != 8 or state[0] != 3 or state[2:] != _PLAIN_STATE:
        raise Malformed("a dtype's state that plain numbers do not have")
    order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
    if order not in (("|",) if code.endswith("1") else ("<", ">")):
        raise Malformed("a byte order that plain numbers do not have")
    return np.dtype(f"{order}{code}")


def _order(order: object) -> Literal["C", "F"]:
    if order == "C":
        return "C"
    if order == "F":
        return "F"
    raise Malformed("an array's layout that is neither C nor Fortran")


def _latin1(text: object, budget: Budget) -> bytes | memoryview:
    """The bytes that Python 3 wrote as text, decoded in chunks: never a second copy of a large text.

    A character takes up to four bytes, so a hostile text as one str could take four times the file.
    """
    if isinstance(text, str):
        utf8 = memoryview(text.encode())
    elif isinstance(text, LongText):
        utf8 = text.utf8
    else:
        raise Malformed("a call of encode without a text")
    budget.spend(len(utf8))
    decoder = codecs.getincrementaldecoder("utf-8")()
    encoded = bytearray()
    try:
        for start in range(0, len(utf8), _CHUNK):
            encoded += decoder.decode(utf8[start : start + _CHUNK]).encode("latin-1")
        decoder.decode(b"", final=True)
    except UnicodeError:
        raise Malformed("bytes as text that is not UTF-8 or not latin1") from None
    return bytes(encoded) if len(encoded) <= LONG else memoryview(encoded).toreadonly()


def _array(raw: object, dtype: object, shape: object, order: Literal["C", "F"], budget: Budget) -> NDArray[np.generic]:
    """A read-only array on `raw`; a copy of it where the numbers are unaligned or in foreign byte order."""
    if not isinstance(raw, bytes | memoryview):
        raise Malformed("an array without bytes")
    if not isinstance(dtype, DType) or dtype.complete is None:
        raise Malformed("an array without a complete dtype")
    sizes = _shape(shape)
    needed = math.prod(sizes) * dtype.complete.itemsize
    if needed != len(raw):
        raise Malformed(f"an array of shape {sizes} takes {needed} bytes, but {len(raw)} are there")
    array: NDArray[np.generic] = np.ndarray(sizes, dtype.complete, buffer=raw, order=order)
    if dtype.code == "b1" and array.size:
        budget.spend(len(raw))  # not a copy, but a walk over all bytes
        if array.view(np.uint8).max() > 1:
            raise Malformed("an array of bool holds something else than 0 and 1")
    if not (array.flags.aligned and array.dtype.isnative):
        budget.spend(len(raw))
        array = array.astype(array.dtype.newbyteorder("="))
    array.flags.writeable = False
    return array


def _shape(shape: object) -> tuple[int, ...]:
    """An array's shape: a few sizes from 0 on."""
    if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
        raise Malformed(f"an array's shape that is not a tuple of at most {_MAX_DIMENSIONS} sizes")
    if any(type(size) is not int or size < 0 for size in shape):
        raise Malformed("an array's shape with a size that is not a number from 0 on")
    if math.prod(max(size, 1) for size in shape) > _MAX_ELEMENTS:
        raise Malformed("an array's shape that is too large for any file")
    return shape


# --- The pickle machine: walks the opcodes that a dict of arrays needs, and refuses all others.


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


MAX_BYTES = 4 * 1024**3  # of a file; the competition's takes 31 MB
IN_MEMORY = 256 * 1024**2  # bytes of a file that is read at once, so that nobody can change it meanwhile

# How files begin that people take for the data set.
_IMPOSTORS = {
    b"<": "is a web page (HTML or XML)",
    b"PK": "is a zip archive",
    b"\x1f\x8b": "is gzip-compressed",
    b"\x93NUMPY": "is an .npy file",
    b"{": "is JSON or other text",
}


def read(path: Path, max_bytes: int = MAX_BYTES) -> object:
    """The value in the pickle file `path`; see `loads`.

    The arrays of a file over IN_MEMORY bytes are views of the mapped file: it must stay as it is while they are
    in use, and `forget` frees what was read of them.

    Raises:
        BadData: the file cannot be read, is larger than `max_bytes`, or is no harmless pickle.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadData(_refusal(path, "is not a regular file"))
        if status.st_size > max_bytes:
            raise BadData(_refusal(path, f"has {status.st_size} bytes, and {max_bytes} are the limit"))
        with path.open("rb") as stream:
            data = _content(stream, status.st_size)
    except MemoryError:
        raise BadData(_refusal(path, "does not fit into memory")) from None
    except OSError as error:
        raise BadData(_refusal(path, f"cannot be read ({error.strerror})")) from error
    except ValueError as error:  # a path that no system takes, with a zero byte
        raise BadData(_refusal(path, "cannot be read (its name is invalid)")) from error
    if len(data) != status.st_size:
        raise BadData(_refusal(path, "changed while it was read"))
    return loads(data, str(path))


def _content(stream: BinaryIO, size: int) -> bytes | mmap.mmap:
    if size <= IN_MEMORY:
        return stream.read(size + 1)
    return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def forget(array: NDArray[np.generic]) -> None:
    """Free the memory that an array of a mapped file takes by having been read; it can be read again."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def loads(data: bytes | mmap.mmap, source: str = "pickle") -> object:
    """The value of a pickle: dicts, lists, tuples, str, bytes, int, float, bool, None and numpy arrays.

    Arrays hold plain numbers in native byte order and are read-only: views of `data` where that is possible,
    copies where it is not.  Python 2's str and bytearrays come as bytes.  `source` is the name for messages.

    Raises:
        BadData: the pickle is damaged, or asks for anything that a dict of arrays does not need.
    """
    if data[:1] != bytes([PROTO]):
        raise BadData(_refusal(source, _impostor(data[:64])))
    machine = Machine(data)
    try:
        return machine.run()
    except Malformed as why:
        raise BadData(_refusal(source, f"{why}, at byte {machine.start}")) from None
    except MemoryError:
        raise BadData(_refusal(source, f"does not fit into memory, at byte {machine.start}")) from None


def _refusal(source: object, what: str) -> str:
    return f"{printable(source)}: {what}; the file was not loaded: download it again with --force"


def _impostor(head: bytes) -> str:
    """What a file is that begins otherwise than a pickle of protocol 2 to 5."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, words in _IMPOSTORS.items():
        if text.startswith(start):
            return words
    return "does not begin like a pickle of protocol 2 to 5" if head else "is empty"
