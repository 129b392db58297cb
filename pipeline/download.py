"""Stage 1: Kaggle -> data/raw/SLUG, complete and verified, or absent.

    python -m pipeline.download

The files come from Kaggle through its official client, from a Kaggle notebook's /kaggle/input, or from a local folder
or archive (--from).  A cut download resumes.  Without training data in it, CIFAR-10 comes from its home page.
"""

import os
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path
from time import monotonic, sleep

import click

from pipeline import cli, commands, console
from pipeline.config import Paths, competition
from pipeline.console import BYTES, Meter, duration, megabytes, working
from pipeline.errors import BadData, Log, MissingInput, NetworkError, PipelineError, UsageError, printable
from pipeline.kaggle_api import credentials
from pipeline.kaggle_api.client import MARKER, Kaggle, RemoteFile
from pipeline.store import archive, atomic, cifar, formats, links
from pipeline.store.manifest import KAGGLE, FileRecord, Manifest, records, strangers
from pipeline.store.manifest import NAME as MANIFEST

# Where old and new Kaggle notebooks mount a competition's files.
KAGGLE_INPUT = (Path("/kaggle/input"), Path("/kaggle/input/competitions"))
TIMEOUT = 60.0  # of CIFAR-10's home page: seconds without a byte
CIFAR_WAITS = (2.0, 4.0)  # seconds before each retry of that page


def download(
    slug: str, paths: Paths, kaggle: Kaggle, log: Log, *, source: Path | None = None, force: bool = False
) -> Path:
    """Bring the competition's files to data/raw/SLUG, and return that folder.

    Args:
        source: a folder laid out like the download, or the downloaded archive, instead of Kaggle.

    Raises:
        AccessDenied, NetworkError, UsageError: from Kaggle (see pipeline.errors).
        UsageError: data/raw/SLUG holds something else, and not `force`.
        BadData: the files are damaged, hostile or another competition's.
        MissingInput: `source` does not exist, or has no test set.
    """
    target = paths.raw / slug
    if source is None:
        source = next((folder / slug for folder in KAGGLE_INPUT if (folder / slug).is_dir()), None)
    if source is not None:
        here, there = target.resolve(), source.resolve()
        if here in there.parents or there in here.parents:
            raise UsageError(f"--from {source} and {target} contain each other: move the files elsewhere first")
    if not force and _is_complete(target, source, log):
        return target
    began = monotonic()
    if source is None:
        _from_kaggle(slug, target, kaggle, log)
    else:
        _from_here(source, target, log)
    console.show(f"{target}: complete, in {duration(monotonic() - began)}")
    return target


def _is_complete(target: Path, source: Path | None, log: Log) -> bool:
    """Whether `target` is complete and from `source`, or is itself that; UsageError if it holds something else."""
    manifest = Manifest.read(target)
    if target.is_file():
        raise UsageError(f"{target} is not a folder: move it away")
    if manifest is None and not (others := strangers(target)):
        return False
    if manifest is None and not links.find(target, *cifar.HIDDEN_NAMES):
        raise UsageError(
            f"{target} holds {printable(others[0])} and no test set: move it away; if that is the downloaded archive, "
            "name it with --from then"
        )
    origin = manifest.inputs.get("source") if manifest else str(target.resolve())  # laid out by hand
    if source is not None and source.resolve() != target.resolve() and origin != str(source.resolve()):
        again = commands.command("download", target.name, Paths(raw=target.parent), "--from", str(source), "--force")
        cure = "" if strangers(target) else f", or replace it with `{again}`"
        raise UsageError(f"{target} came from {origin}: move it away{cure}")
    # Files used in place may change, and the editions of a competition have equal sizes.
    changed = manifest and (manifest.missing(target) if origin == KAGGLE else manifest.changed(target))
    if manifest and changed:
        what = f"{target / printable(changed[0])} is missing or changed"
        if source is None and manifest.source_option:
            raise BadData(f"{what}: run `{manifest.download_again(target)}`")
        log(f"download: {what}, doing it again")
        return False
    console.show(f"{target}: {'complete' if manifest else 'laid out by hand'}, nothing to do")
    return True


