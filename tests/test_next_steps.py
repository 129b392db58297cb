from pathlib import Path

from pipeline import commands
from pipeline.config import DEFAULT_COMPETITION, Paths


def test_a_command_names_what_is_not_the_default() -> None:
    assert commands.command("train", DEFAULT_COMPETITION, Paths()) == "python -m pipeline.train"
    paths = Paths(raw=Path("downloads"), models=Path("my runs"))
    assert commands.command("train", "tiny", paths) == "python -m pipeline.train --competition tiny --models 'my runs'"
    # A run knows its competition.
    assert commands.command("predict", "tiny", paths, "--out", "a b.csv") == (
        "python -m pipeline.predict --models 'my runs' --out 'a b.csv'"
    )
    assert commands.command("kernel fetch", "tiny", Paths()) == "python -m pipeline.kernel fetch"


def test_a_rehearsal_goes_on_at_the_stand_in() -> None:
    at_standin = "python -m pipeline.rehearsal -- "
    assert commands.command("check", "rehearsal-digits", Paths()) == (
        f"{at_standin}python -m pipeline.check --competition rehearsal-digits"
    )
    assert commands.command("submit", "rehearsal-digits", Paths()).startswith(at_standin)
    assert commands.command("predict", "rehearsal-digits", Paths()) == "python -m pipeline.predict"
    train = commands.command("train", "rehearsal-digits", Paths())
    assert train == "python -m pipeline.train --competition rehearsal-digits --preset rehearsal"
    assert commands.command("train", "rehearsal-digits", Paths(), "--preset", "fast").count("--preset") == 1


def test_a_script_runs_what_follows_itself() -> None:
    said: list[str] = []
    commands.announce("python -m pipeline.train", said.append, {commands.SCRIPT: "run_all.sh"})
    assert said == []
    commands.announce("python -m pipeline.train", said.append, {})
    assert said == ["next: python -m pipeline.train"]
