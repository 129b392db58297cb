"""What several tests of gap/ begin with."""

from pipeline.gap.damage import Found
from pipeline.gap.diagnosis import Diagnosis

NOTHING = Diagnosis(
    verdict="none", reason="no difference beyond sampling noise", pixels=Found(0.2, (), 0.2, (("red", 0.1),), False),
    contract=0.0, auc=0.5, softmax_ks=0.01, harder=0.01, harder_limit=0.03, label_distance=0.0, prior=(0.1,) * 10,
    reweighted_accuracy=0.9, alike=(0.01, 0.01),
)  # fmt: skip
