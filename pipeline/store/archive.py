"""Unpack a downloaded zip or tar(.gz) into a folder without trusting it.

Checks the whole table of contents before it writes the first byte, and writes no more than that says: plain files and
folders, without permissions.  Nested archives stay packed.
"""

import errno
import io
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from pipeline.errors import BadData, UsageError, printable
from pipeline.store import formats

MAX_BYTES = 4 * 1024**3  # unpacked, and of the archive; CIFAR-10 and the test set take 217 MB
MAX_RATIO = 200  # unpacked to packed bytes; images have about 1.1, DEFLATE's limit is 1,032
MAX_MEMBERS = 1000  # the competition's has 9

_SMALL = 1024**2  # bytes that any archive may unpack to, whatever the ratio
_SLACK = 4 * 1024**2  # bytes of a tar's headers and padding: more than MAX_MEMBERS members need
_CHUNK = 1024**2  # bytes read at a time
_MAX_NAME = 1024  # characters
_MAX_DEPTH = 32  # nested folders; the competition's has 2
_MAX_PART = 255  # bytes of a file's name on common systems
_MAX_DIRECTORY = 512 * 1024  # bytes of a zip's table of contents: 500 a member
_MAX_EXTENDED = 2048  # bytes of a tar's extended header, which tarfile parses in quadratic time
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
_GZIP = b"\x1f\x8b"

# What the standard library raises on damaged archives.
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(ValueError, IndexError, OverflowError, NotImplementedError, RecursionError),
)


class _Refused(Exception):
    """Why an archive is refused; `extract` adds its name."""


@dataclass(frozen=True)
class _Member:
    """A file or folder: its name relative to the destination, its size in bytes, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None  # None: a folder


def extract(archive: Path, destination: Path, max_bytes: int = MAX_BYTES) -> None:
    """Unpack `archive` into the empty folder `destination`.

    Unpacks at most `max_bytes`, and at most MAX_RATIO times the archive's own size.  After an error the caller removes
    the folder.

    Raises:
        BadData: `archive` is not a zip or tar, is damaged, or holds anything but plain files and folders.
        UsageError: `destination` is not an empty folder.
        OSError: the disk is full.
    """
    if not destination.is_dir() or any(destination.iterdir()):
        raise UsageError(f"{destination} is not an empty folder to unpack into")
    try:
        if not archive.is_file():
            raise _Refused("is not there, or not a file")
        if (size := archive.stat().st_size) > max_bytes:
            raise _Refused(f"has {size} bytes; the limit is {max_bytes}")
        limit = min(max_bytes, max(_SMALL, MAX_RATIO * size))
        with archive.open("rb") as stream, tempfile.TemporaryFile(dir=destination.parent) as plain:
            head = stream.read(512)
            stream.seek(0)
            if _is_zip(head):
                with zipfile.ZipFile(_Sparing(io.FileIO(stream.fileno(), closefd=False))) as unzipped:
                    members = [_zip_member(unzipped, info, limit) for info in unzipped.infolist()]
                    _unpack(members, destination, limit)
            else:
                source = _gunzip(stream, plain, limit + _SLACK) if head.startswith(_GZIP) else stream
                with tarfile.open(fileobj=source, mode="r:", tarinfo=_Header) as tar:
                    _unpack(list(_tar_members(tar, limit)), destination, limit)
        return
    except _Refused as error:
        why = str(error)
    except _DAMAGE as error:
        why = f"is damaged or truncated ({printable(error)})"
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: an offset outside the file; anything else is the disk's fault
            raise
        why = "is damaged or truncated"
    raise BadData(f"{printable(archive)}: {why}; the archive was not unpacked")


def _is_zip(head: bytes) -> bool:
    """Whether a file with this head is a zip rather than a tar; its name proves nothing."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return True
    if head.startswith(_GZIP) or head[257:262] == b"ustar":
        return False
    other = formats.named(head)
    what, cure = (f"{other.name}, ", other.cure) if other else ("", formats.REPLACE)
    raise _Refused(f"is {what}neither zip nor tar; {cure}")


def _unpack(members: Sequence[_Member], destination: Path, limit: int) -> None:
    """Check and write the members."""
    _check(members, limit)
    for member in members:
        path = destination / member.name
        (path.parent if member.open else path).mkdir(parents=True, exist_ok=True)
        if member.open:
            with member.open() as source, path.open("xb") as target:
                shutil.copyfileobj(source, target)
            if path.stat().st_size != member.size:
                raise _Refused(f"holds {printable(member.name)} with another size than listed")


# --- the checks -------------------------------------------------------------------------------------------


