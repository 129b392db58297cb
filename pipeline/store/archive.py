"""Unpacks a downloaded zip or tar(.gz) into a folder, and trusts nothing in it.

The whole table of contents is checked before the first byte is written, and the contents are counted again
while they are written.  An archive inside is just a file.
"""

import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from pipeline.errors import BadData, UsageError, printable

MAX_BYTES = 4 * 1024**3  # unpacked, and of the archive; CIFAR-10 and the hidden set take 217 MB
MAX_RATIO = 200  # unpacked to packed bytes; images pack about 1.1 to 1, DEFLATE cannot do more than 1,032 to 1
MAX_MEMBERS = 1000  # the competition's has 9

_SMALL = 1024**2  # bytes that may come out of any archive, however well they pack
_SLACK = 4 * 1024**2  # bytes of a tar's headers and padding: more than MAX_MEMBERS members need
_CHUNK = 1024**2  # bytes copied at a time
_MAX_NAME = 1024  # characters
_MAX_DEPTH = 32  # folders in each other; the competition's has 2
_MAX_PART = 255  # bytes of a file's name on common systems
_MAX_DIRECTORY = 512 * 1024  # bytes of a zip's table of contents: 500 a member

# A tar's extended headers are read whole, with patterns that take quadratic time, so they must stay small.
_MAX_EXTENDED = 2048  # bytes of one
_MAX_EXTENDED_ALL = 256 * 1024  # bytes of all
_MAX_EXTENDED_RUN = 4  # before one member
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)


@dataclass(frozen=True)
class _Member:
    """A file (or a folder) of an archive: its cleaned name relative to the destination, its size in bytes."""

    name: str
    size: int
    is_folder: bool


_Entry = tuple[_Member, Callable[[], IO[bytes]]]  # a member, and how to open it


def extract(archive: Path, destination: Path, max_bytes: int = MAX_BYTES, max_ratio: int = MAX_RATIO) -> list[Path]:
    """Unpack `archive` into the empty folder `destination`; the paths of the files, in the archive's order.

    At most `max_bytes` come out, and at most `max_ratio` times the archive's own size.  What has been written
    when it fails is the caller's to remove, with the folder.

    Raises:
        BadData: `archive` is no zip or tar, is damaged, or holds anything but plain files and folders.
        UsageError: `destination` is no empty folder.
        OSError: the disk is full.
    """
    if not destination.is_dir() or any(destination.iterdir()):
        raise UsageError(f"{destination} is not an empty folder to unpack into")
    entries = _entries_of(archive)
    size = archive.stat().st_size
    if size > max_bytes:
        raise _bad(archive, f"has {size} bytes, and {max_bytes} are the limit")
    limit = min(max_bytes, max(_SMALL, max_ratio * size))
    members: list[_Member] = []
    for member, _ in entries(archive, limit):
        members.append(member)
        if len(members) > MAX_MEMBERS:
            raise _bad(archive, f"has more than {MAX_MEMBERS} members")
    _check_names(archive, members)
    if (total := sum(member.size for member in members)) > limit:
        raise _bad(archive, f"would unpack {size} bytes to {total}, and {limit} are the limit")
    return _unpack(archive, entries(archive, limit), members, destination)


def _bad(archive: Path, what: str) -> BadData:
    return BadData(f"{printable(archive)}: {what}; the archive was not unpacked")


# What the standard library raises on damaged archives.
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, IndexError, OverflowError, NotImplementedError, RecursionError),
)


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    """Damage that the standard library finds, as BadData.  Not for writing: a full disk is no bad archive."""
    try:
        yield
    except _DAMAGE as error:
        raise _bad(archive, f"is damaged or truncated ({printable(error)})") from error


# --- which kind ---


def _entries_of(archive: Path) -> Callable[[Path, int], Iterator[_Entry]]:
    """The reader for `archive`, by its content: names lie."""
    if not archive.is_file():
        raise _bad(archive, "is not there, or not a file")
    with _damage(archive), archive.open("rb") as stream:
        head = stream.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_entries
    if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
        return _tar_entries
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        raise _bad(archive, "is HTML, not an archive: a login or error page, download it again")
    if text.startswith(b"{"):
        raise _bad(archive, "is JSON, not an archive: an error message, download it again")
    raise _bad(archive, "is neither zip nor tar" if head else "is empty")


# --- the table of contents ---


