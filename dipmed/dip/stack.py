"""Networks of one kind, one for each slice, as rows of a matrix: run as one grouped program, moved by one step.

A row holds all weights of a slice's network; beside it lie the rows of what the optimizers remember. The network of the
slice is a view of its row, so that whatever asks a fit for its network finds the weights of the moment.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dipmed.config import FitConfig
from dipmed.dip.compiling import Program
from dipmed.dip.optimizers import (
    ADAM_BETAS,
    ADAM_EPS,
    MUON_MOMENTUM,
    is_orthogonalised,
    orthogonalise,
    rate_for,
    split_parameters,
)
from dipmed.nets import UNet
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass(frozen=True)
class Layout:
    """Where in a row the weights of each layer lie.

    Kernels of one shape that are orthogonalised lie together, first; the others, which Adam moves, follow.

    Attributes
    ----------
    places
        Of each parameter by name, in the order of the row: its shape.
    blocks
        ``(first, count, rows, columns)`` of the kernels of each shape that are orthogonalised.
    n_kernels, n_weights
        Weights in these blocks, and in all.
    """

    places: dict[str, torch.Size]
    blocks: tuple[tuple[int, int, int, int], ...]
    n_kernels: int
    n_weights: int

    @classmethod
    def of(cls, network: nn.Module, config: FitConfig) -> Layout:
        """Sort the parameters of a network by what moves them."""
        kernels: dict[tuple[int, int], list[str]] = defaultdict(list)
        others: list[str] = []
        shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        for name, parameter in network.named_parameters():
            if is_orthogonalised(parameter, config):
                kernels[parameter.shape[0], parameter[0].numel()].append(name)
            else:
                others.append(name)
        blocks, first = [], 0
        for (rows, columns), names in kernels.items():
            blocks.append((first, len(names), rows, columns))
            first += len(names) * rows * columns
        order = [*(name for names in kernels.values() for name in names), *others]
        total = sum(math.prod(shape) for shape in shapes.values())
        return cls({name: shapes[name] for name in order}, tuple(blocks), first, total)

    def parts(self, weights: Tensor) -> dict[str, Tensor]:
        """Cut rows ``(slice, weight)`` into parameters of a network of as many copies."""
        pieces = torch.split(weights, [math.prod(shape) for shape in self.places.values()], 1)
        return {
            name: piece.reshape(len(weights) * shape[0], *shape[1:])
            for piece, (name, shape) in zip(pieces, self.places.items(), strict=True)
        }


class Row(torch.optim.Optimizer):
    """The place of a slice, in the shape of an optimizer: a fit finds its rates here, and what recovery puts back.

    Parameters
    ----------
    stack, number
        Where it is.
    fit
        Whose weights it takes over; they become views of the row. The steps are those of the whole stack.

    Raises
    ------
    DipmedError
        When it is not like the others.
    """

    def __init__(self, stack: Stack, number: int, fit: Fit) -> None:
        kernels, others = split_parameters(fit.network, fit.config)
        groups = [{"params": kernels, "lr": fit.config.rate}, {"params": others, "lr": fit.config.adam_rate}]
        super().__init__(groups, {})
        if kind_of(fit) != stack.kind:
            raise DipmedError("fits that run as one need the same network and images of one shape")
        self.stack = stack
        self.number = number
        self.steps = 0
        for values in stack.state.values():
            values[number].zero_()
        named = dict(fit.network.named_parameters())
        first = 0
        for name, shape in stack.layout.places.items():
            view = stack.weights[number, first : first + math.prod(shape)].view(shape)
            named[name].data = view.copy_(named[name].data)
            first += math.prod(shape)

    def release(self) -> None:
        """Give the network weights of its own again, before another one takes the place."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data.clone()

    @property
    def rates(self) -> list[float]:
        """Of the kernels and of all else, now."""
        return [group["lr"] for group in self.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Copy what the steps remember of this slice."""
        return {"steps": self.steps, **{name: values[self.number].clone() for name, values in self.stack.state.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put it back."""
        self.steps = state_dict["steps"]
        for name, values in self.stack.state.items():
            values[self.number].copy_(state_dict[name])


class Stack:
    """Rows for so many slices, and what runs and moves them.

    Parameters
    ----------
    n_rows
        How many slices there may be at a time.
    fit
        Of a slice; the networks and the settings of the optimizers are those of all.
    program
        What compiles the two functions that do the work, if anything does.

    Attributes
    ----------
    at_once
        Slices that are run as one; compiled programs are for this number, and run it full.
    """

    def __init__(self, n_rows: int, fit: Fit, program: Program) -> None:
        self.kind = kind_of(fit)
        self.layout = Layout.of(fit.network, fit.config)
        self.config = fit.config.network
        self.n_in, self.n_out, self.ndim = fit.input.shape[1], fit.n_channels, len(fit.shape)
        self.block = fit.config.subpixels
        self.memory_format = fit.memory_format
        self.autocast = fit.autocast
        self.at_once = n_rows
        self.program = program
        n_others = self.layout.n_weights - self.layout.n_kernels
        # the last row is nobody's: it fills up what runs at once
        self.weights = torch.zeros(n_rows + 1, self.layout.n_weights, device=fit.device)
        sizes = {"momentum": self.layout.n_kernels, "mean": n_others, "square": n_others}
        self.state = {name: torch.zeros(n_rows + 1, size, device=fit.device) for name, size in sizes.items()}
        self._networks: dict[int, UNet] = {}
        self._run = program(self._forward)
        self._move = program(self._update)

    def forward(self, rows: Sequence[Row], seen: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Run the networks of some slices, each on what it sees, ``(1, channel, x, y[, z])``.

        Returns
        -------
        weights, channels
            Those that were run, for `step`, once they have a gradient; and what came out of each.
        """
        places = self._places(rows)
        empty = [torch.zeros_like(seen[0])] * (len(places) - len(rows))
        weights = self.weights[places].requires_grad_()
        inputs = torch.cat([*seen, *empty], 1).contiguous(memory_format=self.memory_format)
        network = self._network(len(places))
        with self.autocast:
            channels = self._run(network, weights, inputs)
        # compiled programs write to the same memory at the next call
        channels = channels.float().clone() if self.program.compiles else channels.float()
        return weights, list(torch.split(channels, self.n_out, 1))[: len(rows)]

    @torch.no_grad()
    def step(self, rows: Sequence[Row], weights: Tensor) -> None:
        """Move these slices by the gradient of their weights, each at its own rates."""
        assert weights.grad is not None  # noqa: S101  # a backward pass has come before
        places = self._places(rows)
        factors = [[*row.rates, *(1 - beta ** (row.steps + 1) for beta in ADAM_BETAS)] for row in rows]
        factors += [[0.0, 0.0, 1.0, 1.0]] * (len(places) - len(rows))
        on_device = torch.tensor(factors, dtype=torch.float32).to(weights.device, non_blocking=True)
        momentum, mean, square = (values[places] for values in self.state.values())
        moved = self._move(weights.detach(), weights.grad, momentum, mean, square, on_device)
        for target, values in zip((self.weights, *self.state.values()), moved, strict=True):
            target.index_copy_(0, places, values)
        for row in rows:
            row.steps += 1

    def _places(self, rows: Sequence[Row]) -> Tensor:
        numbers = [row.number for row in rows]
        if self.program.compiles:
            numbers += [len(self.weights) - 1] * (self.at_once - len(numbers))
        return torch.tensor(numbers).to(self.weights.device, non_blocking=True)

    def _network(self, copies: int) -> UNet:
        """The layers of as many copies, without weights."""
        if copies not in self._networks:
            with torch.device("meta"):
                self._networks[copies] = UNet(
                    self.config, self.n_in, self.n_out, self.ndim, block=self.block, copies=copies
                )
        return self._networks[copies]

    def _forward(self, network: UNet, weights: Tensor, inputs: Tensor) -> Tensor:
        output: Tensor = functional_call(network, self.layout.parts(weights), (inputs,))
        return output

    def _update(
        self, weights: Tensor, gradient: Tensor, momentum: Tensor, mean: Tensor, square: Tensor, factors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weights, momentum, mean and mean square after a step of Muon and Adam, all ``(slice, weight)``.

        ``factors`` are, of each slice, the two rates and what the two averages of Adam have of their full weight.
        """
        rate, adam_rate, of_mean, of_square = (column[:, None] for column in factors.unbind(1))
        sizes = [self.layout.n_kernels, self.layout.n_weights - self.layout.n_kernels]
        (kernels, others), (of_kernels, of_others) = torch.split(weights, sizes, 1), torch.split(gradient, sizes, 1)
        momentum = MUON_MOMENTUM * momentum + of_kernels
        direction = of_kernels + MUON_MOMENTUM * momentum
        parts = []
        for first, count, rows, columns in self.layout.blocks:
            matrices = direction[:, first : first + count * rows * columns].reshape(-1, count, rows, columns)
            parts.append(rate_for(rows, columns) * orthogonalise(matrices).flatten(1))
        kernels = kernels - rate * torch.cat(parts, 1) if parts else kernels
        mean = torch.lerp(mean, of_others, 1 - ADAM_BETAS[0])
        square = ADAM_BETAS[1] * square + (1 - ADAM_BETAS[1]) * of_others.square()
        others = others - adam_rate / of_mean * mean / ((square / of_square).sqrt() + ADAM_EPS)
        return torch.cat([kernels, others], 1), momentum, mean, square


def kind_of(fit: Fit) -> tuple[object, ...]:
    """What fits have in common that can run as one."""
    config = fit.config
    return (
        config.network,
        config.subpixels,
        config.optimizer,
        config.mixed_precision,
        fit.input.shape,
        fit.n_channels,
        fit.device,
    )