def _member(name: str, size: int, open_: Callable[[], IO[bytes]] | None, limit: int) -> _Member:
    """A member; refuses names that lead out of the destination or differ between systems."""
    parts = [part for part in name.removesuffix("/").split("/") if part != "."]
    if (
        not (len(name) <= _MAX_NAME and len(parts) <= _MAX_DEPTH and name.isprintable())
        or any(c in name for c in '\\:*?"<>|')
        or any(not part or part.endswith((".", " ")) or len(part.encode()) > _MAX_PART for part in parts)
    ):
        raise _Refused(f"holds a name that is too long or may lead out of the folder, {printable(name)}")
    if not 0 <= size <= (limit if open_ else 0):  # now, since `tarfile` seeks the next header beyond it
        raise _Refused(f"holds {printable(name)} of {printable(size)} bytes; the limit is {limit}")
    return _Member("/".join(parts), size, open_)


def _check(members: Sequence[_Member], limit: int) -> None:
    """Refuse names that collide (ignoring case), files used as folders, and too many members or bytes."""
    keys = [unicodedata.normalize("NFC", member.name).casefold() for member in members]
    files = {key for key, member in zip(keys, members, strict=True) if member.open}
    above = [{key[:k] for k, letter in enumerate(key) if letter == "/"} for key in keys]  # its parent folders
    folders = set().union(*above)
    if len(members) > MAX_MEMBERS or len(folders) > MAX_MEMBERS:
        raise _Refused(f"has more than {MAX_MEMBERS} members or folders")
    if len(set(keys)) < len(keys) or folders & files:
        raise _Refused("holds a name twice, or as file and folder")
    if not files or "" in files:
        raise _Refused("holds no files, or one without a name")
    if (total := sum(member.size for member in members)) > limit:
        raise _Refused(f"would unpack to {total} bytes; the limit is {limit}")


# --- zip --------------------------------------------------------------------------------------------------


class _Sparing(io.BufferedReader):
    """A file that refuses large reads: `zipfile` would read the whole table of contents."""

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes."""
        data = super().read(_MAX_DIRECTORY + 1 if size is None or size < 0 else min(size, _MAX_DIRECTORY + 1))
        if len(data) > _MAX_DIRECTORY:
            raise _Refused(f"has more than {MAX_MEMBERS} members: its table of contents is too large")
        return data


def _zip_member(unzipped: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> _Member:
    # `filename` has lost what follows a zero byte; PowerShell writes backslashes.
    name = info.orig_filename.replace("\\", "/")
    is_folder = name.endswith("/")
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if it was not written on Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) > is_folder:
        raise _Refused(f"holds {printable(name)}, which is not a regular file")
    if info.flag_bits & 0x41 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Refused(f"holds {printable(name)}, which is encrypted, or in a compression other than DEFLATE")
    return _member(name, info.file_size, None if is_folder else partial(unzipped.open, info), limit)


# --- tar --------------------------------------------------------------------------------------------------


class _Header(tarfile.TarInfo):
    """A header that refuses what `tarfile` reads without limit, and all but plain files and folders."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED and not 0 <= info.size <= _MAX_EXTENDED:
            raise _Refused("has headers that are too large")
        if info.type not in _EXTENDED + _REGULAR:
            raise _Refused(f"holds {printable(info.name)}, which is not a regular file")
        return info


def _gunzip(packed: IO[bytes], plain: IO[bytes], most: int) -> IO[bytes]:
    """Unpack a gzip of one member, of at most `most` bytes, into `plain`; returns that, at its start."""
    unzip = zlib.decompressobj(wbits=31)  # with gzip's header and checksum
    while not unzip.eof:
        if not (chunk := unzip.unconsumed_tail or packed.read(_CHUNK)):
            raise EOFError("it ends too early")
        most -= plain.write(unzip.decompress(chunk, _CHUNK))
        if most < 0:
            raise _Refused("unpacks to more bytes than the limit")
    if unzip.unused_data or packed.read(1):  # further members: there could be millions
        raise EOFError("something follows its end")
    plain.seek(0)
    return plain


def _tar_members(tar: tarfile.TarFile, limit: int) -> Iterator[_Member]:
    contents = 0
    for count, info in enumerate(tar, start=1):
        if info.issparse():
            raise _Refused(f"holds {printable(info.name)}, which is not a regular file")
        opening = cast(Callable[[], IO[bytes]], partial(tar.extractfile, info))
        member = _member(info.name, info.size, None if info.isdir() else opening, limit)
        contents += member.size
        if count > MAX_MEMBERS or tar.offset - contents > _SLACK:
            raise _Refused(f"has more than {MAX_MEMBERS} members, or headers that are too many")
        yield member
    assert tar.fileobj is not None  # it is open
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # `tarfile` takes damage for the end
        raise EOFError("a header is damaged, or the end is missing")