def _clean_name(archive: Path, name: str) -> str:
    """A member's name relative to the destination, without `./`.

    Raises:
        BadData: the name leads out of the destination, or could mean something else on another system.
    """
    path = name.removesuffix("/")
    parts = [part for part in path.split("/") if part != "."]
    if len(name) > _MAX_NAME or not name.isprintable() or any(c in name for c in '\\:*?"<>|'):
        raise _bad(archive, f"holds a name that is unsafe or too long, {printable(name)}")
    if len(parts) > _MAX_DEPTH:
        raise _bad(archive, f"holds a name with more than {_MAX_DEPTH} folders in each other, {printable(name)}")
    if any(not part or part.endswith((".", " ")) or len(part.encode()) > _MAX_PART for part in parts):
        raise _bad(archive, f"holds a name that may lead out of the folder, {printable(name)}")
    return "/".join(parts)


def _check_names(archive: Path, members: Sequence[_Member]) -> None:
    """Refuse names that meet in one place (also where case is ignored), files used as folders, and too many folders."""
    keys = [unicodedata.normalize("NFC", member.name).casefold() for member in members]
    files = {key for key, member in zip(keys, members, strict=True) if not member.is_folder}
    seen: set[str] = set()
    folders: set[str] = set()  # that hold a member, or such a folder
    for key, member in zip(keys, members, strict=True):
        parts = key.split("/")
        above = {"/".join(parts[:n]) for n in range(1, len(parts))}
        if key in seen or above & files:
            raise _bad(archive, f"holds the name {printable(member.name)} twice, or as file and folder")
        seen.add(key)
        folders |= above
    if len(folders) > MAX_MEMBERS:
        raise _bad(archive, f"holds more than {MAX_MEMBERS} folders")
    if not files or "" in files:
        raise _bad(archive, "holds no files, or one without a name")


# --- writing ---


def _unpack(archive: Path, entries: Iterator[_Entry], members: Sequence[_Member], destination: Path) -> list[Path]:
    """Write the checked `members`; `entries` is the second walk through the archive."""
    paths = []
    left = list(reversed(members))
    for member, open_member in entries:
        if not left or member != left.pop():
            raise _bad(archive, "changed while it was read")
        path = destination / member.name
        if member.is_folder:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with _damage(archive):
            source = open_member()
        with source, path.open("xb") as target:
            _copy(archive, member, source, target)
        paths.append(path)
    if left:
        raise _bad(archive, "changed while it was read")
    return paths


def _copy(archive: Path, member: _Member, source: IO[bytes], target: IO[bytes]) -> None:
    """Copy exactly the bytes that the table of contents promised.  Reading to the end checks a zip's CRC."""
    written = 0
    while True:
        with _damage(archive):
            chunk = source.read(_CHUNK)
        written += len(chunk)
        if written > member.size or (not chunk and written < member.size):
            raise _bad(archive, f"holds {printable(member.name)} in another size than it says")
        if not chunk:
            return
        target.write(chunk)


# --- zip ---


def _zip_entries(archive: Path, limit: int) -> Iterator[_Entry]:
    """The members of a zip.  `limit` is for tars: a zip's sizes are known before anything is unpacked."""
    del limit
    _check_directory_size(archive)
    with _damage(archive):
        unzipped = zipfile.ZipFile(archive)
    with unzipped:
        for info in unzipped.infolist():
            yield _zip_member(archive, info), partial(unzipped.open, info)


def _zip_member(archive: Path, info: zipfile.ZipInfo) -> _Member:
    name = _clean_name(archive, info.orig_filename)  # `filename` has lost what follows a zero byte
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the writer was no Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > info.is_dir():
        raise _bad(archive, f"holds {printable(name)}, which is a link or no regular file")
    if info.flag_bits & 0x41:
        raise _bad(archive, f"holds {printable(name)}, which is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _bad(archive, f"holds {printable(name)} in a compression other than DEFLATE")
    if info.is_dir() and info.file_size:
        raise _bad(archive, f"holds the folder {printable(name)} with contents of its own")
    return _Member(name, info.file_size, info.is_dir())


def _check_directory_size(archive: Path) -> None:
    """Refuse a huge table of contents before `zipfile` reads it into memory; found as `zipfile` finds it."""
    with _damage(archive), archive.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 76 - 22 - 65535))  # zip64's records, then the end record and its comment
        tail = stream.read()
    at = len(tail) - 22 if tail[-22:].startswith(b"PK\x05\x06") else tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise _bad(archive, "is a truncated zip: its table of contents is missing")
    (directory,) = struct.unpack_from("<I", tail, at + 12)
    zip64 = tail[max(0, at - 76) : at]
    if zip64.startswith(b"PK\x06\x06") and zip64[56:].startswith(b"PK\x06\x07"):
        (directory,) = struct.unpack_from("<Q", zip64, 40)
    if directory > _MAX_DIRECTORY:
        raise _bad(archive, f"has more than {MAX_MEMBERS} members: its table of contents is too large")


