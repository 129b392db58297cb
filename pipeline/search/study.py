"""An optuna study that workers share, on one machine or many: a database, a seat for each trial, heartbeats.

A worker that dies in a trial stops its heartbeat; after the grace period whoever asks for a trial next gets
that one again, with the same values.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from pipeline.errors import PipelineError, UsageError, printable

MEMORY = "pipeline"  # the study's attribute that holds what all its workers must agree on
GRACE = 2  # heartbeats that may be missed
RETRIES = 3  # of a trial whose worker died: it may be the trial that kills them
SQLITE_WAIT = 60.0  # seconds for other workers to finish writing
LOOK = 5.0  # seconds between two looks at other workers' trials, at most
OPENINGS = 5  # workers that begin at once get in each other's way while the tables are made

SEATED = (TrialState.COMPLETE, TrialState.RUNNING)


# --- the database -----------------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block, optuna neither logs nor warns that heartbeats and plots are experimental."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextmanager
def opened(storage: str, heartbeat: int) -> Iterator[RDBStorage]:
    """The database of the URL `storage`; running trials give a sign of life every `heartbeat` seconds.

    Raises:
        UsageError: it is no URL of a database that workers can share, or its driver is not installed.
        PipelineError: the database does not answer, now or later in the block.
    """
    url = _url(storage)
    try:
        database = _open(url, heartbeat)
        try:
            yield database
        finally:
            database.remove_session()
            database.engine.dispose()
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        # The traceback would show the cause, and that may quote the password.
        raise PipelineError(
            f"the storage {shown(url)} fails ({_reason(error, url)}): run the same command again to go on"
        ) from None


def shown(url: URL) -> str:
    """The URL without what may be secret: its password and its parameters."""
    return url.set(query={}).render_as_string(hide_password=True)


def _url(storage: str) -> URL:
    try:
        url = make_url(storage)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        # The parser's own messages quote the URL, and so its password.
        raise UsageError("--storage: a database's URL, as in sqlite:///data/models/sweeps.sqlite3") from None
    if url.get_backend_name() == "sqlite":
        if url.database in {None, "", ":memory:"}:
            raise UsageError("--storage: a database in memory is lost, name a file: sqlite:///FILE")
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    return url


def _open(url: URL, heartbeat: int) -> RDBStorage:
    sqlite = url.get_backend_name() == "sqlite"
    for attempt in range(OPENINGS):
        try:
            return RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs={"connect_args": {"timeout": SQLITE_WAIT}} if sqlite else {"pool_pre_ping": True},
                heartbeat_interval=heartbeat,
                grace_period=GRACE * heartbeat,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
            )
        except ImportError as error:
            driver = getattr(error.__cause__, "name", None) or url.get_driver_name()
            raise UsageError(f"--storage {shown(url)} needs its driver: pip install {driver}") from None
        except SQLAlchemyError:
            if attempt == OPENINGS - 1:
                raise
            sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def _reason(error: BaseException, url: URL) -> str:
    """One line, from the driver where it is to blame, without the URL's secrets."""
    cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
    text = str(getattr(cause, "orig", None) or cause)
    for secret in filter(None, (url.password, *map(str, url.query.values()))):
        text = text.replace(str(secret), "***")
    return printable(text.splitlines()[0] if text else type(error).__name__)


# --- the study --------------------------------------------------------------------------------------------


def join(database: RDBStorage, name: str, memory: dict[str, Any], seed: int) -> Study:
    """The study `name`, new or as other workers left it; accuracies are maximised.

    Raises:
        UsageError: it was begun with another `memory` (plain JSON values); it says what differs.
    """
    study = optuna.create_study(
        storage=database, study_name=name, sampler=Sampler(seed), direction="maximize", load_if_exists=True
    )
    if MEMORY not in study.user_attrs:
        study.set_user_attr(MEMORY, memory)
    old = study.user_attrs[MEMORY]
    changes = [
        f"{key}: {_brief(old.get(key))} -> {_brief(memory.get(key))}"
        for key in dict.fromkeys([*old, *memory])
        if old.get(key) != memory.get(key)
    ]
    if changes:
        raise UsageError(
            f"study {name} was begun with other options ({'; '.join(changes)}): repeat those, or choose another --name"
        )
    return study


def _brief(value: Any) -> str:
    return str(value["name"] if isinstance(value, dict) else value)


RETRIED = "failed_trial"  # optuna's mark of another try, with the number of the first


class Sampler(BaseSampler):
    """TPE, with random numbers from the seed and the trial's number, not counting further tries.

    So no two workers draw the same values, and a sweep that is cut and taken up again draws what it would have drawn.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tpe = TPESampler()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin the trial's own sequence."""
        number = trial.system_attrs.get(RETRIED, trial.number)
        drawn = sum(RETRIED not in other.system_attrs for other in study.get_trials(deepcopy=False)[:number])
        seed = int(np.random.SeedSequence((self._seed, drawn)).generate_state(1)[0])
        # constant_liar: keep away from what other workers are trying at the moment.
        self._tpe = TPESampler(seed=seed, multivariate=True, constant_liar=True)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As TPE."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As TPE."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As TPE."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def ranking(study: Study) -> list[FrozenTrial]:
    """The complete trials, the best first, of equal ones the older."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(complete, key=lambda trial: (-float(trial.value or 0), trial.number))


# --- seats: a study has as many as it shall have complete trials ------------------------------------------


def seats_taken(study: Study) -> int:
    """Trials that are complete, or under way somewhere."""
    return len(study.get_trials(deepcopy=False, states=SEATED))


def surplus(trial: Trial, total: int) -> bool:
    """Whether the trial, just begun, is one too many: two workers saw the last free seat at once.

    The order of numbers decides, so that exactly one of them keeps it.
    """
    states = (*SEATED, TrialState.WAITING)
    seated = trial.study.get_trials(deepcopy=False, states=states)
    return sum(other.number < trial.number for other in seated) >= total


def hand_back(trial: Trial) -> None:
    """Let whoever asks next try the values of a running trial again, as after its worker's death."""
    frozen = trial.study.get_trials(deepcopy=False)[trial.number]
    RetryHeartbeatStaleTrialCallback()(trial.study, frozen)


def ended(trial: Trial) -> bool:
    """Whether the storage no longer counts the trial as running."""
    return trial.study.get_trials(deepcopy=False)[trial.number].state.is_finished()


def wait(database: RDBStorage, study: Study, heartbeat: int, vouched: set[int]) -> None:
    """A moment, and a look whether the workers of the running trials are still alive.

    optuna takes a trial for dead when its heartbeat ends, and overlooks one whose worker died before the
    first beat.  So each trial gets one beat from here; `vouched` holds the numbers of those that had it.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.number not in vouched:
            vouched.add(trial.number)
            database.record_heartbeat(trial._trial_id)
    sleep(min(heartbeat, LOOK))
    optuna.storages.fail_stale_trials(study)
