"""The competition's files: CIFAR-10 batches and the test set, in every known edition.

    cifar-10-batches-py/   data_batch_1..5, test_batch, batches.meta; anywhere below the folder
    test set               cifar_test_nolabel.pkl (2025) or cifar_test_nolabels.pkl (2024); b"data", b"ids"

Keys may be bytes or str, images HWC or flat, ids present or absent.  All are pickles, read by our own reader.
The pixel layout is detected from the pixels, because a wrong one raises no error.
"""

import math
import mmap
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import CLASSES, IMAGE_SIZE
from pipeline.errors import BadData, MissingInput, UsageError, printable
from pipeline.store import formats, links, pickles

Images = NDArray[np.uint8]
S = IMAGE_SIZE

TRAIN_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
TEST_BATCH, META = "test_batch", "batches.meta"
CIFAR_FILES = (*TRAIN_BATCHES, TEST_BATCH, META)
BATCHES, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"  # their folder, and packed
HIDDEN_NAMES = ("cifar_test_nolabel.pkl", "cifar_test_nolabels.pkl")
MAX_BYTES = 4 * 1024**3  # of a file; the competition's takes 31 MB
IN_MEMORY = 256 * 1024**2  # bytes; smaller files are read at once, so that nothing can change them meanwhile
MAX_ID = 10**18  # ids are written with at most 18 digits, which fit int64
MOST_KEYS = 20  # searched for ids
NO_KEY = "none"  # in place of the ids' key: the file has no ids
CHUNK = 4096  # images in memory at a time: 13 MB
SAMPLE, STRETCHES = 10_000, 50  # test images whose channel order is checked, and adjacent ones among them
LAYOUT_SAMPLE = 512  # of them for the pixel layout
FEW = 30  # images; with fewer, the mean colour says nothing
CLEAR = 1.25  # another reading must be this many times smoother to override the file's own shape


# --- pixel layouts ----------------------------------------------------------------------------------------


def _hwc(images: Images) -> Images:
    return images.reshape(-1, S, S, 3)


def _chw(images: Images) -> Images:
    return np.ascontiguousarray(images.reshape(-1, 3, S, S).transpose(0, 2, 3, 1))


def unscrambled(images: Images) -> Images:
    """Undo `hwc.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)`, the trap that scrambles every image."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(-1, S, S, 3)


# For each shape of a row: its layouts and how to read uint8 (N, 32, 32, 3) from each, the expected one first.
READINGS: Mapping[tuple[int, ...], Mapping[str, Callable[[Images], Images]]] = {
    (S, S, 3): {
        "HWC": _hwc,
        "CHW data in an HWC shape": _chw,
        "HWC data that was reshaped to CHW and transposed": unscrambled,
    },
    (3, S, S): {"CHW": _chw, "HWC data in a CHW shape": _hwc},
    (3 * S * S,): {"flat CHW": _chw, "flat HWC": _hwc},
}
EXPECTED = {next(iter(readings)) for readings in READINGS.values()}  # the names that agree with the shape


def detect(images: Images) -> str:
    """Detect the layout of `images`, uint8 (N, 32, 32, 3), (N, 3, 32, 32) or (N, 3072).

    The file's own shape wins unless another reading is clearly smoother.
    """
    rough: dict[str, float] = {}
    for name, reading in READINGS[images.shape[1:]].items():
        x = reading(images[:: max(1, len(images) // LAYOUT_SAMPLE)][:LAYOUT_SAMPLE]).astype(np.int16)
        rough[name] = float((np.abs(np.diff(x, axis=1)).mean() + np.abs(np.diff(x, axis=2)).mean()) / 2)
    expected, best = next(iter(rough)), min(rough, key=rough.__getitem__)
    return best if rough[expected] > CLEAR * rough[best] else expected


def read(images: Images, layout: str) -> Images:
    """`images` as uint8 (N, 32, 32, 3)."""
    return READINGS[images.shape[1:]][layout](images)


def channel_order(images: Images, reference: Images) -> str:
    """ "RGB", "BGR" or "unclear": the channel order of `images` by the colour of `reference` (RGB).

    Both uint8 (N, 32, 32, 3).  Compares the mean of red minus blue in standard errors; grey images and few images
    stay unclear.
    """
    leans = []
    for part in (images, reference):
        redder = part[..., 0].mean(axis=(1, 2)) - part[..., 2].mean(axis=(1, 2))  # (N,), in grey levels
        error = redder.std() / np.sqrt(len(part)) + 1e-6
        if len(part) < FEW or abs(redder.mean()) < 4 * error:
            return "unclear"
        leans.append(redder.mean())
    return "RGB" if leans[0] * leans[1] > 0 else "BGR"


# --- the files -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """Images uint8 (N, 32, 32, 3) RGB and labels int64 (N,), 0..9."""

    images: Images
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Hidden:
    """The test set, of N images, as the file has it; converted in chunks, as it may not fit into memory."""

    raw: Images = field(repr=False)  # (N, ...), in one of the shapes of READINGS
    ids: NDArray[np.int64]  # (N,), unique
    ids_key: str | None  # their key in the file; None: the file has no ids, so they are 0..N-1
    layout: str  # a name in READINGS

    def __len__(self) -> int:
        """The number of images."""
        return len(self.raw)

    def sample(self) -> Images:
        """At most SAMPLE of the images, spread over the file."""
        return read(_sample(self.raw), self.layout)

    def chunks(self) -> Iterator[Images]:
        """All images, CHUNK at a time."""
        for start in range(0, len(self), CHUNK):
            yield read(self.raw[start : start + CHUNK], self.layout)
            _forget(self.raw)


def find_batches(folder: Path) -> Path | None:
    """The folder with CIFAR-10's batches, or None; BadData if some are missing, or there are two sets."""
    folders = sorted({path.parent for path in links.find(folder, TEST_BATCH, META)})
    if not folders:
        if other := links.find(folder, BATCHES):
            raise BadData(f"{other[0]} is not a folder: put CIFAR-10's there")
        return None
    if len(folders) > 1:
        raise BadData(f"{folder} has two sets of CIFAR-10 batches, {folders[0]} and {folders[1]}: move one elsewhere")
    for path in (folders[0] / name for name in CIFAR_FILES):
        if not path.is_file():
            raise BadData(links.dangling(path) or f"{folders[0]} lacks {path.name}: put it there, too")
        require_size(path)
    return folders[0]


