from pathlib import Path

from pipeline.overview import data
from pipeline.overview.data import in_use
from pipeline.store import atomic
from pipeline.store.manifest import Manifest, records


def test_what_is_locked_is_in_use_and_looking_leaves_no_trace(tmp_path: Path) -> None:
    assert not in_use(tmp_path / "run")
    assert not list(tmp_path.iterdir())
    with atomic.lock(tmp_path / "run"):
        assert in_use(tmp_path / "run")
        assert in_use(tmp_path / "run")  # looking has not taken it away
    assert not in_use(tmp_path / "run")
    with atomic.lock(tmp_path / "run"):  # nor kept it
        pass


def test_a_download_that_was_cut_says_how_far_it_came(tmp_path: Path) -> None:
    cache = tmp_path / ".slug.download"
    cache.mkdir()
    (cache / "slug.zip").write_bytes(bytes(1_500_000))
    found = data.download(tmp_path / "slug")
    assert (found.state, found.text) == ("interrupted", "interrupted after 1.5 MB")


def test_stages_at_work_are_seen(tmp_path: Path) -> None:
    with atomic.lock(tmp_path / "slug"):
        raw = data.download(tmp_path / "slug")
        assert (raw.state, data.arrays(tmp_path / "slug", raw).state) == ("under way", "under way")


def test_what_was_laid_out_by_hand_makes_no_arrays_stale(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    folder = tmp_path / "processed"
    folder.mkdir()
    (folder / "x.npy").write_text("x")
    Manifest("preprocess", records(folder, [folder / "x.npy"]), {"file": "0"}).write(folder)
    raw = data.download(tmp_path / "raw")
    assert (raw.state, raw.text) == ("complete", "laid out by hand")
    assert data.arrays(folder, raw).state == "complete"