def _from_here(source: Path, target: Path, log: Log) -> None:
    """Use a folder in place, by links to its files, or unpack an archive."""
    links.require_live(source)
    if not source.exists():
        raise MissingInput(f"--from {source} does not exist")
    if source.is_file() and source.name in (*cifar.HIDDEN_NAMES, *cifar.CIFAR_FILES, cifar.ARCHIVE):
        raise UsageError(f"--from {source} is one file of several: name the folder that has them all")
    if (there := source.resolve()) == target.resolve():
        raise UsageError(f"--from {source} is the folder to fill: name where the files are now")
    with atomic.lock(target), _filling(target, str(there), (), log) as folder:
        if source.is_dir():
            log(f"download: {target.name}, using the files in {source} in place")
            for file in cifar.find_files(source):
                link = folder / file.relative_to(source)
                link.parent.mkdir(parents=True, exist_ok=True)
                try:
                    link.symlink_to(file.resolve())
                except OSError:  # exFAT, SMB and Google Drive have no links
                    log(f"download: no links can be made in {target.parent}, so copying {file.name}")
                    shutil.copyfile(file, link)
        else:
            log(f"download: {target.name}, from {source}")
            archive.extract(source, folder)


def _from_kaggle(slug: str, target: Path, kaggle: Kaggle, log: Log) -> None:
    """Download, unpack, verify; a damaged download is repeated once from the start."""
    place = credentials.require(kaggle.environ).place
    rehearsing = kaggle.environ.get("KAGGLE_API_ENVIRONMENT") == "LOCALHOST"
    log(f"download: {slug}, from {'the mock Kaggle server' if rehearsing else f'Kaggle (credentials in {place})'}")
    with atomic.lock(target):
        listed = kaggle.files(slug)
        size = sum(file.size for file in listed)
        cache = target.with_name(f".{slug}.download")  # survives a kill: the client resumes in it
        # Room for the archive and its content.
        if (free := shutil.disk_usage(target.parent).free) < 2.2 * size:
            raise PipelineError(
                f"{target} needs {2.2 * size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free: free space"
            )
        for last_try in (False, True):
            came = _fetch(slug, cache, size, kaggle, log)
            try:
                what = f"verifying and extracting {megabytes(came.stat().st_size)}"
                with working(what), _filling(target, KAGGLE, listed, log) as folder:
                    archive.extract(came, folder)
                break
            except BadData as error:
                shutil.rmtree(cache)
                if last_try:
                    raise BadData(f"{error}; twice: run again later") from error
                log(f"download: {error}; it may be damaged on the way, downloading once more")
        shutil.rmtree(cache)


def _fetch(slug: str, cache: Path, most: int, kaggle: Kaggle, log: Log) -> Path:
    """Download the archive, of at most about `most` bytes, into `cache`."""
    cache.mkdir(exist_ok=True)
    with Meter("download:", most, BYTES, log) as meter:
        kaggle.download(slug, cache, meter.update)
    files = (path for path in sorted(cache.glob(f"{slug}.*")) if path.is_file() and not path.name.endswith(MARKER))
    if (came := next(files, None)) is None:
        raise NetworkError("the kaggle client reported success and left no file: run again")
    return came


@contextmanager
def _filling(target: Path, origin: str, listed: Sequence[RemoteFile], log: Log) -> Iterator[Path]:
    """Yields a folder to fill with files from `origin`; adds CIFAR-10 if missing, verifies, and makes it `target`."""
    with atomic.replacing_folder(target, log if strangers(target) else None) as folder:
        yield folder
        try:
            files = _verified(folder, target, listed, log)
        except (BadData, MissingInput) as error:  # the folder is removed: name its source instead
            made_of = "Kaggle's archive" if origin == KAGGLE else origin
            raise type(error)(str(error).replace(str(folder), made_of)) from error
        Manifest("download", files, inputs={"source": origin}).write(folder)


