"""Batch normalisations that take their statistics from the images to be labelled.

On corrupted images the means and variances that training has gathered are wrong ones, and those of the images
themselves give much accuracy back: Schneider et al. 2020 (arXiv:2006.16971), Nado et al. 2020 (arXiv:2006.10963).
On images that are merely harder they give nothing.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.model.inputs import normalise
from pipeline.model.resnet import ResNet

BATCH = 250  # images whose statistics are averaged


@torch.no_grad()
def adapted(network: ResNet, images: NDArray[np.uint8]) -> ResNet:
    """A copy in evaluation mode with the statistics of uint8 images (N, 32, 32, 3), at least 2.

    Statistics are averaged over batches of nearly equal size, in float32, on the network's device.
    """
    result = copy.deepcopy(network).eval()
    norms = [module for module in result.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    device = next(result.parameters()).device
    for part in np.array_split(images, -(-len(images) // BATCH)):
        result(normalise(torch.from_numpy(part).to(device)))
    return result.eval()
