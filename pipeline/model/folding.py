"""Batch normalisations folded into the convolutions before them: the same function, in fewer steps.

In evaluation mode a batch normalisation is a scale and a shift of each channel, which the convolution's weights and
a bias can do as well (Jacob et al. 2017, arXiv:1712.05877, section 3.2).
"""

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.model.resnet import ResNet


def folded(network: ResNet) -> ResNet:
    """A copy in evaluation mode, channels_last, without norms after convolutions; logits agree within rounding.

    In all our modules a batch normalisation is applied to what the child just before it gives.  One after a pooling
    stays: a channel with a negative scale would turn the largest value into the smallest.
    """
    result = copy.deepcopy(network).eval()
    for module in list(result.modules()):
        for (name, convolution), (follower, norm) in pairwise(list(module.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module.register_module(name, fuse_conv_bn_eval(convolution, norm))
                module.register_module(follower, nn.Identity())
    return result.to(memory_format=torch.channels_last)
