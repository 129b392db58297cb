"""What several tests of gap/ and reporting/ begin with."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.gap.corruption_fit import Fit
from pipeline.gap.corruptions import Corruption, Images
from pipeline.gap.diagnosis import Diagnosis
from pipeline.store.ledger import Entry
from pipeline.store.processed import ArrayName, Processed

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


def plain(*colours: tuple[float, float, float]) -> Images:
    """Images of one colour each."""
    return np.broadcast_to(np.array(colours, dtype=np.uint8)[:, None, None], (len(colours), 32, 32, 3)).copy()


def two(*first: float) -> NDArray[np.float64]:
    """Probabilities of two classes from those of the first."""
    return np.array([[p, 1 - p] for p in first])


@dataclass(frozen=True)
class InMemory(Processed):
    """A folder of arrays, some of which were exchanged."""

    exchanged: dict[str, NDArray[Any]] = dataclasses.field(default_factory=dict)

    def array(self, name: ArrayName) -> NDArray[Any]:
        """The exchanged array, or the folder's."""
        return self.exchanged[name] if name in self.exchanged else super().array(name)
