"""What the network sees: noise, the zero-filled image, or a short total-variation reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor

from dipmed.config import FitConfig
from dipmed.dip.problem import Problem
from dipmed.nets import to_channels
from operators import FiniteDifferences, LinearOperator

_NOISE_CHANNELS = 32
_NOISE_SCALE = 0.1


def make_input(problem: Problem, config: FitConfig, generator: torch.Generator) -> Tensor:
    """Join the configured inputs along channels, images first, real ``(1, channel, x, y[, z])``.

    Noise is uniform on [0, 0.1) in 32 channels, as D. Ulyanov et al. publish it (doi:10.1007/s11263-020-01303-4).
    """
    channels = []
    for name in sorted(config.inputs, key=lambda name: name == "noise"):
        if name == "noise":
            shape = (1, _NOISE_CHANNELS, *problem.adjoint_data.shape[1:])
            channels.append(_NOISE_SCALE * torch.rand(shape, generator=generator).to(problem.y.device))
        else:
            zero_filled = problem.A_fit.adjoint(problem.y_fit)
            image = zero_filled if name == "zero-filled" else total_variation_image(problem.A_fit, zero_filled)
            channels.append(to_channels(image[None]))
    return torch.cat(channels, 1)


@torch.no_grad()
def total_variation_image(
    A: LinearOperator, adjoint_data: Tensor, weight: float = 2e-3, iterations: int = 150
) -> Tensor:
    """Minimise ``½‖Ax − y‖² + weight ‖∇x‖₁`` by a primal-dual iteration, ``(1, x, y[, z])``.

    Only the normal operator is applied, once an iteration. Step sizes assume a norm of A of at most one, which
    normalised sensitivity maps and an orthonormal transform give (I. Loris, C. Verhoeven, 2011,
    doi:10.1088/0266-5611/27/12/125007).
    """
    gradient = FiniteDifferences(tuple(adjoint_data.shape[1:]))
    n_axes = adjoint_data.ndim - 1
    dual_step = 1 / (4.0 * n_axes)  # the squared norm of the gradient is at most 4 an axis
    x = adjoint_data
    dual = torch.zeros_like(gradient(x))
    for _ in range(iterations):
        descent = x - (A.N(x) - adjoint_data)
        dual = dual + dual_step * gradient(descent - gradient.adjoint(dual))
        dual = dual / torch.clamp(dual.abs().square().sum(0, keepdim=True).sqrt() / weight, min=1.0)
        x = descent - gradient.adjoint(dual)
    return x