# --- tar ---


class _Gunzipped:
    """The contents of a gzip with one member; a second one, of which there could be millions, is damage."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw, self.unzip = raw, zlib.decompressobj(wbits=31)  # with gzip's header and checksum

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self.unzip.eof:
            packed = self.unzip.unconsumed_tail or self.raw.read(_CHUNK)
            if not packed:
                raise EOFError("it ends too early")
            if chunk := self.unzip.decompress(packed, size):
                return chunk
        if self.unzip.unused_data or self.raw.read(1):
            raise zlib.error("something follows its end")
        return b""


class _Counted:
    """A stream that ends in BadData after `left` bytes, so that nothing unpacks without an end."""

    def __init__(self, archive: Path, stream: IO[bytes] | _Gunzipped, left: int) -> None:
        self.archive, self.stream, self.left = archive, stream, left

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        chunk = self.stream.read(size)
        self.left -= len(chunk)
        if self.left < 0:
            raise _bad(self.archive, "unpacks to more bytes than the limit")
        return chunk


@dataclass
class _HeaderCount:
    """What the headers of one walk added up to."""

    extended_bytes: int = 0
    extended_run: int = 0  # extended headers in a row
    ended: bool = False  # the block of zeros has come that ends a tar


def _tar_entries(archive: Path, limit: int) -> Iterator[_Entry]:
    """The members of a tar, as one stream from the first byte to the last (a gzip's checksum comes last)."""
    with archive.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream = _Counted(archive, _Gunzipped(raw) if packed else raw, limit + _SLACK)
        headers = _HeaderCount()
        with _open_tar(archive, stream, headers) as tar:
            while True:
                with _damage(archive):
                    info = tar.next()
                if info is None:
                    break
                yield _tar_member(archive, info, limit), partial(_open_tar_member, tar, info)
            with _damage(archive):
                while stream.read(_CHUNK):
                    pass
        if not headers.ended:
            raise _bad(archive, "is damaged or truncated (no end mark)")


def _open_tar(archive: Path, stream: _Counted, headers: _HeaderCount) -> tarfile.TarFile:
    strict = _strict_headers(archive, headers)
    with _damage(archive):
        return tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|", tarinfo=strict, bufsize=_CHUNK)


def _open_tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(info)
    if source is None:
        raise tarfile.ReadError("a file without contents")
    return source


def _tar_member(archive: Path, info: tarfile.TarInfo, limit: int) -> _Member:
    name = _clean_name(archive, info.name)
    if info.type not in _REGULAR or info.issparse():
        raise _bad(archive, f"holds {printable(name)}, which is a link or no regular file")
    if info.size < 0 or (info.isdir() and info.size):
        raise _bad(archive, f"holds {printable(name)} with a size that makes no sense")
    if info.size > limit:  # at once: `tarfile` would look for the next header there, beyond the file's end
        raise _bad(archive, f"holds {printable(name)} of {printable(info.size)} bytes, and {limit} are the limit")
    return _Member(name, info.size, info.isdir())


def _strict_headers(archive: Path, count: _HeaderCount) -> type[tarfile.TarInfo]:
    """Headers for `tarfile` that refuse what it reads without limit, or silently takes for the end."""

    class Strict(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Strict":
            count.ended = bytes(buf) == bytes(tarfile.BLOCKSIZE)
            info = super().frombuf(buf, encoding, errors)
            extended = info.type in _EXTENDED
            count.extended_run = count.extended_run + 1 if extended else 0
            count.extended_bytes += info.size if extended else 0
            if (
                info.size < 0
                or (extended and info.size > _MAX_EXTENDED)
                or count.extended_bytes > _MAX_EXTENDED_ALL
                or count.extended_run > _MAX_EXTENDED_RUN
            ):
                raise _bad(archive, "has headers that are too large or too many")
            if not extended and info.type not in _REGULAR:
                raise _bad(archive, f"holds {printable(info.name)}, which is a link or no regular file")
            return info

    return Strict
