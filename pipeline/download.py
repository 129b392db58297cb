"""Stage 1: Kaggle -> data/raw/SLUG, complete and verified, or absent.

    python -m pipeline.download

The files come from Kaggle through its genuine client, from a Kaggle notebook's /kaggle/input, or from a
folder or archive that is already here (--from).  A download that was cut goes on where it stopped.
CIFAR-10 itself comes from its home page when the competition carries no training data.
"""

import os
import shutil
import socket
import sys
import urllib.error
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import tenacity
from tqdm import tqdm

from pipeline import cli
from pipeline.cli import Say
from pipeline.config import Paths, competition
from pipeline.errors import BadData, MissingInput, NetworkError, UsageError, printable
from pipeline.kaggle_api import credentials
from pipeline.kaggle_api.client import Kaggle, RemoteFile
from pipeline.store import archive, atomic, editions
from pipeline.store.manifest import Manifest, records, versions

# Where a Kaggle notebook mounts a competition's files, by the notebook's age.
KAGGLE_INPUT = (Path("/kaggle/input"), Path("/kaggle/input/competitions"))
CIFAR_ARCHIVE = "cifar-10-python.tar.gz"


@dataclass(frozen=True)
class Downloaded:
    """What lies in `folder` now; `done` is False when it was complete before."""

    folder: Path
    files: int
    size: int  # bytes
    done: bool


def download(
    slug: str, paths: Paths, kaggle: Kaggle, say: Say, *, source: Path | None = None, force: bool = False,
    inputs: Sequence[Path] = KAGGLE_INPUT,
) -> Downloaded:  # fmt: skip
    """Bring the competition's files to data/raw/SLUG.

    Args:
        source: a folder laid out like the download, or the downloaded archive, instead of Kaggle.
        inputs: folders in which a Kaggle notebook would find SLUG.

    Raises:
        AccessDenied, NetworkError, UsageError: from Kaggle (see pipeline.errors).
        BadData: what came is damaged, hostile or not this competition's.
        MissingInput: `source` is not there, or has no hidden set.
    """
    target = paths.raw / slug
    if source is None:
        source = next((folder / slug for folder in inputs if (folder / slug).is_dir()), None)
    origin = "kaggle" if source is None else str(source.resolve())
    manifest = Manifest.read(target)
    if manifest is not None and not force:
        if source is not None and manifest.inputs["source"] != origin:
            raise UsageError(f"{target} came from {manifest.inputs['source']}: replace it with --force")
        if not (missing := manifest.missing(target)):
            say(f"download: {target} is complete ({len(manifest.files)} files), nothing to do")
            return Downloaded(target, len(manifest.files), _size(manifest), done=False)
        say(f"download: {target / missing[0]} is missing or damaged, doing it again")

    if source is None:
        _from_kaggle(slug, target, kaggle, say)
    elif source.is_dir():
        _from_folder(source, target, origin, say)
    elif source.is_file():
        with atomic.lock(target), atomic.replacing_folder(target) as folder:
            _unpack(source, folder)
            _finish(folder, target, slug, origin, (), say)
    else:
        raise MissingInput(f"--from {source} does not exist")
    manifest = Manifest.read(target)
    assert manifest is not None
    say(f"download: {target} holds {len(manifest.files)} files, {_size(manifest) / 1e6:.1f} MB, verified")
    return Downloaded(target, len(manifest.files), _size(manifest), done=True)


def _from_kaggle(slug: str, target: Path, kaggle: Kaggle, say: Say) -> None:
    """Download, unpack, verify.  What turns out damaged is downloaded once more from the start."""
    say(f"download: asking Kaggle, with the credentials in {credentials.require(kaggle.environ)}")
    with atomic.lock(target):
        listed = kaggle.files(slug)
        cache = target.with_name(f".{slug}.download")  # survives a kill: the client resumes in it
        for last_try in (False, True):
            cache.mkdir(parents=True, exist_ok=True)
            _fetch(slug, cache, kaggle, say)
            try:
                with atomic.replacing_folder(target) as folder:
                    _unpack(_archive_in(cache, slug), folder)
                    _finish(folder, target, slug, "kaggle", listed, say)
            except BadData as error:
                shutil.rmtree(cache)
                if last_try:
                    raise
                say(f"download: {error}")
                say("download: damaged on the way; downloading once more")
            else:
                shutil.rmtree(cache)
                return


def _fetch(slug: str, cache: Path, kaggle: Kaggle, say: Say) -> None:
    with tqdm(desc=f"{slug}.zip", unit="B", unit_scale=True, unit_divisor=1024, disable=None) as bar:

        def progress(size: int) -> None:
            bar.n = size
            bar.refresh()

        kaggle.download(slug, cache, progress)
    say(f"download: {_archive_in(cache, slug).stat().st_size / 1e6:.1f} MB came from Kaggle")


