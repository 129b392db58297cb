"""What to do about a score: what is obviously wrong first, then by the points that it is expected to bring.

Each piece of advice is a whole command, with the names of runs that are here.  A gain is one that was measured: in a
simulation on labelled images, by CSVs that are here, or in tests/bench/RESULTS.md.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from pipeline import commands
from pipeline.config import CLASSES, Paths
from pipeline.errors import PipelineError
from pipeline.gap.assessment import MITIGATIONS, Assessment
from pipeline.gap.estimators import NORMAL, PROBIT_SLOPE, probit
from pipeline.recipes import PRESETS
from pipeline.store import ledger, runs
from pipeline.store.ensemble import Ensemble
from pipeline.store.ledger import Entry
from pipeline.store.runs import Run, RunCard
from pipeline.store.submissions import LocalCsv, accuracy, free

# Holdout accuracies before and after, from tests/bench/RESULTS.md: of three seeds the mean, and of their average
# ("Several runs in one prediction"); of a network alone, and with its mirror images ("Preset `fast`").
SEEDS, FLIP = (0.6135, 0.6390), (0.8924, 0.9036)
AVERAGED = 3  # runs
ADVISED = 3  # pieces of advice
RISING = 0.5  # points an epoch of validation accuracy, from which a run was too short
BROUGHT = 0.5  # of such a rise, at least, a longer schedule brought (tests/bench/RESULTS.md, "Trained too short")
NEVER = 0.1  # of a class's share, below which it is nearly never predicted


@dataclass(frozen=True)
class Advice:
    """One thing to do."""

    do: str
    gain: float | None  # points that it is expected to bring on the public score; None: not measured
    source: str  # of the gain
    command: str

    def __str__(self) -> str:
        gain = "" if self.gain is None else f": {self.gain:+.1f} points expected"
        return f"{self.command}\n      ({self.do}{gain})"


def summary(assessed: Assessment, advice: Sequence[Advice], verbose: bool) -> list[str]:
    """The prediction or score, its cause and the first advice, a line each; `verbose`: and all the rest."""
    shown = [*(f"next: {each}" for each in advice[:1]), *(f"or: {each}" for each in advice[1:] if verbose)]
    return [assessed.headline, f"cause: {assessed.cause}", *(assessed.details if verbose else []), *shown]


def advise(assessed: Assessment, csvs: Sequence[LocalCsv], entries: Sequence[Entry], paths: Paths) -> list[Advice]:
    """What to do, the obvious first, then the largest gain; nothing that was seen to lose.

    Args:
        assessed: a CSV, after the ledger's `entries`.
        csvs: all CSVs of the competition that predict wrote.
        entries: all lines of the ledger.
    """
    sidecar, states = assessed.csv.sidecar, ledger.current(entries, assessed.csv.sidecar.competition)
    members = _members(assessed, paths)
    wrong = [*_wrong(assessed, members, paths)]
    better = [*_mitigations(assessed, paths), *_averages(assessed, members, csvs, states, paths)]
    best = _best(states)
    if assessed.sent is None and sidecar.submittable and not any(map(runs.is_pretrained, sidecar.weights)):
        gain = None if best is None else 100 * assessed.expected - best
        send = Advice("it is not submitted yet", gain, "predicted, over the best score", _submit(assessed.csv, paths))
        (wrong if best is None else better).append(send)
    unseen = _never(assessed.evidence.hidden.labels, assessed.evidence.holdout.labels)
    if unseen or assessed.findings.diagnosis.verdict == "unknown":
        look = ("--csv", str(assessed.csv.path), "--pictures", str(paths.submissions))
        why = f"class {unseen} is never predicted: look" if unseen else "look"
        command = commands.command("check", sidecar.competition, paths, *look)
        better.append(Advice(f"{why} at the images", None, "", command))
    better.sort(key=lambda advice: -(advice.gain or 0))
    advice = [*wrong, *(each for each in better if each.gain is None or each.gain > 0)][:ADVISED]
    if worse := worse_than_the_best(assessed, states):
        status = Advice("", None, "", commands.command("status", sidecar.competition, paths))
        first, *others = advice or [status]
        advice = [replace(first, do="; ".join(filter(None, (worse, first.do)))), *others]
    return advice


def worse_than_the_best(assessed: Assessment, states: Sequence[Entry]) -> str:
    """Why not to submit a CSV whose whole interval is below the best score; "" if it was sent, or may be better."""
    best = _best(states)
    if assessed.sent is not None or best is None or 100 * assessed.forecast.interval[1] >= best:
        return ""
    return f"don't submit: {100 * assessed.expected:.1f}% expected, your best is {best:.2f}%"


def _best(states: Sequence[Entry]) -> float | None:
    return max((entry.public for entry in states if entry.public is not None), default=None)


def raised(expected: float, before: float, after: float) -> float:
    """The points that the public score rises by if the holdout accuracy does; all in 0..1, on a line of slope .85."""
    return 100 * (NORMAL.cdf(probit(expected) + PROBIT_SLOPE * (probit(after) - probit(before))) - expected)


def _members(assessed: Assessment, paths: Paths) -> Sequence[Run]:
    """The CSV's runs; none where one is gone, has other weights by now or is of another version of the pipeline."""
    weights = assessed.csv.sidecar.weights
    with suppress(PipelineError):
        members = Ensemble.open(paths.models, paths.pretrained, list(weights)).runs
        for run in members:
            commands.in_full(run.card.config, paths.submissions)
        if {run.name: run.weights_sha256 for run in members} == weights:
            return members
    return ()


