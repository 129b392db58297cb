"""How an examination is kept in the evidence beside a CSV, so that check need not repeat it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pipeline.errors import BadData
from pipeline.gap.closing import Trial
from pipeline.gap.diagnosis import Diagnosis
from pipeline.store.evidence import Evidence
from pipeline.store.sidecar import Measure


def remember(found: Diagnosis, trials: Sequence[Trial], measure: Measure) -> Mapping[str, Any]:
    """JSON values."""
    return {
        "diagnosis": found.to_dict(),
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "measure": measure,
    }


def recall(evidence: Evidence) -> tuple[Diagnosis, tuple[Trial, ...], Measure]:
    """The inverse of `remember`.

    Raises:
        BadData: it is of another version.
    """
    try:
        kept = evidence.examination
        trials = tuple(Trial(**trial) for trial in kept["trials"])
        measure: Measure = kept["measure"]
        if measure not in get_args(Measure):
            raise ValueError(f"no measure {measure!r}")
        return Diagnosis.from_dict(kept["diagnosis"]), trials, measure
    except (KeyError, TypeError, ValueError) as error:
        raise BadData(f"the evidence is of another version ({error}): predict again with --force") from error
