"""Much of everything, in the short form; tests/bench/soak.py and hidden_size.py measure seconds and memory."""

from pathlib import Path

from pipeline.check import SHOWN
from pipeline.store import ledger
from tests.bench.soak import write_ledger
from tests.support import SLUG, here

SUBMISSIONS = 2_500  # four lines each


def test_a_ledger_of_ten_thousand_lines_is_read_and_its_newest_are_shown(tmp_path: Path) -> None:
    book = tmp_path / "submissions/ledger.csv"
    write_ledger(book, SUBMISSIONS)
    before = book.read_bytes()
    assert len(ledger.read(book)) == 4 * SUBMISSIONS
    result = here("check", "--competition", SLUG, "--verbose", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"... and {SUBMISSIONS - SHOWN:,} older ones" in result.stdout
    assert sum(" complete" in line for line in result.stdout.splitlines()) == SHOWN
    assert f"points (n={SUBMISSIONS})" in result.stdout
    assert book.read_bytes() == before
