"""Batch normalisations that take their statistics from the images to be labelled.

On corrupted images the means and variances that training has gathered are wrong ones, and those of the images
themselves give much accuracy back: Schneider et al. 2020 (arXiv:2006.16971), Nado et al. 2020 (arXiv:2006.10963).
On images that are merely harder they give nothing.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.model.inputs import normalise
from pipeline.model.resnet import ResNet

TINY = 1e-6  # a channel that is silent on the reference
BATCH = 250  # images whose statistics are averaged


def adapted(network: ResNet, images: NDArray[np.uint8], reference: NDArray[np.uint8]) -> ResNet:
    """A copy in evaluation mode, its statistics changed as they differ between images and labelled `reference` images.

    Training has gathered statistics of augmented images, and the weights belong to those: to put the statistics of
    plain images in their place would cost a point or two even where nothing is wrong.  So means are moved by the
    difference, and variances by the ratio: images like the reference change nothing.

    Args:
        network: as trained.
        images: uint8 (N, 32, 32, 3), at least 2; those to be labelled, or many of them.
        reference: uint8 (M, 32, 32, 3), likewise, like the training images.
    """
    result = copy.deepcopy(network).eval()
    measured = (_norms(_with_statistics(network, these)) for these in (images, reference))
    for norm, there, here in zip(_norms(result), *measured, strict=True):
        mean, var = _statistics(norm)
        (mean_there, var_there), (mean_here, var_here) = _statistics(there), _statistics(here)
        mean += mean_there - mean_here
        var *= (var_there + TINY) / (var_here + TINY)
    return result


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Its running mean and variance, (channels,)."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def _with_statistics(network: ResNet, images: NDArray[np.uint8]) -> ResNet:
    """A copy whose norms hold the statistics of the images, averaged over batches of nearly equal size; float32."""
    result = copy.deepcopy(network).eval()
    for norm in _norms(result):
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    device = next(result.parameters()).device
    for part in np.array_split(images, -(-len(images) // BATCH)):
        result(normalise(torch.from_numpy(part).to(device)))
    return result
