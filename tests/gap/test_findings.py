from pipeline.gap.comparison import SHOWN, table
from pipeline.store import ledger
from pipeline.store.ledger import Entry


def entry(ref: int) -> Entry:
    return Entry("2026-01-01T00:00:00", "tiny", "run", f"{ref:064x}", ref, 91.0, 90.0, 80.0, 79.0, ledger.COMPLETE)


def test_of_many_submissions_the_newest_are_shown() -> None:
    lines = table([entry(ref) for ref in range(1, SHOWN + 3)], {}).splitlines()
    assert lines[0] == "... and 2 older ones, in ledger.csv and with --json"
    assert len(lines) == SHOWN + 2
    assert lines[2].split()[0] == "3" and lines[-1].split()[0] == str(SHOWN + 2)
    assert "older" not in table([entry(ref) for ref in range(1, SHOWN + 1)], {})
