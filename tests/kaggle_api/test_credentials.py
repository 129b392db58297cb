import json
from pathlib import Path
from unittest import mock

import pytest

from pipeline.kaggle_api import credentials
from tests.support import SLUG, clean_environment, error_line, here

SECRET = "s3cr3t-do-not-print"
TOKEN = {"KAGGLE_API_TOKEN": SECRET}
PAIR = {"KAGGLE_USERNAME": "u", "KAGGLE_KEY": SECRET}
JSON = json.dumps({"username": "u", "key": SECRET})
KAGGLE_JSON, ACCESS_TOKEN = ".kaggle/kaggle.json", ".kaggle/access_token"


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize(
    ("file", "content", "environ", "place", "variables"),
    [
        ("x", "", TOKEN, "KAGGLE_API_TOKEN", TOKEN),
        ("x", "", PAIR, "KAGGLE_USERNAME and KAGGLE_KEY", PAIR),
        ("x", "", TOKEN | PAIR, "KAGGLE_API_TOKEN", TOKEN),
        (ACCESS_TOKEN, SECRET, PAIR, ACCESS_TOKEN, TOKEN),
        (ACCESS_TOKEN, "t" * 300, {}, ACCESS_TOKEN, {}),
        (f"{ACCESS_TOKEN}.txt", SECRET, {}, "access_token.txt", TOKEN),
        (KAGGLE_JSON, JSON, {}, KAGGLE_JSON, PAIR),
        (KAGGLE_JSON, JSON, {"KAGGLE_USERNAME": "other"}, KAGGLE_JSON, PAIR | {"KAGGLE_USERNAME": "other"}),
        (".config/kaggle/kaggle.json", JSON, {}, "kaggle.json", PAIR),
        ("moved/kaggle.json", JSON, {"KAGGLE_CONFIG_DIR": "moved"}, "moved/kaggle.json", PAIR),
        (".kaggle/credentials.json", "{}", {}, ".kaggle/credentials.json", {}),
        # What editors and shells make of them.
        (KAGGLE_JSON, JSON.encode("utf-8-sig"), {}, KAGGLE_JSON, PAIR),
        (KAGGLE_JSON, JSON.encode("utf-16"), {}, KAGGLE_JSON, PAIR),
        (KAGGLE_JSON, JSON.encode("utf-16-be"), {}, KAGGLE_JSON, PAIR),
        (KAGGLE_JSON, JSON.replace(",", ",\r\n") + "\r\n", {}, KAGGLE_JSON, PAIR),
        (KAGGLE_JSON, f"'{JSON.replace(SECRET, SECRET + ' ')}'", {}, KAGGLE_JSON, PAIR),
        (ACCESS_TOKEN, f"{SECRET}\r\n".encode("utf-16"), {}, ACCESS_TOKEN, TOKEN),
        (ACCESS_TOKEN, f'"{SECRET}"\n'.encode("utf-8-sig"), {}, ACCESS_TOKEN, TOKEN),
        ("x", "", {"KAGGLE_API_TOKEN": f"\ufeff\u201c{SECRET}\u201d\r\n"}, "KAGGLE_API_TOKEN", TOKEN),
        ("x", "", {"KAGGLE_USERNAME": "'u'\n", "KAGGLE_KEY": f"{SECRET}\n"}, "KAGGLE_USERNAME and KAGGLE_KEY", PAIR),
        ("token", SECRET, {"KAGGLE_API_TOKEN": "token"}, "token, which KAGGLE_API_TOKEN names", TOKEN),
        (KAGGLE_JSON, JSON, {"KAGGLE_API_TOKEN": " "}, KAGGLE_JSON, PAIR),
    ],
)
def test_each_kind_is_found_and_the_client_gets_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: str, environ: dict[str, str], place: str,
    variables: dict[str, str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path / file, content)
    found = credentials.require({"HOME": str(tmp_path), **environ})
    assert found.place.endswith(place) and SECRET not in found.place
    assert found.variables == variables


