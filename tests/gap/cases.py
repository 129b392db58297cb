"""What several tests of gap/ and reporting/ begin with."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Corruption, Images
from pipeline.gap.diagnosis import Diagnosis, Findings
from pipeline.store.ledger import Entry
from pipeline.store.processed import ArrayName, Processed
from pipeline.store.submissions import Evidence, Outputs

# The six published (local, Kaggle) pairs behind the competition's line, in per cent.
PAIRS = ((93, 81), (94.5, 83.4), (94.7, 84.1), (95.32, 84.97), (95.49, 85.10), (97.09, 88.91))

ENTRY = Entry(
    time="2025-03-01T10:20:30+00:00", competition="slug", run="a", csv_sha256="sha", ref=7, local_validation=91.0,
    local_test=90.0, public=80.0, private=81.0, status="complete",
)  # fmt: skip
BGR, SCRAMBLED = "channels swapped, BGR for RGB", "pixels scrambled, HWC read as CHW"
ALIKE = Fit(0.3, (), 0.3, (("red", 0.1), ("green", -0.1), ("noise", 0.06)), False)
SWAPPED = Fit(2.0, (Corruption(BGR),), 0.2, (("red - blue", -2.5),), False)
NOTHING = Diagnosis(
    verdict="none", reason="no difference beyond sampling noise", pixels=ALIKE, contract=0.0, auc=0.5, harder=0.01,
    harder_limit=0.03, label_distance=0.0, prior=(0.1,) * 10, alike=(0.01, 0.01),
)  # fmt: skip
HARDER = dataclasses.replace(
    NOTHING, verdict="natural", reason="uncorrupted images that are harder", auc=0.73, harder=0.1,
    pixels=Fit(0.4, (Corruption("blur", 0.5),), 0.3, (), False),
)  # fmt: skip


def plain(*colours: tuple[float, float, float]) -> Images:
    """Images of one colour each."""
    return np.broadcast_to(np.array(colours, dtype=np.uint8)[:, None, None], (len(colours), 32, 32, 3)).copy()


def two(*first: float) -> NDArray[np.float64]:
    """Probabilities of two classes from those of the first."""
    return np.array([[p, 1 - p] for p in first])


def answers(count: int, seed: int) -> NDArray[np.float32]:
    """Made-up probabilities (count, 10)."""
    return np.random.default_rng(seed).dirichlet(np.full(10, 0.3), count).astype(np.float32)


def answered(data: Processed) -> Evidence:
    """Made-up outputs for all images; every second hidden one lends its features."""
    truth = np.array(data.array("test_labels"), np.uint8)
    hidden, test = answers(len(data.array("hidden_ids")), 0), answers(len(truth), 1)
    rows, test_rows = np.arange(0, len(hidden), 2), np.arange(len(truth))
    return Evidence(
        runs=("a",),
        hidden=Outputs(hidden, hidden.argmax(axis=1).astype(np.uint8)[None], None),
        holdout=Outputs(test, test.argmax(axis=1).astype(np.uint8)[None], truth),
        validation=None,
        hidden_rows=rows,
        hidden_features=np.zeros((len(rows), 3), dtype=np.float32),
        ood_scores=np.random.default_rng(2).normal(size=len(rows)).astype(np.float32),
        holdout_rows=test_rows,
        holdout_features=np.zeros((len(truth), 3), dtype=np.float32),
        findings=Findings(HARDER, (), "none").to_dict(),
    )


@dataclass(frozen=True)
class InMemory(Processed):
    """A folder of arrays, some of which were exchanged."""

    exchanged: dict[str, NDArray[Any]] = dataclasses.field(default_factory=dict)

    def array(self, name: ArrayName) -> NDArray[Any]:
        """The exchanged array, or the folder's."""
        return self.exchanged[name] if name in self.exchanged else super().array(name)
