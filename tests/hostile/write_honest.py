"""Writes the honest files of tests/hostile/honest: what real versions of numpy write, old and new.

    python -m tests.hostile.write_honest tests/hostile/honest/numpy-1.26.tar.xz

Run it with an interpreter that has nothing but the numpy of that name; the files here were written by numpy
1.26.4 (numpy-1.26.tar.xz) and 2.4.6 (numpy-2.x.tar.xz) under Python 3.11.  The images are computed without random
numbers, so that `test_honest_files.py` knows what must come out, whatever numpy it runs with.
"""

import io
import itertools
import pickle
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PROTOCOLS = (2, 3, 4, 5)
ORDERS = ("C", "F", "part")  # part: a view of a larger array, contiguous in neither way
IDS = ("little", "big", "small", "list", "absent")
NUMBERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?")

Honest = tuple[str, int, dict[Any, Any]]  # a file: its name in the archive, its pickle protocol, and the value in it


def images() -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Two smooth images, uint8 (2, 32, 32, 3)."""
    row, column = np.arange(32)[:, None], np.arange(32)[None, :]
    channels = [60 + 2 * row + 3 * column, 40 + 4 * row + 0 * column, 150 - 3 * row + column]
    first = np.stack(channels, axis=-1)
    return np.stack([first, 255 - first]).astype(np.uint8)


def arranged(layout: str, order: str) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The images in a layout and an order in memory."""
    upright = images()
    chw = upright.transpose(0, 3, 1, 2)
    array = {"hwc": upright, "chw": chw, "flat": chw.reshape(2, -1)}[layout]
    if order == "part":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    return np.asfortranarray(array) if order == "F" else np.ascontiguousarray(array)


def ids(kind: str) -> Any:
    """The ids 7 and 300 in one of the ways of writing them; None: there are none."""
    codes = {"little": "<i8", "big": ">i8", "small": "<u2"}
    if kind in codes:
        return np.array([7, 300], dtype=codes[kind])
    return [7, 300] if kind == "list" else None


def hidden_sets() -> Iterator[Honest]:
    kinds = [*itertools.product(("hwc",), ORDERS, IDS), *itertools.product(("flat", "chw"), ORDERS, ("little",))]
    for protocol, key, (layout, order, kind) in itertools.product(PROTOCOLS, (str, bytes), kinds):
        content = {"data": arranged(layout, order), "ids": ids(kind)}
        value = {name.encode() if key is bytes else name: item for name, item in content.items() if item is not None}
        yield f"hidden/{protocol}-{key.__name__}-{layout}-{order}-{kind}.pkl", protocol, value


def numbers() -> Iterator[Honest]:
    """Arrays of every plain number in both byte orders, of no, one and two axes, empty and with shared parts."""
    for protocol, (side, byte_order) in itertools.product(PROTOCOLS, {"little": "<", "big": ">"}.items()):
        value: dict[str, Any] = {"empty": np.zeros((0, 3), f"{byte_order}f4")}
        for code in NUMBERS:
            grid = np.arange(6).reshape(2, 3).astype(f"{byte_order}{code}")
            value[code] = [grid, np.asfortranarray(grid), grid[:, ::2], grid[0], grid[:1, 1:2].reshape(()), grid]
        yield f"numbers/{protocol}-{side}.pkl", protocol, value


def main(target: Path) -> None:
    """Write all files into the archive `target`; packed as one stream, because they are much alike."""
    with tarfile.open(target, "w:xz") as archive:
        for name, protocol, value in itertools.chain(hidden_sets(), numbers()):
            content = pickle.dumps(value, protocol=protocol)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
