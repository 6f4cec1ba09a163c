"""How far the output is from the input, in the form and the units of the data term."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dipmed.nets import to_channels
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


def distance_from_input(fit: Fit, prediction: Tensor) -> Tensor:
    """Return ``‖x − z‖`` in the form that `FitConfig.data_loss` names, relative to the data like the data term.

    One weight then suits data of any size: the operator's norm is 1, so the data are about as large as the image.

    Parameters
    ----------
    fit
        Holds the input z, one image as channels.
    prediction
        The image x, ``(1, set, x, y[, z])``.
    """
    difference = to_channels(prediction) - fit.input
    energy = fit.problem.energy
    if fit.config.data_loss == "squares":
        return difference.square().sum() / energy
    if fit.config.data_loss == "norm":
        return torch.linalg.vector_norm(difference) / energy.sqrt()
    return difference.abs().sum() / energy


def check_one_image(fit: Fit) -> None:
    """Refuse an input that is no single image and cannot be compared with the output.

    Raises
    ------
    DipmedError
        When its channels are others than the output's.
    """
    if fit.input.shape[1] != fit.n_channels:
        raise DipmedError(
            f"{fit.method.name} compares its input with its output, so the input has to be one image, for example "
            f"inputs=cg; got inputs={','.join(fit.config.inputs)}"
        )
