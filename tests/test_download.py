import hashlib
import http.server
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.config import DEFAULT_COMPETITION, Paths
from pipeline.download import download
from pipeline.errors import BadData, NetworkError
from pipeline.kaggle_api.client import Kaggle
from pipeline.rehearsal.standin import standin
from pipeline.store import cifar10
from pipeline.store.editions import find_batches
from pipeline.store.manifest import Manifest
from tests.support import ROOT, SLUG, error_line, stage, tree, write_download

SECRET = "s3cr3t-do-not-print"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_download(tmp_path / "source")


def fetch(cwd: Path, environ: dict[str, str], *more: str) -> "subprocess.CompletedProcess[str]":
    return stage("download", "--competition", SLUG, *more, cwd=cwd, environ=environ)


def target(cwd: Path) -> Path:
    return cwd / "data/raw" / SLUG


def content(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(folder).items() if name != "manifest.json"}


# --- from Kaggle, through the genuine client ----------------------------------------------------------------


def test_the_download_is_the_competitions_files_and_is_done_once(tmp_path: Path, source: Path) -> None:
    with standin(source, tmp_path / "state", slug=SLUG) as kaggle:
        first = fetch(tmp_path, kaggle.environment)
        assert first.returncode == 0, first.stderr
        assert content(target(tmp_path)) == content(source)
        again = fetch(tmp_path, kaggle.environment)
        assert "nothing to do" in again.stdout
        assert kaggle.count("DownloadDataFiles") == 1
    assert not list((tmp_path / "data/raw").glob(f".{SLUG}.download"))


def test_a_flipped_byte_is_noticed_and_downloaded_once_more(tmp_path: Path, source: Path) -> None:
    with standin(source, tmp_path / "state", slug=SLUG, faults=["DownloadDataFiles:flip*1"]) as kaggle:
        result = fetch(tmp_path, kaggle.environment)
        assert "downloading once more" in result.stdout
        assert content(target(tmp_path)) == content(source)


def test_what_stays_damaged_is_bad_data_and_nothing_is_there(tmp_path: Path, source: Path) -> None:
    with standin(source, tmp_path / "state", slug=SLUG, faults=["DownloadDataFiles:flip"]) as kaggle:
        error_line(fetch(tmp_path, kaggle.environment), 4)
    assert not target(tmp_path).exists()


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("ListDataFiles:status=401", 5, "https://www.kaggle.com/settings"),
        ("ListDataFiles:status=403", 5, f"https://www.kaggle.com/competitions/{SLUG}/rules"),
        ("ListDataFiles:status=404", 2, f"--competition {SLUG} spelled right"),
    ],
)
def test_refusals_say_what_to_do(tmp_path: Path, source: Path, fault: str, code: int, said: str) -> None:
    with standin(source, tmp_path / "state", slug=SLUG, faults=[fault]) as kaggle:
        assert said in error_line(fetch(tmp_path, kaggle.environment), code)
    assert not target(tmp_path).exists()


def impatient(environ: dict[str, str]) -> Kaggle:
    return Kaggle(environ, timeout=8, attempts=3, backoff=0.01)


@pytest.mark.parametrize(
    "fault", ["ListDataFiles:status=500*2", "ListDataFiles:html*1", "DownloadDataFiles:status=503*1"]
)
def test_passing_failures_are_tried_again(tmp_path: Path, source: Path, fault: str) -> None:
    with standin(source, tmp_path / "state", slug=SLUG, faults=[fault]) as kaggle:
        download(SLUG, Paths(raw=tmp_path / "raw"), impatient(kaggle.environment), print)
    assert content(tmp_path / "raw" / SLUG) == content(source)


def test_a_kaggle_that_stays_down_is_a_network_error(tmp_path: Path, source: Path) -> None:
    with standin(source, tmp_path / "state", slug=SLUG, faults=["ListDataFiles:status=500"]) as kaggle:
        with pytest.raises(NetworkError, match="busy or down"):
            download(SLUG, Paths(raw=tmp_path / "raw"), impatient(kaggle.environment), print)
        assert kaggle.count("ListDataFiles") == 3


def test_a_kaggle_that_hangs_is_given_up(tmp_path: Path, source: Path) -> None:
    with standin(source, tmp_path / "state", slug=SLUG, faults=["ListDataFiles:hang=60"]) as kaggle:
        client = Kaggle(kaggle.environment, timeout=3, attempts=1)
        start = time.monotonic()
        with pytest.raises(NetworkError, match="did not answer within 3 s"):
            download(SLUG, Paths(raw=tmp_path / "raw"), client, print)
        assert time.monotonic() - start < 20


def test_a_killed_download_goes_on_where_it_stopped(tmp_path: Path, source: Path) -> None:
    (source / "ballast.bin").write_bytes(os.urandom(4_000_000))
    command = [sys.executable, "-m", "pipeline.download", "--competition", SLUG]
    # The first connection breaks after 2 MB; the client waits before it goes on, and is killed meanwhile.
    with standin(source, tmp_path / "state", slug=SLUG, faults=["DownloadDataFiles:cut=2500000*1"]) as kaggle:
        environ = {**kaggle.environment, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL) as process:
            partial_zip = tmp_path / f"data/raw/.{SLUG}.download/{SLUG}.zip"
            deadline = time.monotonic() + 60
            while not (partial_zip.is_file() and partial_zip.stat().st_size >= 2_000_000):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        assert not target(tmp_path).exists()
        result = fetch(tmp_path, kaggle.environment)
        assert result.returncode == 0, result.stderr
        assert content(target(tmp_path)) == content(source)


# --- without Kaggle -----------------------------------------------------------------------------------------


