import pytest

from pipeline.config import DEFAULT_COMPETITION, check_slug, competition
from pipeline.errors import UsageError


def test_a_url_is_no_slug_and_the_error_names_the_slug() -> None:
    with pytest.raises(UsageError, match=f"--competition {DEFAULT_COMPETITION}$"):
        check_slug(f"https://www.kaggle.com/competitions/{DEFAULT_COMPETITION}/data")


@pytest.mark.parametrize("text", ["", "../x", "a/b", "a b", "-x", "\x1b[31m"])
def test_what_is_no_slug_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no competition slug"):
        check_slug(text)


def test_an_unknown_competition_has_an_empty_card() -> None:
    assert competition("other").line is None
    assert competition(DEFAULT_COMPETITION).public_rows == 5012
