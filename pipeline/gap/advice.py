"""What to do about a score: obvious faults first, then by the predicted gain in points.

Each piece of advice is a whole command with the names of existing runs.  Gains are measured: in a simulation on holdout
images, or in tests/bench/RESULTS.md.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np

from pipeline import commands
from pipeline.config import CLASSES, Paths
from pipeline.errors import PipelineError
from pipeline.gap.assessment import Assessment
from pipeline.gap.diagnosis import MITIGATIONS
from pipeline.gap.estimators import NORMAL, PROBIT_SLOPE, probit
from pipeline.recipes import PRESETS
from pipeline.store import ledger, runs
from pipeline.store.ensemble import Ensemble
from pipeline.store.ledger import Entry
from pipeline.store.processed import Processed
from pipeline.store.runs import Run, RunCard
from pipeline.store.submissions import LocalCsv, free

# Holdout accuracies before and after, from tests/bench/RESULTS.md: preset `fast`, mean of three seeds, beside their
# average, their mean with mirror images, and the mean of three seeds of preset `strong`.
SEEDS, FLIP, STRONG = (0.8967, 0.9088), (0.8967, 0.9055), (0.8967, 0.9104)
AVERAGED = 3  # runs
ADVISED = 3  # pieces of advice
RISING = 0.5  # points per epoch: validation accuracy of a run that was too short
BROUGHT = 0.5  # of such a rise, at least, the whole schedule gained (tests/bench/RESULTS.md, "Trained too short")
RARE = 0.1  # of a class's share, below which it is rarely predicted
NAMED = 3  # of these classes
ONE_LINE = 90  # characters of a command with its reason
BREAK = "\n      "


@dataclass(frozen=True)
class Advice:
    """One thing to do."""

    do: str
    gain: float | None  # predicted points on the public score; None: not measured
    command: str

    def __str__(self) -> str:
        why = self.do + ("" if self.gain is None else f": about {self.gain:+.1f} points")
        return f"{self.command}{' ' if len(self.command) + len(why) < ONE_LINE else BREAK}({why})"


def advise(assessed: Assessment, csvs: Sequence[LocalCsv], entries: Sequence[Entry], paths: Paths) -> list[Advice]:
    """What to do, obvious faults first, then the largest gain.

    Args:
        assessed: a CSV, after the ledger's `entries`.
        csvs: all CSVs of the competition that predict wrote.
        entries: all lines of the ledger.
    """
    sidecar, states = assessed.csv.sidecar, ledger.current(entries, assessed.csv.sidecar.competition)
    (best, averaged), worse = _board(states), ledger.below_best(entries, sidecar.competition, sidecar.csv_sha256)
    members, rare = _members(assessed, paths), _rare(assessed, paths)
    wrong = [*_wrong(assessed, members, rare, averaged if 100 * assessed.expected < best else 1, paths)]
    better: list[Advice] = []
    if sidecar.submittable:
        better += [*_averages(assessed, members, csvs, paths), *_stronger(assessed, members, paths)]
    for trial in assessed.findings.trials if assessed.findings.mitigation == "none" else ():
        if trial.recommended:
            command = _predict(assessed.csv, paths, trial.mitigation, adapt=trial.mitigation)
            better.append(Advice(MITIGATIONS[trial.mitigation], 100 * (trial.after - trial.before), command))
    if assessed.sent is None and sidecar.submittable and not any(map(runs.is_pretrained, sidecar.weights)):
        command = commands.command("submit", sidecar.competition, paths, "--csv", str(assessed.csv.path))
        why = "it is not submitted yet" + "; against your best score" * bool(best)
        send = Advice(why, 100 * assessed.expected - best if best else None, command)
        (better if best else wrong).append(send)
    if rare or assessed.findings.diagnosis.verdict == "unknown":
        look = ("--csv", str(assessed.csv.path), "--pictures", str(paths.submissions))
        command = commands.command("check", sidecar.competition, paths, *look)
        better.append(Advice(f"{rare or 'an unknown shift'}: look at the images", None, command))
    better.sort(key=lambda advice: -(advice.gain or 0))
    advice = [*wrong, *(each for each in better if each.gain is None or each.gain > 0)][:ADVISED]
    if worse:
        first, *others = advice or [Advice("", None, commands.command("status", sidecar.competition, paths))]
        advice = [replace(first, do="; ".join(filter(None, (f"don't submit: {worse}", first.do)))), *others]
    return advice


def _board(states: Sequence[Entry]) -> tuple[float, int]:
    """The best public score in per cent (0: none), and the number of its runs."""
    best = max(states, key=lambda entry: entry.public or 0, default=None)
    return (best.public or 0, best.run.count("+") + 1) if best else (0, 1)


def raised(expected: float, before: float, after: float) -> float:
    """The rise of the public score with the holdout accuracy, on a probit line of slope .85; all in 0..1."""
    return 100 * (NORMAL.cdf(probit(expected) + PROBIT_SLOPE * (probit(after) - probit(before))) - expected)


def _members(assessed: Assessment, paths: Paths) -> Sequence[Run]:
    """The CSV's runs; none if one is gone, has changed, or is of another version of the pipeline."""
    weights = assessed.csv.sidecar.weights
    with suppress(PipelineError):
        members = Ensemble.open(paths.models, paths.pretrained, list(weights)).runs
        for run in members:
            commands.arguments(run.card.config)
        if {run.name: run.weights_sha256 for run in members} == weights:
            return members
    return ()


