import pytest

from pipeline import cli


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        ("--run A B C --out x", "--run A --run B --run C --out x"),
        ("--out x --run A B", "--out x --run A --run B"),
        ("--run=A B --force", "--run=A --run B --force"),
        ("--run A --run B C", "--run A --run B --run C"),
        ("--run A --force B", "--run A --force B"),
        ("--runs A B --out x y", "--runs A B --out x y"),
        ("--run --out x", "--run --out x"),
        ("--run", "--run"),
        ("", ""),
    ],
)
def test_an_option_is_spread_over_its_values(given: str, spread: str) -> None:
    assert cli.spread(given.split(), "--run") == spread.split()
