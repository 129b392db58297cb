"""Archives put together by hand: honest ones, and ones with a header changed."""

import io
import pickle
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.rehearsal import digits
from tests.hostile.meanings import NAMES, images

Files = Mapping[str, bytes]

NOISE = random.Random(0).randbytes(100_000)


def competition() -> dict[str, bytes]:
    """The files of a competition of two images a batch."""
    folder = "cifar-10-python/cifar-10-batches-py/"
    batches = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    files = {folder + batch: digits.batch(batch, images(2), [0, 1], ["a.png", "b.png"]) for batch in batches}
    files[folder + "batches.meta"] = digits.batches_meta(2, NAMES)
    files["cifar_test_nolabel.pkl"] = pickle.dumps({b"data": images(2), b"ids": np.arange(2)}, protocol=4)
    return files


def zip_of(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            target.writestr(info, content)
    return buffer.getvalue()


def zip_named(names: Sequence[str], others: Files | None = None) -> bytes:
    """A zip with members of these names, which may be the same."""
    buffer = io.BytesIO(zip_of(others or {}))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as target:
        warnings.filterwarnings("ignore", "Duplicate name")
        for name in names:
            target.writestr(name, b"abc")
    return buffer.getvalue()


def zip_with(
    change: Callable[[zipfile.ZipInfo], None], name: str = "a", content: bytes = b"abc", others: Files | None = None
) -> bytes:
    """A zip whose last member's header is changed."""
    info = zipfile.ZipInfo(name)
    change(info)
    buffer = io.BytesIO(zip_of(others or {}))
    with zipfile.ZipFile(buffer, "a") as target:
        target.writestr(info, content)
    return buffer.getvalue()


def with_mode(mode: int) -> Callable[[zipfile.ZipInfo], None]:
    """A change for `zip_with`: the kind of file and the permissions that Unix would give it."""

    def change(info: zipfile.ZipInfo) -> None:
        info.external_attr = mode << 16

    return change


def tar_of(files: Files, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as target:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.mtime = 1.5  # as from a file system: PAX writes a header for it
            _add(target, info, content)
    return buffer.getvalue()


def _add(target: tarfile.TarFile, info: tarfile.TarInfo, content: bytes) -> None:
    info.size = len(content)
    target.addfile(info, io.BytesIO(content))


def tar_named(names: Sequence[str], others: Files | None = None) -> bytes:
    """A tar with empty members of these names, which may be the same."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        for name, content in (others or {}).items():
            _add(target, tarfile.TarInfo(name), content)
        for name in names:
            target.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def tar_with(kind: bytes, name: str = "a", link: str = "", then: str = "b", others: Files | None = None) -> bytes:
    """A tar with a member of another `kind` than a file, and then an empty file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        for honest, content in (others or {}).items():
            _add(target, tarfile.TarInfo(honest), content)
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        target.addfile(info)
        target.addfile(tarfile.TarInfo(then))
    return buffer.getvalue()


def header(name: str, kind: bytes, size: int) -> bytes:
    """A tar's header block of 512 bytes, with any size."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax_record(key: str, value: str) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return f"{length} {key}={value}\n".encode()


def with_pax(*records: bytes) -> bytes:
    """A tar of one file under an extended header."""
    content = b"".join(records)
    block = header("pax", tarfile.XHDTYPE, len(content)) + content.ljust(-(-len(content) // 512) * 512, b"\0")
    return block + tar_of({"a": b"abc"}, tarfile.GNU_FORMAT)


def patched_zip(offset: int, value: bytes, local_offset: int | None = None, files: Files | None = None) -> bytes:
    """A zip of stored files (`a` alone by default) with bytes of the first central (and local) header changed."""
    data = bytearray(zip_of(files or {"a": b"abc"}, zipfile.ZIP_STORED))
    at = data.index(b"PK\x01\x02") + offset
    data[at : at + len(value)] = value
    if local_offset is not None:
        data[local_offset : local_offset + len(value)] = value
    return bytes(data)


def as_zip64(data: bytes, directory: int | None = None) -> bytes:
    """The same zip with zip64's end records, as some writers always write them."""
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    count = int.from_bytes(data[end + 10 : end + 12], "little")
    size = end - at if directory is None else directory
    record = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, at)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, end, 1)
    return data[:end] + record + locator + data[end : end + 8] + b"\xff" * 12 + data[end + 20 :]


def overlapping_zip() -> bytes:
    """500 members that are all the same packed bytes."""
    data = zip_of({"a": b"\0" * 1_000_000})
    at, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entries = b"".join(
        data[at:end].replace(b"a", b"%03d" % n).replace(b"\x01\0\0\0", b"\x03\0\0\0", 1) for n in range(500)
    )
    record = data[end : end + 8] + struct.pack("<HHI", 500, 500, len(entries)) + data[end + 16 :]
    return data[:at] + entries + record
