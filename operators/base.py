"""Linear operators on torch tensors: domain and range, adjoint, composition, and the adjoint as backward pass."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from operators.errors import ShapeError


@dataclass(frozen=True)
class Space:
    """The set of arrays that an operator takes or gives, without the batch axes in front.

    Parameters
    ----------
    shape
        Sizes of the trailing axes, e.g. ``(1, x, y)`` for an image or ``(coil, x, y)`` for k-space.
    is_complex
        Whether elements are complex. Precision is that of the tensor that comes.
    """

    shape: tuple[int, ...]
    is_complex: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if not self.shape or min(self.shape) < 1:
            raise ShapeError(f"a space needs positive sizes, got {self.shape}")

    def check(self, x: Tensor, what: str) -> None:
        """Raise `ShapeError` unless the trailing axes and the kind of ``x`` are this space's."""
        if tuple(x.shape[-len(self.shape) :]) != self.shape:
            raise ShapeError(f"{what} expects (batch..., {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        if x.is_complex() != self.is_complex:
            kind = "complex" if self.is_complex else "real"
            raise ShapeError(f"{what} expects {kind} numbers, got {x.dtype}")

    def randn(
        self,
        batch: tuple[int, ...] = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw a standard normal element, ``(batch..., *shape)``; the default precision is single."""
        dtype = dtype or (torch.complex64 if self.is_complex else torch.float32)
        # drawn where the generator lives, so that one seed gives one element on every device
        source = generator.device if generator is not None else device
        return torch.randn(batch + self.shape, dtype=dtype, device=source, generator=generator).to(device or source)

    @property
    def size(self) -> int:
        """Number of elements without the batch."""
        return math.prod(self.shape)


class _Apply(torch.autograd.Function):
    """Apply an operator (or its adjoint); the backward pass is the other one, itself differentiable."""

    @staticmethod
    def forward(x: Tensor, operator: LinearOperator, adjoint: bool) -> Tensor:
        if not x.numel():  # an empty batch, which not every library takes
            source, target = operator.domain, operator.range
            source, target = (target, source) if adjoint else (source, target)
            empty = x.new_zeros(x.shape[: x.ndim - len(source.shape)] + target.shape)
            return empty.to(x.dtype.to_complex() if target.is_complex else x.dtype.to_real())
        return operator._adjoint(x) if adjoint else operator._forward(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, LinearOperator, bool], output: Tensor) -> None:
        _, ctx.operator, ctx.is_adjoint = inputs

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return _apply(grad_outputs[0], ctx.operator, not ctx.is_adjoint), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _apply(tangents[0], ctx.operator, ctx.is_adjoint)

    @staticmethod
    def vmap(
        _info: Any, in_dims: tuple[Any, ...], x: Tensor, operator: LinearOperator, adjoint: bool
    ) -> tuple[Tensor, int]:
        # every operator takes batch axes in front, so the mapped axis becomes one of them
        return _apply(x.movedim(in_dims[0], 0), operator, adjoint), 0


def _apply(x: Tensor, operator: LinearOperator, adjoint: bool) -> Tensor:
    if torch.compiler.is_compiling() and operator.traceable:
        # the compiler takes no Function with a forward mode; differentiating the torch calls gives the same adjoint
        return operator._adjoint(x) if adjoint else operator._forward(x)
    return _Apply.apply(x, operator, adjoint)  # type: ignore[no-untyped-call]


class LinearOperator(nn.Module, ABC):
    """A linear map with a declared domain and range and an exact adjoint.

    Subclasses write `_forward` and `_adjoint` for tensors with any batch axes in front; both get a checked
    tensor. Calls are differentiable any number of times because the gradient of each is a call of the other.

    Parameters
    ----------
    domain, range
        The `Space` of inputs and of outputs.

    Examples
    --------
    >>> import torch
    >>> from operators import FourierTransform
    >>> F = FourierTransform((1, 8, 6), ndim=2)
    >>> x = F.domain.randn((3,))
    >>> bool(torch.allclose(F.H(F(x)), x, atol=1e-5))
    True
    """

    traceable = True
    """Whether `_forward` and `_adjoint` are torch code alone, which autograd and the compiler can follow."""

    def __init__(self, domain: Space, range: Space) -> None:
        super().__init__()
        self.domain = domain
        self.range = range

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor: ...

    def _normal(self, x: Tensor) -> Tensor:
        """``AᴴA x``; a subclass that knows a cheaper way overrides this."""
        return self._adjoint(self._forward(x))

    @property
    def device(self) -> torch.device:
        """Where the operator's arrays are; the CPU for one that has none."""
        return next((buffer.device for buffer in self.buffers()), torch.device("cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator to ``(batch..., *domain.shape)``.

        Raises
        ------
        ShapeError
            When the trailing axes or the kind of number are not the domain's.
        """
        self.domain.check(x, f"{self!r}")
        return _apply(x, self, False)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the adjoint to ``(batch..., *range.shape)``.

        Raises
        ------
        ShapeError
            When the trailing axes or the kind of number are not the range's.
        """
        self.range.check(y, f"the adjoint of {self!r}")
        return _apply(y, self, True)

    @property
    def H(self) -> LinearOperator:
        """The adjoint as an operator; ``A.H.H is A``."""
        return Adjoint(self)

    @property
    def N(self) -> LinearOperator:
        """The normal operator ``AᴴA``, by the cheapest way that the operator knows."""
        return Normal(self)

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return Composition(self, other)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return Sum(self, other)

    def __mul__(self, factor: complex) -> LinearOperator:
        if not isinstance(factor, (int, float, complex)):
            return NotImplemented
        return Scaled(self, factor)

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return Scaled(self, -1.0)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return self + (-other)

    def extra_repr(self) -> str:
        return f"{self.domain.shape} -> {self.range.shape}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class Adjoint(LinearOperator):
    """The adjoint of an operator, as an operator."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.range, operator.domain)
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._adjoint(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._forward(y)

    @property
    def H(self) -> LinearOperator:
        return self.operator

    def extra_repr(self) -> str:
        return repr(self.operator)


class Normal(LinearOperator):
    """``AᴴA``, self-adjoint."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.domain, operator.domain)
        self.operator = operator

    def _forward(self, x: Tensor) -> Tensor:
        return self.operator._normal(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.operator._normal(y)

    @property
    def H(self) -> LinearOperator:
        return self

    def extra_repr(self) -> str:
        return repr(self.operator)


class Composition(LinearOperator):
    """``left @ right``: first ``right``, then ``left``."""

    def __init__(self, left: LinearOperator, right: LinearOperator) -> None:
        if left.domain != right.range:
            raise ShapeError(f"cannot compose: {left!r} takes {left.domain}, but {right!r} gives {right.range}")
        super().__init__(right.domain, left.range)
        self.left = left
        self.right = right

    def _forward(self, x: Tensor) -> Tensor:
        return self.left._forward(self.right._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.right._adjoint(self.left._adjoint(y))

    def _normal(self, x: Tensor) -> Tensor:
        return self.right._adjoint(self.left._normal(self.right._forward(x)))

    def extra_repr(self) -> str:
        return f"{self.left!r} @ {self.right!r}"


class Sum(LinearOperator):
    """``left + right``."""

    def __init__(self, left: LinearOperator, right: LinearOperator) -> None:
        if (left.domain, left.range) != (right.domain, right.range):
            raise ShapeError(f"cannot add {left!r} and {right!r}: domains and ranges must be equal")
        super().__init__(left.domain, left.range)
        self.left = left
        self.right = right

    def _forward(self, x: Tensor) -> Tensor:
        return self.left._forward(x) + self.right._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.left._adjoint(y) + self.right._adjoint(y)

    def extra_repr(self) -> str:
        return f"{self.left!r} + {self.right!r}"


class Scaled(LinearOperator):
    """``factor * operator``."""

    def __init__(self, operator: LinearOperator, factor: complex) -> None:
        if isinstance(factor, complex) and not operator.domain.is_complex:
            raise ShapeError(f"cannot scale {operator!r} by the complex factor {factor}: its domain is real")
        super().__init__(operator.domain, operator.range)
        self.operator = operator
        self.factor = factor

    def _forward(self, x: Tensor) -> Tensor:
        return self.factor * self.operator._forward(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        factor = self.factor.conjugate() if isinstance(self.factor, complex) else self.factor
        return factor * self.operator._adjoint(y)

    def _normal(self, x: Tensor) -> Tensor:
        return abs(self.factor) ** 2 * self.operator._normal(x)

    def extra_repr(self) -> str:
        return f"{self.factor} * {self.operator!r}"
