import math

import pytest

from pipeline.config import DEFAULT_COMPETITION, competition
from pipeline.gap import forecast
from tests.gap.cases import PAIRS

LINE = competition(DEFAULT_COMPETITION).line


@pytest.mark.parametrize(("local", "score"), PAIRS)
def test_the_published_line_goes_through_the_published_pairs(local: float, score: float) -> None:
    assert LINE is not None
    assert 100 * forecast.on_line(LINE, local / 100) == pytest.approx(score, abs=0.5)


def test_the_line_is_defined_at_the_ends() -> None:
    assert LINE is not None
    assert 0 <= forecast.on_line(LINE, 0.0) < forecast.on_line(LINE, 1.0) <= 1


def test_noise_by_hand() -> None:
    # pooled p = (90 + 40) / 150 = 13/15; variance = p q (1/100 + 1/50) = (26/225) (3/100)
    noise = forecast.noise(0.9, 100, 0.8, 50)
    assert noise.sigma == pytest.approx(math.sqrt(26 / 225 * 3 / 100))
    assert noise.limit == pytest.approx(1.959964 * noise.sigma, rel=1e-6)
    assert not noise.exceeds


def test_the_papers_gap_is_no_luck() -> None:
    assert forecast.noise(0.943, 10_000, 0.83439, 5012).exceeds
    assert not forecast.noise(0.943, 10_000, 0.940, 5012).exceeds