def _wrong(assessed: Assessment, members: Sequence[Run], rare: str, to_beat: int, paths: Paths) -> Iterator[Advice]:
    """Obvious faults of the models, by the first; `to_beat`: number of runs behind the best score."""
    for run in members[:1]:
        epochs, rise, local = run.card.config.epochs, _rise(run), assessed.csv.sidecar.test_accuracy / 100
        if run.origin is not None or not assessed.csv.sidecar.submittable:
            config, slug = PRESETS[run.card.config.preset], assessed.csv.sidecar.competition
            what = "pretrained weights" if run.origin else "models over the parameter limit"
            command = _train(replace(run.card, competition=slug, config=config), paths)
            yield Advice(f"{what} may not compete", None, command)
        elif rise >= RISING and epochs < (full := PRESETS[run.card.config.preset].epochs):
            number, whole = max(len(members), to_beat), run.card.config.with_epochs(full)
            why = f"trained too short: validation accuracy rose {rise:.1f} points an epoch at the end of {epochs}"
            command = _train(replace(run.card, config=whole), paths, seeds=range(number) if number > 1 else ())
            gain = raised(assessed.expected, local, local + BROUGHT * rise / 100)
            yield Advice(", and ".join(filter(None, (why, rare))), gain, command)


def _rare(assessed: Assessment, paths: Paths) -> str:
    """The classes that are rarely predicted, by their share of the holdout; "" for none."""
    both = (assessed.evidence.hidden.labels, assessed.evidence.holdout.known_truth)
    given, usual = (np.bincount(each, minlength=CLASSES) / len(each) for each in both)
    rare = np.flatnonzero(given < RARE * usual).tolist()
    names = [f"class {number}" for number in rare]
    with suppress(PipelineError):  # without the data, numbers must do
        known = Processed.open(paths.processed / assessed.csv.sidecar.competition).class_names
        names = [known[number] for number in rare]
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return f"rarely predicted: {', '.join([*names[:NAMED], *more])}" if names else ""


