"""The child process with the genuine client: what it makes of Kaggle's answers."""

from types import SimpleNamespace

import pytest

from pipeline.kaggle_api import child


@pytest.mark.parametrize(
    ("given", "score"),
    [("0.83439", "0.83439"), ("", ""), (None, ""), (0.5, "0.5"), ("1.00000", "1.00000"), ("nan", ""), ("1e999", ""),
     ("1.1", ""), (10**400, ""), ([], "")],
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


def test_a_list_without_an_end_is_refused() -> None:
    page = SimpleNamespace(files=(), next_page_token="7")
    with pytest.raises(child.Unreadable, match="more than 100 pages"):
        child.files(SimpleNamespace(competition_list_files=lambda *_, **__: page), "tiny")