def _archive_in(cache: Path, slug: str) -> Path:
    found = [path for path in sorted(cache.glob(f"{slug}.*")) if not path.name.endswith(".kaggle-partial")]
    if not found:
        raise NetworkError("the kaggle client reported success and left no file: run again")
    return found[0]


def _unpack(source: Path, folder: Path) -> None:
    """Unpack `source` into the empty `folder`, and CIFAR-10's own archive if it is in it, packed."""
    archive.extract(source, folder)
    if editions.find_batches(folder) is None:
        for inner in sorted(folder.rglob(CIFAR_ARCHIVE)):
            unpacked = inner.with_name("cifar-10-python")
            unpacked.mkdir()
            archive.extract(inner, unpacked)


def _from_folder(source: Path, target: Path, origin: str, say: Say) -> None:
    """Use a folder in place: data/raw/SLUG gets links to the files that matter."""
    say(f"download: using the files in {source} in place")
    files = [editions.find_hidden(source)]
    if batches := editions.find_batches(source):
        files += [batches / name for name in editions.CIFAR_FILES]
    with atomic.lock(target), atomic.replacing_folder(target) as folder:
        for file in files:
            link = folder / file.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
        _finish(folder, target, target.name, origin, (), say)


def _finish(
    folder: Path, target: Path, slug: str, origin: str, listed: Sequence[RemoteFile], say: Say
) -> None:
    """Verify what lies in `folder`, add CIFAR-10 if it is not among it, and write the manifest."""
    editions.find_hidden(folder)
    _verify(folder, listed, competition(slug).file_sha256)
    if editions.find_batches(folder) is None:
        say("download: the competition carries no training data; CIFAR-10 comes from its home page")
        cache = target.with_name(".cifar-10.download")
        fetch_cifar10(cache)
        home = folder / "cifar-10-python"
        home.mkdir()
        archive.extract(cache / CIFAR_ARCHIVE, home)
        if editions.find_batches(home) is None:
            raise BadData(f"{cache / CIFAR_ARCHIVE} holds no CIFAR-10 batches: remove it and run again")
    files = records(folder, (path for path in folder.rglob("*") if path.is_file()))
    Manifest("download", files, inputs={"source": origin}, versions=versions("kaggle")).write(folder)


def _verify(folder: Path, listed: Sequence[RemoteFile], known: dict[str, str]) -> None:
    for remote in listed:
        path = folder / remote.name
        if path.is_file() and path.stat().st_size != remote.size:
            raise BadData(
                f"{printable(remote.name)} has {path.stat().st_size} bytes, Kaggle lists {remote.size}"
            )
    for path in folder.rglob("*"):
        if (
            path.name in known
            and (digest := records(path.parent, [path])[path.name].sha256) != known[path.name]
        ):
            raise BadData(
                f"{path.name} has sha256 {digest}, not the {known[path.name]} of this competition's file: "
                "it is damaged, or another file of that name"
            )


def fetch_cifar10(cache: Path, url: str | None = None, md5: str | None = None) -> None:
    """Download CIFAR-10's archive into `cache` with torchvision's downloader and its MD5; kept if good.

    Raises:
        NetworkError: its home page cannot be reached, or sends something else.
    """
    from torchvision.datasets import CIFAR10  # noqa: PLC0415 - seconds to import, and seldom needed
    from torchvision.datasets.utils import download_url  # noqa: PLC0415

    cache.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)
    try:
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((urllib.error.URLError, OSError, RuntimeError)),
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_exponential(multiplier=2, max=60),
            reraise=True,
        ):
            with attempt:
                download_url(url or CIFAR10.url, str(cache), CIFAR_ARCHIVE, md5 or CIFAR10.tgz_md5)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise NetworkError(
            f"CIFAR-10 did not come ({printable(error)}): run again, or put {CIFAR_ARCHIVE} into {cache}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _size(manifest: Manifest) -> int:
    return sum(record.size for record in manifest.files.values())


@cli.stage_command("""
python -m pipeline.download                                    the default competition, from Kaggle
python -m pipeline.download --competition SLUG                 another competition of the same shape
python -m pipeline.download --from ~/Downloads/SLUG.zip        an archive you downloaded yourself
python -m pipeline.download --from DIR                         a folder laid out like the download
""")
@cli.competition
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
def command(slug: str, raw: Path, source: Path | None, timeout: float, force: bool) -> None:
    """Bring the competition's files from Kaggle to data/raw/SLUG, verified.

    Resumes a download that was cut.  In a Kaggle notebook the mounted files are used in place.
    """  # fmt: skip
    kaggle = Kaggle(os.environ, timeout)
    download(slug, Paths(raw=raw), kaggle, cli.say, source=source, force=force)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; the exit code."""
    return cli.run(command, "download", argv)


if __name__ == "__main__":
    sys.exit(main())