def is_download(folder: Path) -> bool:
    """Whether `folder` itself has a test set, as a download has."""
    return any(os.path.lexists(folder / name) for name in HIDDEN_NAMES)


def find_hidden(folder: Path) -> Path:
    """The file with the test set; MissingInput if there is none, BadData if there are several."""
    paths = links.find(folder, *HIDDEN_NAMES)
    if not paths:
        raise MissingInput(f"{folder} has no test set, {' or '.join(HIDDEN_NAMES)}: is it the competition's folder?")
    if len(paths) > 1:
        raise BadData(f"{folder} has several test sets, {paths[0]} and {paths[1]}: move one elsewhere")
    require_size(paths[0])
    return paths[0]


def find_files(folder: Path) -> list[Path]:
    """The test set and the batches (packed or not) of a folder laid out like a download."""
    batches = find_batches(folder)
    files = [batches / name for name in CIFAR_FILES] if batches else links.find(folder, ARCHIVE)[:1]
    return [find_hidden(folder), *files]


def require_size(path: Path) -> None:
    """BadData for a file of more than MAX_BYTES bytes, before it is hashed."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise BadData(f"{printable(path)} has {size} bytes; the limit is {MAX_BYTES}: is it the competition's?")


def read_batches(folder: Path, names: tuple[str, ...]) -> Labelled:
    """CIFAR-10 batches, concatenated."""
    parts = [_read_batch(folder / name) for name in names]
    return Labelled(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))


def _read_batch(path: Path) -> Labelled:
    content = _dictionary(path)
    raw = _images(content, path)
    layout = detect(raw)
    if layout not in EXPECTED:
        raise BadData(f"{path}: the images are scrambled ({layout}): not a CIFAR-10 batch; {formats.REPLACE}")
    labels = _integers(_get(content, "labels", path), len(raw), f"{path}: the labels")
    if labels.max() >= CLASSES:
        raise BadData(f"{path}: a label is outside 0..{CLASSES - 1}")
    return Labelled(read(raw, layout), labels)


def read_class_names(folder: Path) -> list[str]:
    """The ten class names from batches.meta."""
    path = folder / META
    names = _get(_dictionary(path), "label_names", path)
    if not isinstance(names, list) or len(names) != CLASSES:
        raise BadData(f"{path}: label_names is not a list of {CLASSES}")
    # Cut first: a long name takes four times its bytes as text.
    return [printable(n[:200].decode("utf-8", "replace") if isinstance(n, bytes) else n, 40) for n in names]


def read_hidden(path: Path, ids_key: str | None = None, again: str = "preprocess --ids-key") -> Hidden:
    """The test set, whatever the edition.

    Args:
        ids_key: the key of the ids; by default "ids", without which images are numbered from 0, as with NO_KEY.
        again: the command that the message completes with a key if ids seem to have another one.

    Raises:
        BadData: the file is damaged, has another shape, or the ids are ambiguous.
        UsageError: there is nothing under `ids_key`.
    """
    content = _dictionary(path)
    raw = _images(content, path)
    layout, key = detect(_sample(raw)), ids_key or "ids"
    if key != NO_KEY and (given := _get(content, key, path, optional=True)) is not None:
        return Hidden(raw, _ids(given, len(raw), f"{path}: the ids"), key, layout)
    if ids_key not in (None, NO_KEY):
        raise UsageError(f"{path} has no {ids_key!r} for --ids-key; {_keys(content)}")
    if ids_key is None and (others := _seem_ids(content, len(raw))):
        found = f"{path} has no 'ids', but {len(raw)} distinct whole numbers under {' and '.join(map(repr, others))}."
        cure = f"If these are the ids: `{again} {shlex.quote(others[0])}`; if not: --ids-key {NO_KEY}"
        raise BadData(f"{found}\n  {cure}")
    return Hidden(raw, np.arange(len(raw)), None, layout)


def _seem_ids(content: dict[Any, Any], count: int) -> list[str]:
    """The keys whose values are `count` distinct whole numbers."""
    others = []
    for key, value in list(content.items())[:MOST_KEYS]:
        with suppress(BadData):
            _ids(value, count, "")
            others.append(printable(key.decode(errors="replace") if isinstance(key, bytes) else key))
    return others


def _sample(raw: Images) -> Images:
    """At most SAMPLE rows, in stretches, because reading one row of a mapped file loads its neighbours."""
    if len(raw) <= SAMPLE:
        return raw
    long = SAMPLE // STRETCHES
    parts = []
    for start in np.linspace(0, len(raw) - long, STRETCHES).astype(int):
        parts.append(raw[start : start + long].copy())
        _forget(raw)
    return np.concatenate(parts)


def load(path: Path) -> object:
    """The value of a pickle file, by our own reader; BadData if it is unreadable, too large or not harmless.

    Arrays of a file over IN_MEMORY bytes are views of the mapped file, which must not change while they are in use;
    `_forget` frees their memory.
    """
    try:
        if not path.is_file():
            raise BadData(f"{printable(path)} is not a regular file")
        require_size(path)
        with path.open("rb") as stream:
            large = path.stat().st_size > IN_MEMORY
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if large else stream.read(IN_MEMORY + 1)
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a zero byte in its name
        raise BadData(f"{printable(path)} cannot be read ({printable(error)})") from error
    return pickles.loads(data, str(path))


def _forget(array: NDArray[np.generic]) -> None:
    """Free the memory of a mapped array; it can be read again."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


