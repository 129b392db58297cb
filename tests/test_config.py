import pytest

from pipeline.config import DEFAULT_COMPETITION, MEAN, STD, check_slug, competition
from pipeline.errors import UsageError


@pytest.mark.parametrize("text", ["", "../x", "a/b", "a b", "-x", "\x1b[31m", "https://www.kaggle.com/competitions/x"])
def test_what_is_no_slug_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"not a competition slug, .*{DEFAULT_COMPETITION}$"):
        check_slug(text)


def test_an_unknown_competition_has_an_empty_card() -> None:
    assert competition("other").line is None
    assert competition(DEFAULT_COMPETITION).public_rows == 5012


def test_pixels_are_normalised_as_in_the_paper() -> None:
    assert (MEAN, STD) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
