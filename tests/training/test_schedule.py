import math

import pytest
import torch

from pipeline.training.optim import learning_rate


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


def shaped(shape: str) -> list[float]:
    return [learning_rate(step, 12, 4, 1.0, shape) for step in range(12)]


def test_a_cosine_falls_slowly_at_both_ends() -> None:
    falling = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert shaped("cosine") == pytest.approx([0.25, 0.5, 0.75, 1.0, *falling])


def test_steps_drop_tenfold_at_half_and_at_three_quarters() -> None:
    assert shaped("step") == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_one_cycle_rises_as_torchs_does() -> None:
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=12, pct_start=5 / 12, cycle_momentum=False)
    expected = []
    for _ in range(11):
        optimizer.step()
        theirs.step()
        expected.append(theirs.get_last_lr()[0])
    # Ours skips their first step (the lowest rate) and ends at 0 after the last one.
    assert shaped("one-cycle")[:4] == pytest.approx(expected[:4])
    assert shaped("one-cycle")[4] == 1.0
    assert shaped("one-cycle")[5:] == pytest.approx(shaped("cosine")[5:])
