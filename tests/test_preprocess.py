import pickle
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import DEFAULT_COMPETITION
from pipeline.store import cifar
from pipeline.store.processed import Processed
from tests.support import NAMES, SLUG, error_line, here, images, prepare, tree, write_download

HIDDEN = "cifar_test_nolabel.pkl"


def raw(cwd: Path) -> Path:
    return cwd / "data/raw" / SLUG


def preprocess(cwd: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    return here("preprocess", "--competition", SLUG, *more, cwd=cwd)


def test_arrays_are_the_files_images(tmp_path: Path) -> None:
    write_download(raw(tmp_path))
    result = preprocess(tmp_path)
    assert result.returncode == 0, result.stderr
    assert "layout HWC, RGB; ids from the file" in result.stdout
    data = Processed.open(tmp_path / "data/processed" / SLUG)
    assert np.array_equal(data.array("train_images"), np.concatenate([images(20, batch) for batch in range(5)]))
    assert data.array("train_labels").tolist() == [i % 10 for i in range(20)] * 5
    assert np.array_equal(data.array("hidden_images"), images(30, 9))
    assert data.array("hidden_ids").tolist() == list(range(100, 130))
    assert data.array("test_labels").dtype == np.int64
    assert data.class_names == [*NAMES]
    *_, end, following = result.stdout.splitlines()
    assert end.startswith(f"data/processed/{SLUG}: 6 arrays, in ")
    assert following == f"next: python -m pipeline.train --competition {SLUG}"


def test_again_it_does_nothing_and_after_a_change_or_damage_it_does(tmp_path: Path) -> None:
    write_download(raw(tmp_path))
    preprocess(tmp_path)
    before, manifest = tree(tmp_path), tmp_path / "data/processed" / SLUG / "manifest.json"
    assert "nothing to do" in preprocess(tmp_path).stdout
    assert tree(tmp_path) == before
    manifest.write_text("{}")
    assert "--force" in error_line(preprocess(tmp_path), 4)
    assert preprocess(tmp_path, "--force").returncode == 0
    assert tree(tmp_path) == before
    (raw(tmp_path) / HIDDEN).write_bytes(pickle.dumps({b"data": images(5)}))
    assert "no ids: rows count from 0" in preprocess(tmp_path).stdout
    assert len(Processed.open(manifest.parent).array("hidden_ids")) == 5


def test_a_missing_file_or_folder_is_named_with_the_download_that_brings_it(tmp_path: Path) -> None:
    prepare(tmp_path)
    (raw(tmp_path) / HIDDEN).unlink()
    again = f"python -m pipeline.download --competition {SLUG} --from {tmp_path / 'source'}"
    assert f"{HIDDEN} is missing or changed: run `{again}`" in error_line(preprocess(tmp_path), 4)
    elsewhere = f"run `python -m pipeline.download --competition {SLUG} --raw other` first"
    assert elsewhere in error_line(preprocess(tmp_path, "--raw", "other"), 3)


def test_a_file_that_was_exchanged_after_the_download_is_not_taken_for_done(tmp_path: Path) -> None:
    prepare(tmp_path)
    before = tree(tmp_path / "data/processed")
    file = raw(tmp_path) / HIDDEN
    content = file.read_bytes()
    file.unlink()  # a link to the source
    file.write_bytes(content[:-9] + content[-9:].swapcase())  # equally long, as other editions are
    line = error_line(preprocess(tmp_path), 4)
    cure = f"python -m pipeline.download --competition {SLUG} --from {tmp_path / 'source'}"
    assert f"{HIDDEN} changed since it was downloaded: move it away, then run `{cure}`" in line
    (raw(tmp_path) / "manifest.json").rename(tmp_path / "manifest.json")  # the other cure, for a change of one's own
    assert "changed" not in error_line(preprocess(tmp_path, "--processed", "own"), 4)
    assert tree(tmp_path / "data/processed") == before


def test_scrambled_pixels_and_swapped_channels_are_found(tmp_path: Path) -> None:
    write_download(raw(tmp_path), hidden=200)
    swapped = np.ascontiguousarray(images(200, 9)[..., ::-1].transpose(0, 3, 1, 2)).reshape(200, 32, 32, 3)
    (raw(tmp_path) / HIDDEN).write_bytes(pickle.dumps({b"data": swapped}))
    result = preprocess(tmp_path)
    assert "CHW data in an HWC shape, BGR" in result.stdout
    assert result.stdout.count("WARNING") == 2
    data = Processed.open(tmp_path / "data/processed" / SLUG)
    assert np.array_equal(data.array("hidden_images"), images(200, 9)[..., ::-1])


OWN = np.array([104, 100, 103, 2**40, 0])
SPELT = {
    "a tuple": tuple(OWN.tolist()), "a column": OWN[:, None], "a row": OWN[None], "scalars": [*OWN.astype(">i8")],
    "arrays": [np.array(n) for n in OWN], "lists": OWN[:, None].tolist(), "floats": OWN.astype(float),
    "floats in a list": [float(n) for n in OWN], "digits": [str(n) for n in OWN], "bytes": [b"%d" % n for n in OWN],
    "uint64": OWN.astype(np.uint64), "big-endian": OWN.astype(">i8"),
}  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("how", SPELT)
def test_ids_are_read_however_they_are_spelt(tmp_path: Path, how: str, protocol: int) -> None:
    path = tmp_path / HIDDEN
    content = {b"data": images(5), b"ids": SPELT[how]}
    for module in (b"numpy._core", b"numpy.core"):  # of numpy 2 and 1
        path.write_bytes(pickle.dumps(content, protocol=protocol).replace(b"numpy._core", module))
        if protocol == 2 or module == b"numpy._core":  # elsewhere a name's length precedes it
            assert cifar.read_hidden(path).ids.tolist() == OWN.tolist()


@pytest.mark.parametrize("key", ["id", "ID", b"index", "image id", "$(touch x)", "identifiers of the images, " * 3])
def test_ids_under_another_key_are_never_passed_over(tmp_path: Path, key: str | bytes) -> None:
    write_download(raw(tmp_path))
    spelt = key.decode() if isinstance(key, bytes) else key
    own = np.random.default_rng(0).permutation(30) + 7
    (raw(tmp_path) / HIDDEN).write_bytes(pickle.dumps({"data": images(30), "names": ["a"] * 30, key: own}))
    result = preprocess(tmp_path)
    error_line(result, 4)
    assert f"has no 'ids', but 30 distinct whole numbers under {spelt!r}." in result.stderr
    cure = re.search("`python -m pipeline.preprocess (.+)`", result.stderr)
    assert cure is not None and tree(tmp_path / "data/processed") == {}
    assert here("preprocess", *shlex.split(cure[1]), cwd=tmp_path).returncode == 0
    data = Processed.open(tmp_path / "data/processed" / SLUG)
    assert data.array("hidden_ids").tolist() == own.tolist() and data.manifest.facts["hidden"]["ids_key"] == spelt
    # Who does not say takes what is there, as run_all.sh does; another key is another set of arrays.
    for more in ([], ["--ids-key", spelt]):
        assert "nothing to do" in preprocess(tmp_path, *more).stdout
    assert "no ids: rows count from 0" in preprocess(tmp_path, "--ids-key", "none").stdout
    assert "nothing to do" in preprocess(tmp_path, "--ids-key", "none").stdout
    assert "its keys are data, names, " in error_line(preprocess(tmp_path, "--ids-key", "nope"), 2)
    assert "number 0 is a" in error_line(preprocess(tmp_path, "--ids-key", "names"), 4)


def test_arrays_that_do_not_say_whose_ids_they_have_are_made_again(tmp_path: Path) -> None:
    write_download(raw(tmp_path))
    (raw(tmp_path) / HIDDEN).write_bytes(pickle.dumps({"data": images(30), "labels": [1] * 30}))
    assert "no ids: rows count from 0" in preprocess(tmp_path).stdout
    assert "nothing to do" in preprocess(tmp_path).stdout
    manifest = tmp_path / "data/processed" / SLUG / "manifest.json"
    manifest.write_text(re.sub(r',\s+"ids_key": null', "", manifest.read_text()))  # as older versions wrote it
    assert "nothing to do" not in preprocess(tmp_path).stdout


def test_a_folder_laid_out_like_the_download_will_do_as_raw(tmp_path: Path) -> None:
    prepare(tmp_path)  # the only competition with data, and not the one that is meant
    before = tree(tmp_path / "data/processed")
    assert here("preprocess", "--raw", write_download(tmp_path / "by-hand"), cwd=tmp_path).returncode == 0
    now = tree(tmp_path / "data/processed")
    assert now.items() > before.items() and f"{DEFAULT_COMPETITION}/hidden_ids.npy" in now
    (raw(tmp_path) / HIDDEN).unlink()
    (raw(tmp_path) / HIDDEN).write_bytes(b"")
    cure = f"`python -m pipeline.download --competition {SLUG} --from {tmp_path / 'source'}`"
    assert cure in error_line(preprocess(tmp_path, "--raw", f"data/raw/{SLUG}"), 4)


def test_files_that_somebody_added_are_kept_when_the_arrays_are_made_again(tmp_path: Path) -> None:
    folder = prepare(tmp_path) / "data/processed" / SLUG
    (folder / "notes.md").write_text("mine")
    result = preprocess(tmp_path, "--force")
    assert result.returncode == 0 and f"is kept as data/processed/{SLUG}.bak" in result.stderr
    assert (folder.with_name(f"{SLUG}.bak") / "notes.md").read_text() == "mine" and not (folder / "notes.md").exists()
