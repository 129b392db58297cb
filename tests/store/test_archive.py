"""Unpacking: honest archives come out whole, hostile or damaged ones leave nothing outside of the folder."""

import gzip
import io
import os
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import BadData, UsageError
from pipeline.store import archive
from pipeline.store.archive import extract
from tests.hostile.archives import BOMBS, DAMAGED, MISUNDERSTOOD, REFUSED
from tests.hostile.packing import (
    NOISE,
    Files,
    as_zip64,
    tar_of,
    with_mode,
    zip_of,
    zip_with,
)

HONEST = {
    "cifar-10-python/cifar-10-batches-py/data_batch_1": NOISE,
    "cifar-10-python/cifar-10-batches-py/readme.html": b"<html>",
    "cifar_test_nolabel.pkl": b"",
    "nested.zip": b"PK\x03\x04 is only a file",
}


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    folder = tmp_path / "inside" / "destination"
    folder.mkdir(parents=True)
    return folder


def unpack(data: bytes, destination: Path, **limits: int) -> list[str]:
    """Extract `data` under a name that says nothing; the names of the files."""
    path = destination.parent.parent / "download"
    path.write_bytes(data)
    return [file.relative_to(destination).as_posix() for file in extract(path, destination, **limits)]


def refusal(data: bytes, destination: Path, untouched: bool = True, **limits: int) -> str:
    """The one line with which `data` is refused, fast, and with nothing written outside of the folder."""
    began = time.process_time()
    with pytest.raises(BadData) as caught:
        unpack(data, destination, **limits)
    assert time.process_time() - began < 2
    message = str(caught.value)
    assert type(caught.value) is BadData
    assert "download: " in message and message.endswith("; the archive was not unpacked")
    assert message.isprintable()
    outside = {path for path in destination.parent.parent.rglob("*") if destination not in path.parents}
    assert outside == {destination, destination.parent, destination.parent.parent / "download"}
    if untouched:
        assert not list(destination.iterdir())
    return message.split("download: ")[1]  # the path before it holds this test's name


# --- honest archives ---


@pytest.mark.parametrize(
    "make",
    [
        zip_of,
        lambda files: zip_of(files, zipfile.ZIP_STORED),
        tar_of,
        lambda files: tar_of(files, tarfile.GNU_FORMAT),
        lambda files: gzip.compress(tar_of(files)),
    ],
    ids=["zip", "stored zip", "tar", "gnu tar", "tar.gz"],
)
def test_honest_archives_unpack(make: Callable[[Files], bytes], destination: Path) -> None:
    names = unpack(make(HONEST), destination)
    assert names == list(HONEST)
    assert {name: (destination / name).read_bytes() for name in names} == HONEST