def _verified(folder: Path, target: Path, listed: Sequence[RemoteFile], log: Log) -> dict[str, FileRecord]:
    """Records of the files, checked against the `listed` names and sizes and the known hashes."""
    cifar.find_hidden(folder)
    for remote in listed:
        path = folder / remote.name
        if not path.is_file() or path.stat().st_size != remote.size:
            raise BadData(f"{printable(remote.name)} does not have the {remote.size} bytes that Kaggle lists")
    if cifar.find_batches(folder) is None:
        packed = min(folder.rglob(cifar.ARCHIVE), default=None)
        if packed is None:
            log("download: the competition has no training data; CIFAR-10 comes from its home page")
            packed = fetch_cifar(target.with_name(".cifar-10"))
        _unpack_cifar(packed, folder / "cifar-10-python")
    for path in (folder / MANIFEST, atomic.partial(folder / MANIFEST)):
        if path.is_dir():
            raise BadData(f"the download holds a folder {path.name}: is it the competition's?")
    files = records(folder, (path for path in folder.rglob("[!.]*") if path.is_file() and path.name != MANIFEST))
    for name, record in files.items():
        known = competition(target.name).file_sha256.get(Path(name).name, record.sha256)
        if record.sha256 != known:
            with (folder / name).open("rb") as stream:
                other = formats.named(stream.read(formats.HEAD))
            why = f"damaged or another file: its sha256 is {record.sha256}, not {known}"
            raise BadData(f"{folder / name} is {f'{other.name}; {other.cure}' if other else why}")
    return files


def _unpack_cifar(packed: Path, folder: Path) -> None:
    """Unpack CIFAR-10's archive into `folder`."""
    new = folder / "unpacked" if folder.is_dir() else folder
    try:
        new.mkdir()
    except FileExistsError:
        raise BadData(f"the download holds {new.name} already: is it the competition's?") from None
    archive.extract(packed, new)
    if cifar.find_batches(new) is None:
        raise BadData(f"{packed} holds no CIFAR-10 batches: put CIFAR-10's archive for Python in its place")


def fetch_cifar(cache: Path) -> Path:
    """CIFAR-10's archive from its home page, by torchvision's downloader and MD5; a good one is kept.

    Raises:
        NetworkError: the home page is unreachable, or sends something else.
        UsageError: a variable names certificates that do not exist.
    """
    from torchvision.datasets import CIFAR10  # noqa: PLC0415 - takes seconds, and is seldom needed
    from torchvision.datasets.utils import download_url  # noqa: PLC0415

    credentials.require_certificates(os.environ)
    cache.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torchvision's downloader has none
    try:
        for wait in (*CIFAR_WAITS, None):
            try:
                download_url(CIFAR10.url, str(cache), cifar.ARCHIVE, CIFAR10.tgz_md5)
                break
            except (OSError, RuntimeError, HTTPException) as error:  # RuntimeError: a wrong MD5
                if wait is None:
                    cure = f"run again, or put {cifar.ARCHIVE} into {cache}"
                    raise NetworkError(f"CIFAR-10 could not be downloaded ({printable(error)}): {cure}") from error
                sleep(wait)
    finally:
        socket.setdefaulttimeout(before)
    return cache / cifar.ARCHIVE


@cli.stage_command("""
python -m pipeline.download                                    the default competition, from Kaggle
python -m pipeline.download --competition SLUG                 another competition of the same shape
python -m pipeline.download --from ~/Downloads/SLUG.zip        an archive you downloaded yourself
python -m pipeline.download --from DIR                         a folder laid out like the download
""")
@cli.new_competition
@cli.raw
@click.option(
    "--from",
    "source",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A folder laid out like the download, or the downloaded archive, instead of Kaggle.",
)
@cli.timeout
@cli.force
def command(slug: str, paths: Paths, source: Path | None, timeout: float, force: bool) -> None:
    """Download and verify the competition's files, into data/raw/SLUG.

    Resumes an interrupted download.  In a Kaggle notebook it uses the mounted files in place.
    """  # fmt: skip
    kaggle = Kaggle(timeout=timeout, log=console.log)
    download(slug, paths, kaggle, console.log, source=source, force=force)
    cli.announce("preprocess", slug, paths)


main = partial(cli.run, command, "download")  # of argv, by default sys.argv's; returns the exit code

if __name__ == "__main__":
    sys.exit(main())