def refused(home: Path, code: int, **environ: str) -> str:
    """The error of a download with these credentials, which shows no secret."""
    result = here(
        "download", "--competition", SLUG, cwd=home, environ={**clean_environment(), "HOME": str(home), **environ}
    )
    error_line(result, code)
    assert SECRET not in result.stderr + result.stdout and len(result.stderr.splitlines()) <= 2
    return result.stderr.removeprefix("error: ").replace(str(home), "~")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        (KAGGLE_JSON, "", "~/.kaggle/kaggle.json cannot be used (it is empty; it is like {"),
        (KAGGLE_JSON, "[]", "(a name and a key are needed;"),
        (KAGGLE_JSON, '{"username": null, "key": "k"}', "(a name and a key are needed;"),
        (KAGGLE_JSON, '{"username": 1, "key": 2}', "(a name and a key are needed;"),
        (KAGGLE_JSON, '{"username": "u", "key": " "}', "(a name and a key are needed;"),
        (KAGGLE_JSON, JSON[:-1] + ",}", '; it is like {"username": "...", "key": "..."})'),
        (KAGGLE_JSON, JSON.replace('"', "'"), "(Expecting property name enclosed in double quotes: line 1 column 2"),
        (KAGGLE_JSON, "<!DOCTYPE html>", "(Expecting value: line 1 column 1"),
        (KAGGLE_JSON, "[" * 99_999, "(maximum recursion depth exceeded"),
        (KAGGLE_JSON, SECRET, "correct that, or get a new token at https://www.kaggle.com/settings"),
        (f"{KAGGLE_JSON}/x", "", "~/.kaggle/kaggle.json cannot be read (it is a folder; Docker creates one if"),
        (f"{ACCESS_TOKEN}/x", "", "~/.kaggle/access_token cannot be read (it is a folder; Docker creates one if"),
        (ACCESS_TOKEN, bytes(range(256)), "~/.kaggle/access_token cannot be read (it is not a text file)"),
        (ACCESS_TOKEN, "<html>\n</html>", "no token in ~/.kaggle/access_token (it is one word"),
        (ACCESS_TOKEN, JSON, "no token in ~/.kaggle/access_token (it is one word"),
        (ACCESS_TOKEN, "\n", "no Kaggle credentials (~/.kaggle has only access_token): create a token"),
        (f"{KAGGLE_JSON}.txt", "", "no Kaggle credentials (~/.kaggle has only kaggle.json.txt): "),
        (".kaggle", SECRET, "~/.kaggle is a file, and must be a folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, file: str, content: str, says: str
) -> None:
    write(tmp_path / file, content)
    assert says in refused(tmp_path, 5)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with mock.patch.object(Path, "read_bytes", side_effect=PermissionError(13, "Permission denied")):  # not for root
        assert "~/.kaggle/access_token cannot be read (Permission denied)" in refused(tmp_path, 5)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"KAGGLE_USERNAME": "u", "KAGGLE_KEY": " "}, "KAGGLE_USERNAME is set, and KAGGLE_KEY is not"),
        ({"KAGGLE_KEY": SECRET}, "KAGGLE_KEY is set, and KAGGLE_USERNAME is not"),
        ({"KAGGLE_CONFIG_DIR": "nowhere"}, "KAGGLE_CONFIG_DIR names nowhere, which has no kaggle.json"),
        ({"KAGGLE_API_TOKEN": f"two {SECRET}"}, "no token in KAGGLE_API_TOKEN"),
        ({"KAGGLE_API_TOKEN": "/run/secrets/no"}, "no token in /run/secrets/no, which KAGGLE_API_TOKEN names"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(tmp_path: Path, environ: dict[str, str], says: str) -> None:
    assert says in refused(tmp_path, 5, **environ)


@pytest.mark.parametrize("name", credentials.CERTIFICATES)
def test_certificates_that_are_not_there_are_told_before_kaggle_is_asked(tmp_path: Path, name: str) -> None:
    line = refused(tmp_path, 2, **(TOKEN | {name: "missing.pem"}))
    assert line == f"{name} names missing.pem, which is not there: correct it, or `unset {name}`\n"
