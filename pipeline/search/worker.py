"""One of the workers of a study: it trains trial after trial while seats are free."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from optuna import TrialPruned
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.console import duration
from pipeline.errors import Log, PipelineError, UsageError
from pipeline.recipes import TrainConfig
from pipeline.search import study as studies
from pipeline.search.report import settings
from pipeline.search.space import Space

RUN, REASON = "run", "reason"  # a trial's attributes: its run's name; why it has no value
LIMITS = {"failed": 3, "refused": 100}  # trials in a row, beyond which something is wrong with all of them

Train = Callable[[TrainConfig, str], float]  # config, the run's name -> validation accuracy in per cent


class Surplus(PipelineError):
    """Another worker took the last seat a moment earlier."""


@dataclass
class Worker:
    """Runs trials of `study` until it has `total` complete ones; calls `tidy` after each of its own."""

    database: RDBStorage
    study: Study
    space: Space
    total: int
    heartbeat: int  # seconds
    train: Train
    tidy: Callable[[], None]
    log: Log
    in_a_row: Counter[str] = field(default_factory=Counter)  # since the last complete trial
    lost: bool = False  # the trial under way was given to another worker meanwhile

    def work(self) -> None:
        """Run trials; at the end wait for other workers' last ones, in case one of them dies.

        Raises:
            PipelineError: too many trials in a row have failed or were refused.
            KeyboardInterrupt: the user stopped it; the trial under way will be tried again.
        """
        vouched: set[int] = set()
        while (complete := len(studies.ranking(self.study))) < self.total:
            under_way = studies.seats_taken(self.study) - complete
            if complete + under_way < self.total:
                self._one_trial()
                continue
            if not vouched:
                self.log(f"waiting for other workers' last trials ({under_way} under way)")
            studies.wait(self.database, self.study, self.heartbeat, vouched)

    def _one_trial(self) -> None:
        try:
            # Only `optimize` has heartbeats, ask and tell have none.
            self.study.optimize(
                self._objective, n_trials=1, catch=(PipelineError,), callbacks=[self._after], gc_after_trial=True
            )
        except (ValueError, UpdateFinishedTrialError):
            if not self.lost:
                raise
            # Perhaps this machine slept, or did not reach the storage.
            self.log("the trial that just ended was taken for dead meanwhile, and is tried again")

    def _objective(self, trial: Trial) -> float:
        self.lost = False
        if studies.surplus(trial, self.total):
            if trial.params:  # not a new trial, but one to be tried again
                studies.hand_back(trial)
            raise Surplus
        try:
            return self._accuracy(trial)
        except KeyboardInterrupt:
            studies.hand_back(trial)
            raise
        finally:
            self.lost = studies.ended(trial)

    def _accuracy(self, trial: Trial) -> float:
        """Of the trial's run, or of an earlier trial's with the same values: it would be the same run."""
        values = {axis.field: axis.suggest(trial) for axis in self.space.axes}
        for twin in studies.ranking(self.study):
            if twin.params == values and twin.value is not None:
                trial.set_user_attr(RUN, twin.user_attrs[RUN])
                return twin.value
        try:
            config = self.space.config(values)
        except UsageError as error:
            trial.set_user_attr(REASON, str(error))
            raise TrialPruned from error
        # A trial that is tried again has a name already, and goes on from the checkpoint of that run.
        name = trial.user_attrs.get(RUN, run_name(self.study.study_name, trial.number))
        trial.set_user_attr(RUN, name)
        try:
            return self.train(config, name)
        except PipelineError as error:
            trial.set_user_attr(REASON, str(error))
            raise

    def _after(self, _study: Study, trial: FrozenTrial) -> None:
        """Say in one line how the trial ended."""
        line = f"trial {trial.number}  {settings(trial.params)}"
        if trial.state == TrialState.COMPLETE:
            self.in_a_row.clear()
            self.tidy()
            self.log(f"{line}  {self._outcome(trial)}{self._to_go()}")
        elif reason := trial.user_attrs.get(REASON):  # a surplus one has none
            kind = "failed" if trial.state == TrialState.FAIL else "refused"
            self.in_a_row[kind] += 1
            self.log(f"{line}  {kind}: {reason}")
            if self.in_a_row[kind] > LIMITS[kind]:
                raise PipelineError(f"{self.in_a_row[kind]} trials {kind} in a row, the last one: {reason}")

    def _outcome(self, trial: FrozenTrial) -> str:
        best, run = studies.ranking(self.study)[0], trial.user_attrs[RUN]
        own = run == run_name(self.study.study_name, trial.number)
        return f"{trial.value:.2f} %{'' if own else f' (run {run})'}  best {best.value:.2f} % (trial {best.number})"

    def _to_go(self) -> str:
        """How many trials are complete, and how long the others take all workers, if they take as long."""
        complete = studies.ranking(self.study)
        left = self.total - len(complete)
        workers = 1 + studies.seats_taken(self.study) - len(complete)
        seconds = median(trial.duration.total_seconds() if trial.duration else 0.0 for trial in complete)
        to_go = f", {duration(left * seconds / workers)} to go" if left > 0 else ""
        return f"  {len(complete)} of {self.total}{to_go}"


def run_name(study_name: str, number: int) -> str:
    """The run of a trial that is not the continuation or the repetition of another."""
    return f"{study_name}-{number}"
