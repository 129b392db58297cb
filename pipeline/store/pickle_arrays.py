"""What the globals in an array's pickle mean: inert markers come in, plain numpy arrays come out.

`pickle_machine` walks the opcodes and asks here for the meaning of GLOBAL, REDUCE and BUILD.  No callable of
numpy (or of anybody else) is ever looked up by a name that stands in the file.
"""

import codecs
import enum
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
