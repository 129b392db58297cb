"""The child process with the genuine client: what it makes of Kaggle's answers."""

import json
from pathlib import Path

import pytest

from pipeline.errors import AccessDenied
from pipeline.kaggle_api import child
from pipeline.kaggle_api.client import Kaggle
from tests.support import SLUG, indiscreet_kaggle

SECRET = "s3cr3t-do-not-print"


@pytest.mark.parametrize(
    ("file", "content", "environ"),
    [
        (None, "", {"KAGGLE_USERNAME": "u", "KAGGLE_KEY": SECRET}),
        (None, "", {"KAGGLE_API_TOKEN": SECRET}),
        (".kaggle/kaggle.json", json.dumps({"username": "u", "key": SECRET}), {}),
        (".kaggle/access_token", f"{SECRET}\n", {}),
    ],
    ids=["KAGGLE_KEY", "KAGGLE_API_TOKEN", "kaggle.json", "access_token"],
)
def test_a_secret_that_kaggle_quotes_is_masked(
    tmp_path: Path, file: str | None, content: str, environ: dict[str, str]
) -> None:
    if file is not None:
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(content)
        (tmp_path / file).chmod(0o600)
    with indiscreet_kaggle() as (way, heard):
        with pytest.raises(AccessDenied) as caught:
            Kaggle({**way, "HOME": str(tmp_path), **environ}, attempts=1).files(SLUG)
        assert SECRET in heard[-1]  # it was there to be quoted
    assert SECRET not in str(caught.value)
    assert "***, which is not welcome" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "score"),
    [("0.83439", "0.83439"), ("", ""), (None, ""), (0.5, "0.5"), ("1.00000", "1.00000"), ("nan", ""), ("1e999", ""),
     ("-0.1", ""), ("1.1", ""), (10**400, ""), ([], ""), ("good", "")],
)  # fmt: skip
def test_a_score_is_an_accuracy_or_none(given: object, score: str) -> None:
    assert child._score(given) == score


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("for url: https://storage.example/a.zip?X-Expires=5&X-Signature=abc (it is old)",
         "https://storage.example/a.zip?*** (it is old)"),
        (f"with url: /kf/123/{'eyJhbGci' * 20}..x_-y/data/models/my-run/config.json",
         "/kf/123/***/data/models/my-run/config.json"),
    ],
    ids=["a query", "a path, as of a kernel's output"],
)  # fmt: skip
def test_a_signed_address_is_not_shown(text: str, shown: str) -> None:
    message = child._refusal("download", OSError(text))["message"]
    assert message.endswith(shown)


@pytest.mark.parametrize(
    ("tokens", "why"), [(map(str, range(1, 10_000)), "more than 500 pages"), (iter(["7"] * 9), "leads to itself")]
)
def test_a_list_without_an_end_is_refused(tokens: "map[str]", why: str) -> None:
    class Api:
        def competition_list_files(self, *_: object, **__: object) -> object:
            return type("Page", (), {"files": (), "next_page_token": next(tokens)})

    with pytest.raises(child.Unreadable, match=why):
        child.files(Api(), "tiny")