def _wrong(assessed: Assessment, members: Sequence[Run], paths: Paths) -> Iterator[Advice]:
    """What is obviously wrong with the models, of which the first one stands for all."""
    seen, outputs, sidecar = assessed.findings.diagnosis, assessed.evidence.holdout, assessed.csv.sidecar
    never = _never(outputs.labels, outputs.known_truth)
    for run in members[:1]:
        card, rise = run.card, _rise(run)
        if run.origin is not None:
            train = _train(replace(card, competition=sidecar.competition), paths)
            yield Advice("pretrained weights may not compete", None, "", train)
        elif seen.verdict == "preprocessing" and not seen.pixels.corruptions and seen.contract is not None:
            now, again = accuracy(outputs.labels, outputs.known_truth), f"{run.name}-again"
            off = f"this machine computes the holdout {100 * seen.contract:+.1f} points off"
            yield Advice(off, raised(assessed.expected, now, now - seen.contract), "on the holdout",
                         _train(card, paths, "--run", again))  # fmt: skip
        elif rise >= RISING:
            epochs, full = card.config.epochs, PRESETS[card.config.preset].epochs
            longer = replace(card, config=card.config.with_epochs(full if full > epochs else 2 * epochs), trial="")
            short = f"trained too short: validation accuracy rose {rise:.1f} points an epoch at the end of {epochs}"
            if never:
                short += f", and class {never} is never predicted"
            local = sidecar.test_accuracy / 100
            gain = raised(assessed.expected, local, local + BROUGHT * rise / 100)
            yield Advice(short, gain, "at least: half of such an epoch", _train(longer, paths))
        elif never:
            train = _train(_seeded(card, card.config.seed + 1), paths)
            yield Advice(f"class {never} is never predicted: try another seed", None, "", train)


def _never(labels: NDArray[np.integer], usual: NDArray[np.integer]) -> str:
    """The classes that are nearly never among the labels, by their share of the usual ones; "" for none."""
    given, expected = (np.bincount(each, minlength=CLASSES) / len(each) for each in (labels, usual))
    return ", ".join(map(str, np.flatnonzero(given < NEVER * expected)))


