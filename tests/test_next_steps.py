from pathlib import Path

from pipeline import next_steps
from pipeline.config import DEFAULT_COMPETITION, Paths


def test_a_command_names_what_is_not_the_default() -> None:
    assert next_steps.command("train", DEFAULT_COMPETITION, Paths()) == "python -m pipeline.train"
    paths = Paths(raw=Path("downloads"), models=Path("my runs"))
    assert (
        next_steps.command("train", "tiny", paths) == "python -m pipeline.train --competition tiny --models 'my runs'"
    )
    # A run knows its competition.
    assert next_steps.command("predict", "tiny", paths, "--out", "a b.csv") == (
        "python -m pipeline.predict --models 'my runs' --out 'a b.csv'"
    )
    assert next_steps.command("kernel fetch", "tiny", Paths()) == "python -m pipeline.kernel fetch"


def test_a_script_runs_what_follows_itself() -> None:
    said: list[str] = []
    next_steps.announce("python -m pipeline.train", said.append, {next_steps.SCRIPT: "run_all.sh"})
    assert said == []
    next_steps.announce("python -m pipeline.train", said.append, {})
    assert said == ["next: python -m pipeline.train"]
