"""Noise of a given size."""

import pytest
import torch

from operators import DipmedError, add_noise


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.float32])
def test_noise_has_the_standard_deviation_asked_for(dtype: torch.dtype, generator: torch.Generator) -> None:
    y = torch.full((100, 100), 5.0, dtype=dtype)
    noise = add_noise(y, 0.3, generator) - y
    assert noise.dtype == dtype
    assert noise.abs().square().mean().sqrt().item() == pytest.approx(0.3, rel=0.05)
    assert abs(noise.mean().item()) < 0.02


def test_real_and_imaginary_parts_are_equal_and_independent(generator: torch.Generator) -> None:
    noise = add_noise(torch.zeros(20000, dtype=torch.complex64), 1.0, generator)
    covariance = torch.cov(torch.view_as_real(noise).T)
    torch.testing.assert_close(covariance, 0.5 * torch.eye(2), atol=0.02, rtol=0)


def test_one_seed_gives_one_noise() -> None:
    y = torch.zeros(5, dtype=torch.complex64)
    a, b = (add_noise(y, 1.0, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(add_noise(y, 0.0), y)


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_an_impossible_size_is_refused(sigma: float) -> None:
    with pytest.raises(DipmedError, match="finite and not negative"):
        add_noise(torch.zeros(3), sigma)
