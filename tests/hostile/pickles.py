"""Every crafted pickle, complete: a name and how to make it.  Each must be refused, but for those of MAYBE."""

import gzip
import io
import pickle
import random
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

from pipeline.rehearsal import digits
from tests.hostile.arrays import ARRAYS
from tests.hostile.bombs import BOMBS, PARTS, UNBALANCED, made
from tests.hostile.calls import CALLS, SYSTEM
from tests.hostile.meanings import HIDDEN, images
from tests.hostile.opcodes import array, beside_images, frame

Maker = Callable[[], bytes]

_HONEST = pickle.dumps({b"data": images(2), b"ids": np.arange(2)}, protocol=4)
_PYTHON_2 = digits.batch("x", images(2), [1, 2], ["a.png", "b.png"])


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("cifar_test_nolabel.pkl", _HONEST)
    return buffer.getvalue()


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, images(2))
    return buffer.getvalue()


# How files begin that are no pickles of protocol 2 to 5, and a word that the refusal must have.
IMPOSTORS: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "ends too early"),
    "html": (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "web page"),
    "zip": (_zip(), "zip"),
    "gzip": (gzip.compress(_HONEST, mtime=0), "gzip"),
    "npy": (_npy(), "npy"),
    "json": (b'{"code": 404}', "JSON"),
    "text": (b"404 not found\n", "does not begin like a pickle"),
    "protocol 0": (pickle.dumps({"a": 1}, protocol=0), "does not begin like a pickle"),
    "protocol 0 with a call": (b"cos\nsystem\n(S'touch canary'\ntR.", "does not begin like a pickle"),
    "declared protocol 1": (b"\x80\x01N.", "does not begin like a pickle"),
    "protocol 6": (b"\x80\x06N.", "does not begin like a pickle"),
    "PROTO alone": (b"\x80", "ends too early"),
}

# Honest up to where it ends, and then something more.
TAILS: Mapping[str, bytes] = {
    "a value": b"N",
    "STOP": b".",
    "another pickle": _HONEST,
    "a call": b"\x80\x02" + SYSTEM + b".",
}


def _truncated() -> dict[str, bytes]:
    """Honest files cut short: at the ends, and at places between (every byte: tests/store/test_pickle_reader.py)."""
    cut = {f"protocol 4 after {size} bytes": _HONEST[:size] for size in (1, 2, 3, 10, 11, 60, 200, 3000)}
    cut |= {f"protocol 4 without {n} bytes": _HONEST[:-n] for n in (1, 2, 50)}
    return cut | {f"python 2 without {n} bytes": _PYTHON_2[:-n] for n in (1, 2, 30, 100, 3000)}


def flipped(data: bytes, count: int, seed: int = 0) -> list[bytes]:
    """`data`, `count` times with one bit flipped, the first 400 bytes preferred: there are the opcodes."""
    rng = random.Random(seed)
    result = []
    for number in range(count):
        changed = bytearray(data)
        changed[rng.randrange(len(data) if number % 4 == 0 else 400)] ^= 1 << rng.randrange(8)
        result.append(bytes(changed))
    return result


def _parts() -> dict[str, Maker]:
    """The attacks that are a piece of a pickle, as one value more in a hidden set that is in order."""
    found: dict[str, Maker] = {}
    for family, attacks in (("call", CALLS), ("array", ARRAYS)):
        found |= {f"{family}: {kind}": made(beside_images(attack)) for kind, attack in attacks.items()}
    return found | {f"bomb: {kind}": _beside(make) for kind, make in PARTS.items()}


def _beside(make: Maker) -> Maker:
    return lambda: beside_images(make())


def alone(attack: bytes) -> bytes:
    """An attack as the whole pickle."""
    return b"\x80\x04" + attack + b"."


# Refused by the reader, wherever the file lies.
REFUSED: dict[str, Maker] = {
    **_parts(),
    **{f"bomb: {kind}": made(alone(attack)) for kind, attack in UNBALANCED.items()},
    **{f"impostor: {kind}": made(content) for kind, (content, _) in IMPOSTORS.items()},
    **{f"tail: {kind}": made(_HONEST + tail) for kind, tail in TAILS.items()},
    **{f"tail in a frame: {kind}": made(b"\x80\x04" + frame(array() + b"." + tail)) for kind, tail in TAILS.items()},
    **{f"truncated: {kind}": made(content) for kind, content in _truncated().items()},
}

# Refused as a hidden set.
MISUNDERSTOOD: dict[str, Maker] = {f"hidden: {kind}": made(content) for kind, content in HIDDEN.items()}

# A flipped bit may lie in the pixels: these load or are refused.
MAYBE: dict[str, Maker] = {
    **{f"flipped bit {n}": made(content) for n, content in enumerate(flipped(_HONEST, 20))},
    **{f"flipped bit of python 2, {n}": made(content) for n, content in enumerate(flipped(_PYTHON_2, 10, 1))},
}

__all__ = ["ARRAYS", "BOMBS", "CALLS", "IMPOSTORS", "MAYBE", "MISUNDERSTOOD", "REFUSED", "TAILS", "alone", "flipped"]
