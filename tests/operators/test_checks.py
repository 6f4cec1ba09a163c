"""The checks must find what is wrong: each is shown an operator with one fault."""

import pytest
import torch
from torch import Tensor

from operators import (
    FourierTransform,
    LinearOperator,
    Sensitivity,
    Space,
    batch_test,
    dot_test,
    gradient_test,
    normal_test,
    operator_norm,
)


class Faulty(LinearOperator):
    """Twice the identity, with one fault that a test chooses."""

    def __init__(self, fault: str = "") -> None:
        super().__init__(Space((8, 8)), Space((8, 8)))
        self.fault = fault

    def _forward(self, x: Tensor) -> Tensor:
        # takes the mean over the batch as well: a batch is then no loop
        return 2 * x + (x.mean() if self.fault == "batch" else 0)

    def _adjoint(self, y: Tensor) -> Tensor:
        result = 2 * y
        if self.fault == "one element":
            result[..., 3, 4] = 0
        return result * (1 + 1e-3j) if self.fault == "adjoint" else result

    def _normal(self, x: Tensor) -> Tensor:
        return 2 * x if self.fault == "normal" else 4 * x


class WrongGradient(Faulty):
    """Its value is right, its gradient is halved."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x) + 0.5 * super().forward(x).detach()


def test_a_right_operator_passes_all(generator: torch.Generator) -> None:
    for check in (dot_test, normal_test, gradient_test, batch_test):
        assert check(Faulty(), generator) < 1e-6


@pytest.mark.parametrize("fault", ["adjoint", "one element"])
def test_a_wrong_adjoint_is_found(fault: str) -> None:
    errors = [dot_test(Faulty(fault), torch.Generator().manual_seed(seed)) for seed in range(5)]
    assert max(errors) > 1e-4


def test_a_wrong_normal_operator_is_found(generator: torch.Generator) -> None:
    assert normal_test(Faulty("normal"), generator) == pytest.approx(0.5)


def test_a_wrong_gradient_is_found(generator: torch.Generator) -> None:
    assert gradient_test(WrongGradient(), generator) > 0.4
    assert gradient_test(Faulty("adjoint"), generator) < 1e-6  # the gradient is the adjoint, right or wrong


def test_a_batch_that_mixes_is_found(generator: torch.Generator) -> None:
    assert batch_test(Faulty("batch"), generator) > 1e-3


def test_the_zero_operator_passes(generator: torch.Generator) -> None:
    zero = 0.0 * Faulty()
    assert [check(zero, generator) for check in (dot_test, normal_test, gradient_test, batch_test)] == [0.0] * 4
    assert operator_norm(zero, generator=generator) == 0.0


def test_the_norm_is_the_largest_singular_value(generator: torch.Generator) -> None:
    maps = torch.randn(3, 4, 5, dtype=torch.complex128, generator=generator)
    largest = float(torch.linalg.vector_norm(maps, dim=0).max())
    estimate = operator_norm(Sensitivity(maps), 200, generator, dtype=torch.complex128)
    assert estimate == pytest.approx(largest, rel=1e-3)
    assert operator_norm(3j * FourierTransform((1, 4, 5), 2), 3, generator) == pytest.approx(3, rel=1e-5)


def test_one_seed_gives_one_figure() -> None:
    op = Sensitivity(torch.randn(3, 4, 5, dtype=torch.complex64))
    assert dot_test(op, torch.Generator().manual_seed(1)) == dot_test(op, torch.Generator().manual_seed(1))
