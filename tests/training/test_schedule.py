import pytest

from pipeline.training.schedule import learning_rate


def test_the_rate_rises_then_falls_linearly() -> None:
    rates = [learning_rate(step, total_steps=10, warmup_steps=4, peak=1.2) for step in range(10)]
    assert rates == pytest.approx([0.3, 0.6, 0.9, 1.2, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_the_papers_rate_over_its_80_epochs() -> None:
    def at(epoch: float) -> float:
        return learning_rate(round(epoch * 391), 80 * 391, 5 * 391, 1e-3)

    assert at(0) == pytest.approx(1e-3 / 1955)
    assert at(2.5) == pytest.approx(5e-4, rel=2e-3)
    assert at(5) == pytest.approx(1e-3)
    assert at(42.5) == pytest.approx(5e-4, rel=1e-3)


@pytest.mark.parametrize(("warmup", "first", "last"), [(0.0, 1.0, 0.25), (4.0, 0.25, 1.0), (1.5, 2 / 3, 0.4)])
def test_any_warmup_keeps_within_the_peak(warmup: float, first: float, last: float) -> None:
    rates = [learning_rate(step, 4, warmup, 1.0) for step in range(4)]
    assert (rates[0], rates[-1]) == pytest.approx((first, last))
    assert all(0 < rate <= 1 for rate in rates)
