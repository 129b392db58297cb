import numpy as np
import pytest

from pipeline.errors import BadData
from pipeline.gap.estimators import Answers, accuracy, likelihood_loss, temperature

ONE = np.array([[0.5, 0.3, 0.2]])


def test_a_temperature_divides_the_logits() -> None:
    found = Answers(ONE).at(2.0).probabilities
    roots = ONE**0.5  # softmax(log p / 2)
    np.testing.assert_allclose(found, roots / roots.sum())


def test_the_temperature_is_found_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([0.5] * 5, size=20_000)
    labels = np.array([rng.choice(5, p=row) for row in honest])
    sure = Answers(honest).at(1 / 3)  # three times as sure as it should be
    assert temperature(sure, labels) == pytest.approx(3, rel=0.05)
    assert temperature(Answers(honest), labels) == pytest.approx(1, rel=0.05)
    assert accuracy(sure, labels) == accuracy(Answers(honest), labels)


def test_the_loss_of_an_impossible_label_is_finite() -> None:
    certain = Answers(np.array([[1.0, 0.0]]))
    assert likelihood_loss(certain, np.array([0])) == 0
    assert 20 < likelihood_loss(certain, np.array([1])) < 40
    assert certain.negative_entropy.tolist() == [0]


@pytest.mark.parametrize("broken", [[[np.nan, 1.0]], [[-0.1, 1.1]], [[0.4, 0.4]], [0.5, 0.5], np.empty((0, 2))])
def test_what_are_no_probabilities_is_refused(broken: object) -> None:
    with pytest.raises(BadData, match="hidden images"):
        Answers.checked(np.array(broken), "hidden")


def test_rows_of_float32_are_made_to_sum_to_one() -> None:
    rows = np.random.default_rng(0).dirichlet([1] * 10, size=50).astype(np.float32)
    np.testing.assert_allclose(Answers.checked(rows, "hidden").probabilities.sum(axis=1), 1, atol=1e-15)
