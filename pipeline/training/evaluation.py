"""Loss and accuracy of a network on a labelled set."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.model.inputs import normalise
from pipeline.training.device import Device
from pipeline.training.processes import ALONE, World

BATCH = 512  # images; the result does not depend on it beyond rounding


@dataclass(frozen=True)
class Score:
    """Loss: mean cross entropy in nats, without label smoothing.  Accuracy in per cent."""

    loss: float
    accuracy: float


class EvaluationImages:
    """uint8 images (N, 32, 32, 3) with labels (N,), resident on `device`."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device) -> None:
        self.images = torch.tensor(images, device=device)
        self.labels = torch.tensor(labels, device=device)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)


def logits(network: Callable[[Tensor], Tensor], images: Tensor, device: Device) -> Tensor:
    """Float32 logits (B, 10) of images (B, 32, 32, 3), 0..255, that lie on the device."""
    with device.autocast():
        output = network(normalise(images))
    return output.float()


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    data: EvaluationImages,
    device: Device,
    before_batch: Callable[[], None] = lambda: None,
    world: World = ALONE,
) -> Score:
    """Evaluate on all of `data`, each process on its share; `before_batch` may raise to stop early.

    Leaves the network in eval mode.
    """
    network.eval()
    loss = torch.zeros((), device=device.torch_device)
    correct = torch.zeros((), dtype=torch.int64, device=device.torch_device)
    for first in range(0, len(data), BATCH):
        before_batch()
        labels = world.share(data.labels[first : first + BATCH])
        # forward(): a network that was compiled for training is not compiled once more for this.
        output = logits(network.forward, world.share(data.images[first : first + BATCH]), device)
        loss += nn.functional.cross_entropy(output, labels, reduction="sum")
        correct += (output.argmax(1) == labels).sum()
    return Score(world.total(loss).item() / len(data), 100 * world.total(correct).item() / len(data))