# --- their content -----------------------------------------------------------------------------------------


def _dictionary(path: Path) -> dict[Any, Any]:
    content = load(path)
    if isinstance(content, np.ndarray):
        raise BadData(f"{path} holds one array; {formats.SAVE}")
    if not isinstance(content, dict):
        raise BadData(f"{path} holds a {type(content).__name__}, not a dictionary of arrays")
    return content


def _get(content: dict[Any, Any], key: str, path: Path, optional: bool = False) -> Any:
    """The value under `key`, which may be text or bytes."""
    raw = key.encode(errors="surrogateescape")  # the command line's form of bytes that are not UTF-8
    if key in content and raw in content:
        raise BadData(f"{path} has {key!r} twice, as text and as bytes")
    value = content.get(key, content.get(raw))
    if value is None and not optional:
        raise BadData(f"{path} has no {key!r}; {_keys(content)}")
    return value


def _keys(content: dict[Any, Any]) -> str:
    """A sentence with the first keys."""
    return f"its keys are {', '.join(printable(key, 30) for key in list(content)[:8]) or 'none'}"


def _images(content: dict[Any, Any], path: Path) -> Images:
    value = _get(content, "data", path)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.shape[1:] in READINGS and len(value):
        return value
    what = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
    cure = f"; {formats.SAVE}" if isinstance(value, list | tuple) else ""
    raise BadData(f"{path}: data is {what}, expected uint8 (N, 32, 32, 3) or (N, 3072){cure}")


def _ids(value: Any, count: int, what: str) -> NDArray[np.int64]:
    """`count` distinct whole numbers, see `_integers`."""
    ids = _integers(value, count, what)
    numbers, times = np.unique(ids, return_counts=True)
    if len(numbers) < count:
        raise BadData(f"{what} are not unique: {numbers[times.argmax()]} is there {times.max()} times")
    return ids


def _integers(value: Any, count: int, what: str) -> NDArray[np.int64]:
    """`count` labels or ids: whole numbers from 0 on, in a list, tuple or array; also as floats or digits."""
    why = f"{what} are not {count} whole numbers from 0 on, one for each image"
    shape = value.shape if isinstance(value, np.ndarray) else (len(value),) if isinstance(value, list | tuple) else ()
    if math.prod(shape) != count or max(shape, default=0) != count:  # (N, 1) is accepted
        raise BadData(f"{why}, but {type(value).__name__} of shape {shape}")
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)
        if np.issubdtype(value.dtype, np.integer) and value.min() >= 0 and value.max() < MAX_ID:
            whole: NDArray[np.int64] = value.astype(np.int64)
            return whole
    return np.array([_whole(item, f"{why}: number {place}") for place, item in enumerate(value)], dtype=np.int64)


def _whole(item: Any, which: str) -> int:
    """A whole number of at most 18 digits, also as a float or as text, or alone in a list or an array."""
    if isinstance(item, list | tuple) and len(item) == 1:
        item = item[0]
    if isinstance(item, np.ndarray | np.generic) and item.size == 1:
        item = item.item()
    if isinstance(item, bytes):
        item = item.decode("latin-1")
    text = str(item) if type(item) in (int, float, str) else type(item).__name__
    if not re.fullmatch(r"[0-9]{1,18}(\.0)?", text):
        raise BadData(f"{which} is {printable(text, 40)}")
    return int(text.removesuffix(".0"))
