from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import BadData
from pipeline.store import submission_format

IDS = np.array([30, 10, 20])
GOOD = "ID,Labels\n30,1\n10,2\n20,3\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_the_format_is_the_competitions(tmp_path: Path) -> None:
    path = tmp_path / "sub.csv"
    submission_format.write(path, IDS, np.array([1, 2, 3]))
    assert path.read_text() == GOOD


def test_labels_come_back_in_the_ids_order(tmp_path: Path) -> None:
    shuffled = write(tmp_path / "sub.csv", "ID,Labels\n10,2\n20,3\n30,1\n")
    assert submission_format.validate(shuffled, IDS).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "first line"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "byte-order mark"),
        (GOOD.encode("utf-16"), "UTF-16"),
        (GOOD.replace("\n", "\r\n"), "Windows line ends"),
        (GOOD.replace(",", ";"), "semicolons"),
        (GOOD.lower(), "first line"),
        (GOOD.replace(",1", ",1.0"), r"line 2: expected `ID,label` .*, found '30,1\.0'"),
        (GOOD.replace(",2", ","), "line 3: .* found '10,'$"),
        (GOOD.replace("20,", "x,"), "line 4: .* found 'x,3'$"),
        (GOOD.replace(",3", ",10"), r"line 4: label 10 is outside 0\.\.9"),
        (GOOD.replace(",3", ",-1"), "label -1 is outside"),
        (GOOD.replace(",3", ",99999999999999999999"), "two whole numbers"),
        (GOOD.replace("20,", "10,"), "id 10 occurs 2 times"),
        (GOOD.replace("20,3\n", ""), "1 of 3 ids missing, first: 20"),
        (GOOD + "40,1\n", "1 ids not in the test set, first: 40"),
        (GOOD.replace("20,3", "20,3,4"), "line 4: .* found '20,3,4'$"),
        ("ID,Labels\n30,1,\n10,2,\n20,3,\n", "line 2: .* found '30,1,'$"),
        ("ID,Labels\n", "no rows"),
        (GOOD + "\n", "line 5"),
        (GOOD[:-1], "line 4: .* found '20,3'$"),
        (GOOD.replace(",1", ",\x1b[2J"), r"\\\\x1b"),
        (b"ID,Labels\n30,\xff\n", "line 2"),
        (b"<html>\n", "first line"),
    ],
)
def test_what_kaggle_would_refuse_is_refused_with_the_reason(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(BadData, match=said) as caught:
        submission_format.validate(write(tmp_path / "sub.csv", content), IDS)
    assert "\n" not in str(caught.value)


def test_long_files_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission_format, "CHUNK", 40)
    ids = np.arange(1000, 2000)
    rows = [f"{i},{i % 10}\n" for i in ids]
    path = write(tmp_path / "sub.csv", "ID,Labels\n" + "".join(rows))
    assert submission_format.validate(path, ids).tolist() == (ids % 10).tolist()
    path = write(path, "ID,Labels\n" + "".join(rows[::-1]))
    assert submission_format.validate(path, ids).tolist() == (ids % 10).tolist()
    for line, row, said in ((700, "1698,11\n", "line 700: label 11"), (901, "1899;9\n", "line 901: .* found '1899;9'")):
        broken = [*rows[: line - 2], row, *rows[line - 1 :]]
        with pytest.raises(BadData, match=said):
            submission_format.validate(write(path, "ID,Labels\n" + "".join(broken)), ids)
    for changed, said in ((rows[:-1], "1 of 1,000 ids missing"), ([*rows, "1000,3\n"], "id 1000 occurs 2 times")):
        with pytest.raises(BadData, match=said):
            submission_format.validate(write(path, "ID,Labels\n" + "".join(changed)), ids)
