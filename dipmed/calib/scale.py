"""One scale for all data, taken from what was measured; a module of its own because the fit needs it without sigpy."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dipmed.scan import DipmedError


def data_scale(zero_filled: Tensor) -> float:
    """Return the factor that brings the data to a common scale, from the measured data alone.

    With ``x = Aᴴy`` it is one over the 99.9th percentile of ``|x|`` where x is not exactly zero, i.e. on the support
    of the maps: bright parts of the image come to about 1, and a few hot pixels or the size of the air around the
    object do not matter. Multiply y with it before and divide the image by it after a reconstruction.

    Parameters
    ----------
    zero_filled
        ``Aᴴy``, ``(1, x, y[, z])``.

    Raises
    ------
    DipmedError
        When the image is zero or not finite.
    """
    magnitude = zero_filled.detach().abs().cpu().numpy()
    if not np.isfinite(magnitude).all():
        raise DipmedError("the zero-filled image holds NaN or infinity; the k-space or the maps are damaged")
    if not magnitude.any():
        raise DipmedError("the zero-filled image is all zero; the k-space is empty or the maps do not cover it")
    return 1.0 / float(np.percentile(magnitude[magnitude > 0], 99.9))