def test_folders_and_dots_unpack(destination: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as target:
        for name in (".", "./empty", "./full"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            target.addfile(info)
        target.addfile(tarfile.TarInfo("./full/.hidden..name"))
    assert unpack(buffer.getvalue(), destination) == ["full/.hidden..name"]
    assert (destination / "empty").is_dir()


def test_zip_with_folders_and_a_comment_unpacks(destination: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.mkdir("folder")
        target.writestr("folder/file", b"abc")
        target.comment = b"from a server"
    assert unpack(buffer.getvalue(), destination) == ["folder/file"]


def test_long_and_foreign_names_unpack(destination: Path) -> None:
    name = "f" * 120 + "/" + "ä" * 100
    for number, data in enumerate([zip_of({name: b"1"}), tar_of({name: b"2"}), tar_of({name: b"3"}, 1)]):
        folder = destination / str(number)
        folder.mkdir()
        path = destination.parent / f"{number}.bin"
        path.write_bytes(data)
        assert extract(path, folder) == [folder / name]


def test_files_get_plain_permissions(destination: Path) -> None:
    unpack(zip_with(with_mode(0o104777)), destination)  # setuid, executable, regular
    assert not (destination / "a").stat().st_mode & 0o7111


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_a_folder_that_is_named_through_a_link_is_the_one_meant(
    make: Callable[[Files], bytes], destination: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(destination)
    folder = destination.parent / "other"
    folder.mkdir()
    (tmp_path / "download").write_bytes(make({"a": b"abc"}))
    extract(tmp_path / "download", tmp_path / "link" / ".." / "other")
    assert (folder / "a").read_bytes() == b"abc"


def test_a_folder_in_use_is_a_usage_error(destination: Path) -> None:
    (destination / "mine").touch()
    with pytest.raises(UsageError, match="not an empty folder"):
        unpack(zip_of(HONEST), destination)
    with pytest.raises(UsageError, match="not an empty folder"):
        unpack(zip_of(HONEST), destination / "absent")
    assert [path.name for path in destination.iterdir()] == ["mine"]


# --- no archives ---


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo"])
def test_what_is_no_file_is_refused(kind: str, destination: Path) -> None:
    path = destination.parent / "download"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(BadData, match="not a file"):
        extract(path, destination)


# --- hostile archives ---


CRAFTED = {kind: make for kind, make in REFUSED.items() if kind not in MISUNDERSTOOD}
WORDS = {
    "no archive: empty": "is empty", "no archive: HTML": "is HTML, not an archive",
    "no archive: JSON": "is JSON, not an archive", "no archive: a pickle": "neither zip nor tar",
    "gzip of no tar": "damaged", "zip of nothing": "no files", "zip of a folder": "no files",
    "zip encrypted": "encrypted", "zip in LZMA": "compression", "zip with a wrong CRC": "damaged",
    "zip with a smaller size": "damaged", "zip with a larger size": "another size",
    "zip with another name inside": "damaged", "zip with a folder of contents": "size that makes no sense",
    "zip with a zero byte in a name": "name", "zip with a name, UNC": "name", "tar with a name, parent": "name",
    "zip with names that meet, a and A": "name", "tar with names that meet, a and a/b": "name",
    "zip with a link": "no regular file", "zip with a device": "no regular file",
    "tar with a hard link": "no regular file", "tar with a link, and a file through it": "no regular file",
    "bomb: zip": "limit", "bomb: many members": "members", "bomb: many folders": "folders",
    "bomb: a huge table of contents": "table of contents is too large",
    "bomb: a table of contents of exabytes": "damaged",
}  # fmt: skip


@pytest.mark.parametrize("kind", CRAFTED)
def test_every_crafted_archive_is_refused(kind: str, destination: Path) -> None:
    message = refusal(CRAFTED[kind](), destination, untouched=kind not in DAMAGED)
    assert WORDS.get(kind, "") in message


def test_a_crc_error_in_compressed_data_is_refused(destination: Path) -> None:
    data = bytearray(zip_of({"a": NOISE}))
    data[5000] ^= 1
    assert "damaged" in refusal(bytes(data), destination, untouched=False)
    (destination / "a").unlink()
    data = bytearray(gzip.compress(tar_of({"a": NOISE})))
    data[5000] ^= 1
    assert "damaged" in refusal(bytes(data), destination)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "endless tar.gz", "tail", "many files", "overlapping members"])
def test_bombs_are_refused(kind: str, destination: Path) -> None:
    data = BOMBS[kind]()
    tracemalloc.start()
    try:
        refusal(data, destination)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 1024**2


@pytest.mark.parametrize("make", [zip_of, tar_of, lambda files: gzip.compress(tar_of(files))])
def test_the_size_limit_holds(make: Callable[[Files], bytes], destination: Path) -> None:
    assert "limit" in refusal(make({"a": NOISE, "b": NOISE}), destination, max_bytes=150_000)
    assert "limit" in refusal(make({"a": bytes(200_000)}), destination, max_bytes=150_000)  # packed, it is small


def test_zip64_unpacks(destination: Path) -> None:
    assert unpack(as_zip64(zip_of(HONEST)), destination) == list(HONEST)


# --- damage ---


@pytest.mark.parametrize(
    "make", [zip_of, tar_of, lambda files: gzip.compress(tar_of(files))], ids=["zip", "tar", "tar.gz"]
)
def test_truncation_is_refused(make: Callable[[Files], bytes], destination: Path) -> None:
    files = {"a": b"abc" * 300, "folder/b": b""}
    data = make(files)
    # A tar ends with two blocks of zeros and padding; one block is enough to know that it is whole.
    needed = len(data.rstrip(b"\0")) if data[257:262] == b"ustar" else len(data)
    for size in [*range(0, needed, 11), needed - 1]:
        refusal(data[:size], destination)
    assert unpack(data, destination) == list(files)


@pytest.mark.parametrize(("make", "words"), [(zip_of, "damaged"), (tar_of, "changed while it was read")])
def test_an_archive_that_changes_meanwhile_is_refused(
    make: Callable[[Files], bytes], words: str, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = destination.parent / "download"
    path.write_bytes(make({"a": b"abc"}))
    check = archive._check

    def checked_and_swapped(*arguments: object) -> None:
        check(*arguments)  # type: ignore[arg-type]
        path.write_bytes(make({"b": b"abc"}))

    monkeypatch.setattr(archive, "_check", checked_and_swapped)
    with pytest.raises(BadData, match=words):
        extract(path, destination)
    assert not list(destination.iterdir())