def _rise(run: Run) -> float:
    """Points per epoch of validation accuracy in the last quarter of the run, if the last epoch was the best."""
    rows = [] if run.origin else runs.read_metrics(run.folder / runs.METRICS)
    values = [100 / CLASSES, *(row.validation_accuracy for row in rows)]
    last = max(len(rows) // 4, 1)
    return (values[-1] - values[-1 - last]) / last if rows and values[-1] == max(values) else 0.0


def _averages(assessed: Assessment, members: Sequence[Run], csvs: Sequence[LocalCsv], paths: Paths) -> Iterator[Advice]:
    """More seeds and mirror images, unless there is such a CSV."""
    csv, own = assessed.csv, assessed.csv.sidecar
    beside = [c.sidecar for c in csvs if c.sidecar.hidden == own.hidden]
    beside = [other for other in beside if other.weights.items() >= own.weights.items()]
    if len(members) == 1 and members[0].origin is None and not any(len(other.weights) > 1 for other in beside):
        gain = raised(assessed.expected, *SEEDS) if own.tta == "none" else None
        yield Advice(f"average of {AVERAGED} seeds", gain, _seeds(members[0], csv, paths))
    mirrored = any(other.weights == own.weights and other.tta != "none" for other in beside)
    if members and own.tta == "none" and own.mirrored and not mirrored:
        gain = raised(assessed.expected, *FLIP) if len(members) == 1 else None
        yield Advice("average with the mirror images", gain, _predict(csv, paths, "flip", tta="flip"))


def _stronger(assessed: Assessment, members: Sequence[Run], paths: Paths) -> Iterator[Advice]:
    """From preset `fast` to `strong`, unless it was trained; measured for one run without TTA."""
    own = assessed.csv.sidecar
    if {run.card.config.preset for run in members if run.origin is None} != {"fast"}:
        return
    trained = {(card.competition, card.config.preset) for card in _finished(paths).values()}
    if (own.competition, "strong") not in trained:
        command = commands.command("train", own.competition, paths, "--preset", "strong")
        gain = raised(assessed.expected, *STRONG) if len(members) == 1 and own.tta == "none" else None
        yield Advice("a wider model, which trains 8 times as long", gain, command)


def _finished(paths: Paths) -> dict[str, RunCard]:
    """The cards of the finished runs, by their names, as far as they can be read."""
    cards = runs.cards(paths.models)
    return {name: cards[name] for name in runs.finished(paths.models) if name in cards}


def _seeds(run: Run, csv: LocalCsv, paths: Paths) -> str:
    """The command that averages the run with other seeds, or trains those."""
    named = {run.card.config.seed: run.name}
    for name, card in _finished(paths).items():
        if _seeded(card, 0) == _seeded(run.card, 0):
            named.setdefault(card.config.seed, name)
    if len(named) >= AVERAGED:
        return _predict(csv, paths, "seeds", names=list(named.values())[:AVERAGED])
    missing = islice((seed for seed in count() if seed not in named), AVERAGED - len(named))
    base = run.name.removesuffix(f"-s{run.card.config.seed}")  # train finds runs under any name
    by_default = base in (runs.default_name(run.card), runs.default_name(_seeded(run.card, 0)))
    return _train(run.card, paths, *([] if by_default else ["--run", base]), seeds=[*named, *missing])


def _seeded(card: RunCard, seed: int) -> RunCard:
    return replace(card, config=replace(card.config, seed=seed), trial="")


def _train(card: RunCard, paths: Paths, *more: str, seeds: Sequence[int] = ()) -> str:
    """The command that trains the recipe, or one run per seed."""
    if seeds:
        card, more = _seeded(card, 0), (*more, "--seeds", *map(str, sorted(seeds)))
    return commands.command("train", card.competition, paths, *commands.in_full(card.config), *more)


def _predict(
    csv: LocalCsv, paths: Paths, name: str, *, names: Sequence[str] = (), tta: str = "", adapt: str = ""
) -> str:
    """The command that predicts like `csv`, with the given changes, into another CSV."""
    sidecar, cards = csv.sidecar, runs.cards(paths.models)
    names = names or list(sidecar.weights)
    # By default predict takes the competition that the runs were trained for; bundled weights have none.
    own = all(run in cards and cards[run].competition == sidecar.competition for run in names)
    options = [*([] if own else ["--competition", sidecar.competition]), "--run", *names]
    for flag, value, default in (("--tta", tta or sidecar.tta, "none"), ("--adapt", adapt or sidecar.adapt, "auto")):
        options += [flag, value] if value != default else []
    out = free(csv.path.with_stem(f"{csv.path.stem}-{name}"))
    return commands.command("predict", sidecar.competition, paths, *options, "--out", str(out))
