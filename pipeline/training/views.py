"""Test-time augmentation: the views of an image over which a network's probabilities are averaged."""

from torch import Tensor
from torch.nn.functional import pad

from pipeline.store.sidecar import Tta


def views(images: Tensor, tta: Tta) -> list[Tensor]:
    """The views of uint8 images (B, H, W, 3), each of the same shape; the first is always `images` itself.

    "none" has 1 view.  "flip" has 2: the images and their mirror images.  "flip-shift" has 6: these, and both
    shifted by one pixel up and left, and down and right: the views of Jordan (2024, arXiv:2404.00498), here of equal
    weight.  What comes in
    at the border is black, since the random crops of training have shown black borders to the network; Jordan's
    trained on reflected ones.
    """
    if tta == "none":
        return [images]
    shown = [images]
    if tta == "flip-shift":
        height, width = images.shape[1:3]
        padded = pad(images, (0, 0, 1, 1, 1, 1))
        shown += [padded[:, first : first + height, first : first + width].contiguous() for first in (2, 0)]
    return shown + [view.flip(2) for view in shown]
