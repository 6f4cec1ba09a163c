"""Two-way bridge to sigpy: its linear operators here, with gradients, and those of this package there.

Arrays cross between torch and numpy, so that a bridged operator runs on the CPU wherever its tensors are.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.base import LinearOperator, Space

if TYPE_CHECKING:
    import sigpy


def from_sigpy(linop: sigpy.linop.Linop, device: torch.device | str | None = None) -> LinearOperator:
    """Make an operator of a ``sigpy.linop.Linop``, differentiable and with batch axes in front.

    Parameters
    ----------
    linop
        A sigpy operator that works on complex numpy arrays and has its adjoint.
    device
        Where results are put; by default where the input is.
    """
    return _FromSigpy(linop, device)


def to_sigpy(operator: LinearOperator) -> sigpy.linop.Linop:
    """Make a ``sigpy.linop.Linop`` of an operator, for sigpy's apps; it can be pickled.

    It takes and gives numpy arrays without batch axes; the operator itself may live on any device.
    """
    return _linop_class()(operator)


class _FromSigpy(LinearOperator):
    """A sigpy operator as one of ours."""

    traceable = False

    def __init__(self, linop: sigpy.linop.Linop, device: torch.device | str | None) -> None:
        super().__init__(Space(tuple(linop.ishape)), Space(tuple(linop.oshape)))
        self.linop = linop
        self.result_device = device

    def _forward(self, x: Tensor) -> Tensor:
        return self._loop(self.linop, x, self.domain, self.range)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._loop(self.linop.H, y, self.range, self.domain)

    def _normal(self, x: Tensor) -> Tensor:
        return self._loop(self.linop.N, x, self.domain, self.domain)

    def _loop(self, linop: sigpy.linop.Linop, x: Tensor, source: Space, target: Space) -> Tensor:
        """Apply to each element of the batch; sigpy has no batch axes."""
        batch = x.shape[: x.ndim - len(source.shape)]
        arrays = _to_numpy(x)
        result = torch.empty(batch + target.shape, dtype=x.dtype)
        for index in itertools.product(*map(range, batch)):
            result[index] = torch.from_numpy(np.ascontiguousarray(linop(arrays[index])))
        return result.to(self.result_device or x.device)

    def extra_repr(self) -> str:
        return f"{self.linop!r}"


@functools.cache
def _linop_class() -> Any:
    import sigpy.linop  # heavy (numba), so only when the bridge is crossed

    class _ToSigpy(sigpy.linop.Linop):  # type: ignore[misc]  # sigpy has no type hints
        """An operator of ours as one of sigpy's."""

        def __init__(self, operator: LinearOperator) -> None:
            super().__init__(operator.range.shape, operator.domain.shape, repr_str=repr(operator))
            self.operator = operator

        def _apply(self, input: NDArray[Any]) -> NDArray[Any]:
            with torch.no_grad():
                return _to_numpy(self.operator(_to_tensor(input, self.operator)))

        def _adjoint_linop(self) -> Any:
            return to_sigpy(self.operator.H)

        def _normal_linop(self) -> Any:
            return to_sigpy(self.operator.N)

        def __reduce__(self) -> tuple[Any, ...]:
            # the class is made on first use, so a pickle names the function that makes it
            return to_sigpy, (self.operator,)

    return _ToSigpy


def _to_tensor(array: NDArray[Any], operator: LinearOperator) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if operator.domain.is_complex and not tensor.is_complex():
        tensor = tensor.to(torch.complex128 if tensor.dtype == torch.float64 else torch.complex64)
    return tensor.to(operator.device)


def _to_numpy(x: Tensor) -> NDArray[Any]:
    return x.detach().cpu().resolve_conj().resolve_neg().numpy()
