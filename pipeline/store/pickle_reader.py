"""Reads the pickles of CIFAR-10 and of the competition without running them.

`pickle.load` does whatever a file says, so it stays out of this program, and so does every allow-list put
around it: our own interpreter walks the opcodes that a dict of arrays needs, and refuses everything else.
Pickles of protocols 2 to 5 by Python 2 and 3 and by numpy 1.x and 2.x load.

`pickle_machine` walks, `pickle_arrays` knows what an array's pickle means.  A hostile file is refused in well
under a second, and takes less than three times its size in memory, but for a fixed amount under the caps.

A very large file is mapped instead of read: its arrays take memory only where they are looked at.
"""

import mmap
import stat
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BadData, printable
from pipeline.store.pickle_arrays import Malformed
from pipeline.store.pickle_machine import PROTO, Machine

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
