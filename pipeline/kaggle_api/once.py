"""A CSV becomes one submission, whatever Kaggle answers: by its tag it is told from all others.

The client can lose the answer to a submission that Kaggle accepted, and an answer can name a wrong ref.  So each
submission carries a tag with the CSV's sha256 in its description, and what carries it is ours, nothing else.
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import Log, NetworkError
from pipeline.kaggle_api.client import Kaggle, Submission
from pipeline.store import submissions

TRIES = 3  # of submitting, each after a search for the tag
LONGEST_WAIT = 300.0  # seconds that Kaggle can make us wait before the next try


@dataclass(frozen=True)
class Clock:
    """Time, as an argument: how long to wait for what, how often to look, and what a second is.

    A submission that Kaggle refused (429) is looked for during `settle` seconds before the next try; one whose answer
    was lost, or came from whoever stands before Kaggle (5xx), may still be carried out, and shows up within `patience`
    seconds, or never.
    """

    deadline: float = 900.0  # seconds, for the score; 0: do not wait
    poll: float = 5.0  # seconds between two looks for the score
    settle: float = 15.0  # seconds
    patience: float = 90.0  # seconds
    look: float = 5.0  # seconds between two looks for the tag
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], str] = lambda: datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Sending:
    """A CSV on its way, and how to know its submission again."""

    csv: Path
    sha256: str
    competition: str
    description: str  # with the tag
    before: Collection[int | None]  # refs of earlier submissions of this CSV

    def find(self, listed: Iterable[Submission]) -> int | None:
        """The ref of the newest submission that carries the tag and is none of `before`."""
        refs = (s.ref for s in listed if s.ref not in self.before and submissions.carries(s.description, self.sha256))
        return max(refs, default=None)

    def lost(self, why: str) -> NetworkError:
        """It was sent and is nowhere: a second one now might be one too many."""
        return NetworkError(
            f"{why}, and {self.csv} is not in its list: run `python -m pipeline.submit` again in some minutes; "
            "it looks there first"
        )


def send(sending: Sending, kaggle: Kaggle, clock: Clock, log: Log) -> int:
    """Submit until there is a ref, looking for the tag after each failure that leaves it open.

    Raises:
        NetworkError: it did not arrive; or nobody knows, and only the next run can tell.
    """
    for remaining in reversed(range(TRIES)):
        try:
            named = kaggle.submit(sending.competition, sending.csv, sending.description)
        except NetworkError as error:
            log(f"submit: {error}")
            asked_to_wait = min(error.retry_after or 0.0, LONGEST_WAIT)
            patience = clock.patience if error.unanswered else max(clock.settle, asked_to_wait)
            log(f"submit: it may have arrived all the same; looking for its tag in Kaggle's list, {patience:.0f} s")
            found = look(sending, kaggle, clock, patience)
            if found is not None:
                log(f"submit: it did arrive, as ref {found}")
                return found
            if error.unanswered:
                raise sending.lost("Kaggle left open whether it took it") from error
            if not remaining:
                raise
        else:
            return _confirmed(named, sending, kaggle, clock)
    raise AssertionError("unreachable")


def _confirmed(named: int, sending: Sending, kaggle: Kaggle, clock: Clock) -> int:
    """The ref of our submission; `named` is what Kaggle's answer calls it, which may be another's."""
    try:
        listed = kaggle.submissions(sending.competition)
        if (found := sending.find(listed)) is not None:
            return found
        if all(submission.ref != named for submission in listed):
            return named  # the list is behind the answer
        found = look(sending, kaggle, clock, clock.patience)
    except NetworkError as error:
        taken = f"Kaggle took {sending.csv} as ref {named}, and then: {error}"
        raise NetworkError(f"{taken}; `python -m pipeline.submit` looks there first") from error
    if found is None:
        raise sending.lost(f"Kaggle named ref {named}, which is another submission")
    return found


def look(sending: Sending, kaggle: Kaggle, clock: Clock, seconds: float) -> int | None:
    """The ref of our submission, or None after looking for it for `seconds`."""
    end = clock.monotonic() + seconds
    while True:
        clock.sleep(clock.look)
        found = sending.find(kaggle.submissions(sending.competition))
        if found is not None or clock.monotonic() >= end:
            return found
