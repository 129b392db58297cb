"""Reads the pickles of CIFAR-10 and of the competition without running them.

`pickle.load` does whatever a file says, so it stays out of this program, and so does every allow-list put
around it: our own interpreter walks the opcodes that a dict of arrays needs, and refuses everything else.
Pickles of protocols 2 to 5 by Python 2 and 3 and by numpy 1.x and 2.x load.

`pickle_machine` walks, `pickle_arrays` knows what an array's pickle means.  A hostile file is refused in well
under a second, and takes less than three times its size in memory, but for a fixed amount under the caps.
"""

import stat
from pathlib import Path

from pipeline.errors import BadData, printable
from pipeline.store.pickle_arrays import Malformed
from pipeline.store.pickle_machine import PROTO, Machine

MAX_BYTES = 2 * 1024**3  # of a file; the competition's takes 31 MB

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
            data = stream.read(status.st_size + 1)
    except MemoryError:
        raise BadData(_refusal(path, "does not fit into memory")) from None
    except OSError as error:
        raise BadData(_refusal(path, f"cannot be read ({error.strerror})")) from error
    except ValueError as error:  # a path that no system takes, with a zero byte
        raise BadData(_refusal(path, "cannot be read (its name is invalid)")) from error
    if len(data) != status.st_size:
        raise BadData(_refusal(path, "changed while it was read"))
    return loads(data, str(path))


def loads(data: bytes, source: str = "pickle") -> object:
    """The value of a pickle: dicts, lists, tuples, str, bytes, int, float, bool, None and numpy arrays.

    Arrays hold plain numbers in native byte order and are read-only: views of `data` where that is possible,
    copies where it is not.  Python 2's str and bytearrays come as bytes.  `source` is the name for messages.

    Raises:
        BadData: the pickle is damaged, or asks for anything that a dict of arrays does not need.
    """
    if data[:1] != bytes([PROTO]):
        raise BadData(_refusal(source, _impostor(data)))
    machine = Machine(data)
    try:
        return machine.run()
    except Malformed as why:
        raise BadData(_refusal(source, f"{why}, at byte {machine.start}")) from None
    except MemoryError:
        raise BadData(_refusal(source, f"does not fit into memory, at byte {machine.start}")) from None


def _refusal(source: object, what: str) -> str:
    return f"{printable(source)}: {what}; the file was not loaded: download it again with --force"


def _impostor(data: bytes) -> str:
    """What a file is that begins otherwise than a pickle of protocol 2 to 5."""
    text = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, words in _IMPOSTORS.items():
        if text.startswith(start):
            return words
    return "does not begin like a pickle of protocol 2 to 5" if data else "is empty"
