"""A network as the theory sees it: its image, its tangent kernel, and gradient descent without a linear model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from dipmed.nets import crop_to
from dipmed.scan import DipmedError, ShapeError
from dipmed.theory.stacked import Stacked
from operators import LinearOperator


class TangentModel:
    """``f(θ) ≈ x₀ + J (θ − θ₀)``, with J the Jacobian of a network's image, and the operator that measures the image.

    The network is not changed and is evaluated in double precision. Parameters that do not require a gradient are
    constants, as in a fit.

    Parameters
    ----------
    network
        Gives real channels, as the networks of `dipmed.nets` do; sizes beyond the operator's are cropped.
    z
        What it sees, ``(1, channel, x, y[, z])``.
    A
        The operator.
    chunk
        Vectors that are sent through the Jacobian at a time. Memory grows with it, by that of the network's features
        and weights for each.

    Attributes
    ----------
    start
        ``x₀``, ``(n,)``, as `Stacked.vector` orders it.

    Raises
    ------
    ShapeError
        When the network does not give an image of the operator's domain.
    DipmedError
        When nothing in the network can be trained, or its output depends on more than weights and input.

    References
    ----------
    A. Jacot, F. Gabriel, C. Hongler, "Neural tangent kernel", NeurIPS 2018, arXiv:1806.07572.
    """

    def __init__(self, network: nn.Module, z: Tensor, A: LinearOperator, *, chunk: int = 64) -> None:
        _check_network(network)
        self.stacked = Stacked(A)
        self.chunk = chunk
        self.network = network
        self.z = z.detach().double()
        self.weights = {k: p.detach().double() for k, p in network.named_parameters() if p.requires_grad}
        if not self.weights:
            raise DipmedError("no parameter of the network requires a gradient: there is nothing to fit")
        frozen = {k: p for k, p in network.named_parameters() if not p.requires_grad} | dict(network.named_buffers())
        self._constants = {k: v.detach().double() if v.is_floating_point() else v for k, v in frozen.items()}
        self.start, self._pull = vjp(self.output, self.weights)[:2]
        if not torch.equal(self.start, self.output(self.weights)):
            raise DipmedError("the network gives another image each time; switch its dropout off with .eval()")

    def output(self, weights: dict[str, Tensor]) -> Tensor:
        """Return the image of these weights as a vector ``(n,)``."""
        channels = functional_call(self.network, {**weights, **self._constants}, (self.z,))
        shape = self.stacked.shape
        fits = channels.ndim == len(shape) + 1 and channels.shape[:2] == (1, shape[0])
        if not fits or any(have < need for have, need in zip(channels.shape[2:], shape[1:], strict=True)):
            raise ShapeError(
                f"for images {self.stacked.A.domain.shape} the network must give {(1, *shape)}, "
                f"got {tuple(channels.shape)}"
            )
        return crop_to(channels, shape[1:]).flatten()

    def kernel(self, vectors: Tensor) -> Tensor:
        """Apply the tangent kernel ``K = J Jᵀ`` to images ``(batch, n)``, without ever storing J."""

        def one(vector: Tensor) -> Tensor:
            (direction,) = self._pull(vector)
            return jvp(self.output, (self.weights,), (direction,))[1]

        with warnings.catch_warnings():  # torch warns of a part of its own that it loads here
            warnings.simplefilter("ignore", DeprecationWarning)
            return vmap(one, chunk_size=self.chunk)(vectors).detach()

    def through_kernel(self, vectors: Tensor) -> Tensor:
        """Apply ``K Aᵀ`` to data ``(batch, m)``, giving images ``(batch, n)``."""
        return self.kernel(self.stacked.adjoint(vectors))


def gradient_descent(model: TangentModel, y: Tensor, rate: float) -> Iterator[Tensor]:
    """Yield the images of gradient descent on ``½‖A f(θ) − y‖²``, without end; the first is that of the start.

    This is the real network, which the linear model approximates.

    Parameters
    ----------
    model
        Where it starts.
    y
        Data, one element of the operator's range.
    rate
        Length of a step; `Spectrum.rate` is one that is stable at the start.
    """
    stacked = model.stacked
    data = stacked.data_vector(y)
    weights = model.weights
    while True:
        weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
        output = model.output(weights)
        vector = output.detach()
        yield stacked.image(vector)
        push = stacked.adjoint(stacked.forward(vector[None]) - data)[0]
        gradients = torch.autograd.grad(output, list(weights.values()), push)
        with torch.no_grad():
            moved = zip(weights.items(), gradients, strict=True)
            weights = {name: value - rate * gradient for (name, value), gradient in moved}


def _check_network(network: nn.Module) -> None:
    if any(isinstance(module, _BatchNorm) and module.training for module in network.modules()):
        raise DipmedError(
            "batch normalisation in training mode changes its own state on each call, and has no Jacobian; "
            "use group or instance normalisation, or .eval()"
        )
