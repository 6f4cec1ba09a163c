"""Images without negative values, none of whose parts of pixels stays dark."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SHARPNESS = 50.0
"""Of the bend at zero: it is about 1 % of a CT image's peak wide."""

_DARK = 0.5
"""Share of the mean of all parts of pixels below which one is dark."""


def without_negatives(image: Tensor, n_parts: int = 1) -> Tensor:
    """Bend what is below zero up to it, ``log(1 + exp(βx)) / β``; of a real image ``(copy, set, x, y[, z])``.

    Far below zero the bend has no slope. A part of all pixels, which is one channel of the network, can come there with
    the first steps, and has no way back: the other parts grow bright to make up for it, and the image is displaced by a
    fraction of a pixel. So a part that is much darker than the others has the gradient of an image without a bend,
    until it is brighter (as that of Y. Bengio et al., 2013, arXiv:1308.3432, passes straight through).

    Parameters
    ----------
    n_parts
        Parts along each of the first two axes of a pixel.
    """
    bent = functional.softplus(image, beta=_SHARPNESS)
    if n_parts == 1:
        return bent
    straight = image + (bent - image).detach()
    return torch.where(_is_dark(bent.detach(), n_parts), straight, bent)


def _is_dark(image: Tensor, n: int) -> Tensor:
    """Where the parts are that are dark in all pixels together, bool, of the image's shape."""
    n_copies, n_sets, n_x, n_y, *rest = image.shape
    parts = image.reshape(n_copies, n_sets, n_x // n, n, n_y // n, n, *rest)
    means = parts.mean((2, 4, *range(6, parts.ndim)), keepdim=True)
    dark = means < _DARK * means.mean((3, 5), keepdim=True)
    return dark.expand_as(parts).flatten(4, 5).flatten(2, 3)