def _rise(run: Run) -> float:
    """Points an epoch by which validation accuracy rose in the last quarter of the run, if the last was the best."""
    rows = [] if run.origin else runs.read_metrics(run.folder / runs.METRICS)
    values = [100 / CLASSES, *(row.validation_accuracy for row in rows)]
    last = max(len(rows) // 4, 1)
    return (values[-1] - values[-1 - last]) / last if rows and values[-1] == max(values) else 0.0


def _mitigations(assessed: Assessment, paths: Paths) -> Iterator[Advice]:
    """Mitigations that gained in simulation, and the way back from one that lost."""
    applied = assessed.findings.mitigation
    for trial in assessed.findings.trials:
        gain, name = 100 * (trial.after - trial.before), MITIGATIONS[trial.mitigation]
        if trial.mitigation == applied:
            back = _predict(assessed.csv, paths, "unadapted", adapt="none")
            yield Advice(f"{name} is on and loses", -gain, "in simulation", back)
        elif applied == "none" and trial.recommended:
            adapted = _predict(assessed.csv, paths, trial.mitigation, adapt=trial.mitigation)
            yield Advice(name, gain, "in simulation", adapted)


def _averages(
    assessed: Assessment, members: Sequence[Run], csvs: Sequence[LocalCsv], states: Sequence[Entry], paths: Paths
) -> Iterator[Advice]:
    """Other seeds and mirror images, averaged: by what it brings here if that was tried, else by what it brought."""
    csv, sidecar = assessed.csv, assessed.csv.sidecar
    beside = [
        c for c in csvs if c.sidecar.hidden == sidecar.hidden and c.sidecar.weights.items() >= sidecar.weights.items()
    ]
    ways = []
    if len(members) == 1 and members[0].origin is None:
        tried = [other for other in beside if len(other.sidecar.weights) > 1]
        ways.append((f"average of {AVERAGED} seeds", SEEDS, _seeds(members[0], csv, paths), tried))
    if members and sidecar.tta == "none" and sidecar.mirrored:
        tried = [other for other in beside if other.sidecar.weights == sidecar.weights and other.sidecar.tta != "none"]
        ways.append(("average with the mirror images", FLIP, _predict(csv, paths, "flip", tta="flip"), tried))
    for do, measured, command, tried in ways:
        if not tried:
            source = "measured on CIFAR-10 (JPEG), tests/bench/RESULTS.md"
            yield Advice(do, raised(assessed.expected, *measured), source, command)
            continue
        best = max(tried, key=lambda other: other.sidecar.test_accuracy)
        if best.sidecar.csv_sha256 not in {entry.csv_sha256 for entry in states}:
            before, after = sidecar.test_accuracy / 100, best.sidecar.test_accuracy / 100
            yield Advice(
                f"{do}, is here", raised(assessed.expected, before, after), "by the holdout", _submit(best, paths)
            )


def _seeds(run: Run, csv: LocalCsv, paths: Paths) -> str:
    """The command that averages the run with others of its recipe, or trains those that are missing."""
    named = {run.card.config.seed: run.name}
    for name in runs.finished(paths.models):
        with suppress(PipelineError):
            card = RunCard.read(paths.models / name)
            if _seeded(card, 0) == _seeded(run.card, 0):
                named.setdefault(card.config.seed, name)
    names = list(named.values())[:AVERAGED]
    if len(names) == AVERAGED:
        return _predict(csv, paths, "seeds", names=names)
    missing = list(islice((seed for seed in count() if seed not in named), AVERAGED - len(names)))
    # Under its default name train finds a run, and need not train it again.
    own = [] if run.name == runs.default_name(run.card) else ["--run", run.name]
    seeds = missing if own else [*named, *missing]
    return _train(_seeded(run.card, 0), paths, *own, "--seeds", *map(str, sorted(seeds)))


def _seeded(card: RunCard, seed: int) -> RunCard:
    return replace(card, config=replace(card.config, seed=seed), trial="")


# --- commands -------------------------------------------------------------------------------------------------


def _train(card: RunCard, paths: Paths, *more: str) -> str:
    """Train that recipe."""
    return commands.command("train", card.competition, paths, *commands.in_full(card.config, paths.submissions), *more)


def _predict(
    csv: LocalCsv, paths: Paths, name: str, *, names: Sequence[str] = (), tta: str = "", adapt: str = ""
) -> str:
    """Predict as for `csv`, but for what is given, into another CSV beside it."""
    sidecar = csv.sidecar
    # A run knows its competition, and a pretrained network none.
    options = ["--competition", sidecar.competition] if any(map(runs.is_pretrained, sidecar.weights)) else []
    options += ["--run", *(names or sidecar.weights)]
    for flag, value, default in (("--tta", tta or sidecar.tta, "none"), ("--adapt", adapt or sidecar.adapt, "auto")):
        options += [flag, value] if value != default else []
    out = free(csv.path.with_stem(f"{csv.path.stem}-{name}"))
    return commands.command("predict", sidecar.competition, paths, *options, "--out", str(out))


def _submit(csv: LocalCsv, paths: Paths) -> str:
    return commands.command("submit", csv.sidecar.competition, paths, "--csv", str(csv.path))