def test_without_credentials_it_ends_at_once_with_5(tmp_path: Path) -> None:
    result = stage("download", cwd=tmp_path)
    assert "no Kaggle credentials" in error_line(result, 5)
    assert tree(tmp_path) == {}


def test_secrets_are_not_printed(tmp_path: Path, source: Path) -> None:
    with standin(source, tmp_path / "state", slug=SLUG, faults=["ListDataFiles:status=401"]) as kaggle:
        environ = {**kaggle.environment, "KAGGLE_API_TOKEN": SECRET, "KAGGLE_KEY": SECRET, "VERBOSE": "1"}
        result = fetch(tmp_path, environ, "--debug")
    assert result.returncode != 0
    assert SECRET not in result.stdout + result.stderr


def test_a_folder_is_used_in_place(tmp_path: Path, source: Path) -> None:
    result = stage("download", "--competition", SLUG, "--from", source, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    link = target(tmp_path) / "cifar_test_nolabel.pkl"
    assert link.is_symlink() and link.resolve() == source / "cifar_test_nolabel.pkl"
    assert content(target(tmp_path)) == content(source)


def test_another_source_wants_force(tmp_path: Path, source: Path) -> None:
    other = write_download(tmp_path / "other", seed=50)
    stage("download", "--competition", SLUG, "--from", source, cwd=tmp_path)
    assert "--force" in error_line(stage("download", "--competition", SLUG, "--from", other, cwd=tmp_path), 2)
    stage("download", "--competition", SLUG, "--from", other, "--force", cwd=tmp_path)
    assert content(target(tmp_path)) == content(other)


def test_a_kaggle_notebooks_files_are_used_in_place(tmp_path: Path) -> None:
    inputs = tmp_path / "kaggle/input"
    write_download(inputs / SLUG)
    download(SLUG, Paths(raw=tmp_path / "raw"), Kaggle({}), print, inputs=[inputs])
    assert (tmp_path / "raw" / SLUG / "cifar_test_nolabel.pkl").is_symlink()


def zipped(source: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content(source).items():
            archive.writestr(name, data)
    return path


def test_an_archive_that_was_downloaded_by_hand_will_do(tmp_path: Path, source: Path) -> None:
    stage("download", "--competition", SLUG, "--from", zipped(source, tmp_path / "x.zip"), cwd=tmp_path)
    assert content(target(tmp_path)) == content(source)


def evil_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cifar_test_nolabel.pkl", b"x")
        archive.writestr("../../escaped", b"x")
    return path


def html(path: Path) -> Path:
    path.write_text("<!DOCTYPE html><title>Sign in</title>")
    return path


@pytest.mark.parametrize("make", [evil_zip, html])
def test_a_hostile_archive_ends_with_4_and_leaves_nothing(tmp_path: Path, make: "partial[Path]") -> None:
    archive = make(tmp_path / "archive.zip")
    before = tree(tmp_path)
    error_line(stage("download", "--competition", SLUG, "--from", archive, cwd=tmp_path), 4)
    assert tree(tmp_path) == before
    assert not list(tmp_path.parent.rglob("escaped"))


def test_the_known_competitions_file_has_a_known_hash(tmp_path: Path, source: Path) -> None:
    result = stage("download", "--competition", DEFAULT_COMPETITION, "--from", source, cwd=tmp_path)
    assert "a0efb9ed2400345ed274e1ad6c7d299b4e8c94d194e0420ffa9a711a22e5cdb1" in error_line(result, 4)
    assert not (tmp_path / "data/raw" / DEFAULT_COMPETITION).exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--from", "nowhere"], 3, "does not exist"),
        (["--competition", "https://www.kaggle.com/c/some-slug"], 2, "--competition some-slug"),
        (["--timeout", "0"], 2, ""),
        (["--nonsense"], 2, ""),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    result = stage("download", *arguments, cwd=tmp_path)
    assert result.returncode == code
    assert said in result.stderr
    assert tree(tmp_path) == {}


# --- CIFAR-10 from its home page ----------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def home_page(tmp_path: Path, source: Path) -> Iterator[tuple[str, str]]:
    """URL and MD5 of an archive like CIFAR-10's own, on 127.0.0.1."""
    folder = tmp_path / "www"
    folder.mkdir()
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
        archive.add(source / "cifar-10-python/cifar-10-batches-py", "cifar-10-batches-py")
    md5 = hashlib.md5((folder / "cifar.tar.gz").read_bytes()).hexdigest()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/cifar.tar.gz", md5
        server.shutdown()
        thread.join()


def test_missing_training_data_comes_from_cifars_home_page(
    tmp_path: Path, source: Path, home_page: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", home_page[0])
    monkeypatch.setattr(CIFAR10, "tgz_md5", home_page[1])
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "cifar_test_nolabel.pkl").write_bytes((source / "cifar_test_nolabel.pkl").read_bytes())
    download(SLUG, Paths(raw=tmp_path / "raw"), Kaggle({}), print, source=bare)
    folder = tmp_path / "raw" / SLUG
    assert find_batches(folder) == folder / "cifar-10-python/cifar-10-batches-py"
    manifest = Manifest.read(folder)
    assert manifest is not None and len(manifest.files) == 8


def test_a_wrong_md5_is_a_network_error(tmp_path: Path, home_page: tuple[str, str]) -> None:
    with pytest.raises(NetworkError, match="CIFAR-10 did not come"):
        cifar10.fetch(tmp_path / "cache", home_page[0], "0" * 32, backoff=0.01)


def test_a_folder_with_half_of_the_batches_is_refused(tmp_path: Path, source: Path) -> None:
    next(source.rglob("data_batch_2")).unlink()
    with pytest.raises(BadData, match="lacks data_batch_2"):
        download(SLUG, Paths(raw=tmp_path / "raw"), Kaggle({}), print, source=source)
