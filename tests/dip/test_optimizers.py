import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dipmed.config import FitConfig
from dipmed.dip.optimizers import (
    ConvolutionMuon,
    cosine_decay,
    make_optimizers,
    orthogonalise,
    remember_rates,
    set_rate,
)


@given(st.integers(4, 40), st.integers(4, 40), st.integers(0, 99))
def test_orthogonalised_matrices_have_singular_values_near_one(rows, columns, seed):
    matrices = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed))
    # the iteration brings small singular values up only so far; those of a random matrix above a tenth arrive
    before = torch.linalg.svdvals(matrices)
    after = torch.linalg.svdvals(orthogonalise(matrices))
    relative = before / before.norm(dim=-1, keepdim=True)
    assert bool((after[relative > 0.1] > 0.5).all())
    assert float(after.max()) < 1.3


def test_the_gram_matrix_alone_leads_where_the_iteration_leads():
    x = torch.randn(3, 8, 30, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    step = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = step @ step.mT
        step = 3.4445 * step + (-4.7750 * gram + 2.0315 * gram @ gram) @ step
    torch.testing.assert_close(orthogonalise(x), step, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(orthogonalise(x.float()), step.float(), rtol=1e-4, atol=1e-4)


def test_orthogonalising_keeps_the_singular_vectors():
    matrix = torch.randn(6, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    cosine = torch.sum(orthogonalise(matrix) * (u @ vh)) / (u @ vh).square().sum()
    assert float(cosine) == pytest.approx(1.0, abs=0.3)
    rotated = u.T @ orthogonalise(matrix) @ vh.T
    off_diagonal = rotated - torch.diag(torch.diag(rotated))
    assert float(off_diagonal.abs().max()) < 1e-9


def test_first_update_is_the_orthogonalised_gradient():
    kernel = torch.nn.Parameter(torch.zeros(8, 2, 3, 3))
    kernel.grad = torch.randn(8, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    ConvolutionMuon([kernel], lr=0.1).step()
    expected = -0.1 * orthogonalise(kernel.grad.flatten(1)).view(8, 2, 3, 3)
    torch.testing.assert_close(kernel.detach(), expected, rtol=1e-4, atol=1e-6)


def test_kernels_of_equal_shape_update_as_they_would_alone():
    gradients = torch.randn(2, 8, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    together = [torch.nn.Parameter(torch.zeros(8, 4, 3, 3)) for _ in range(2)]
    alone = [torch.nn.Parameter(torch.zeros(8, 4, 3, 3)) for _ in range(2)]
    for kernels in (together, alone):
        for kernel, gradient in zip(kernels, gradients, strict=True):
            kernel.grad = gradient.clone()
    ConvolutionMuon(together, lr=0.1).step()
    for kernel in alone:
        ConvolutionMuon([kernel], lr=0.1).step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b)


def test_parameters_are_shared_out_once_each():
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 16, 3), torch.nn.GroupNorm(8, 16), torch.nn.Conv2d(16, 2, 1))
    optimizers = make_optimizers(network, FitConfig(optimizer="muon"))
    owned = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(owned) == sorted(id(p) for p in network.parameters())
    muon = next(o for o in optimizers if isinstance(o, ConvolutionMuon))
    assert [p.shape for p in muon.param_groups[0]["params"]] == [network[0].weight.shape]
    assert len(make_optimizers(network, FitConfig(optimizer="adam"))) == 1


def test_rates_follow_their_own_start():
    network = torch.nn.Conv2d(2, 16, 3)
    optimizers = make_optimizers(network, FitConfig(rate=0.5, adam_rate=0.25))
    remember_rates(optimizers)
    set_rate(optimizers, 0.5)
    set_rate(optimizers, 0.1)
    assert sorted(g["lr"] for o in optimizers for g in o.param_groups) == pytest.approx([0.025, 0.05])


def test_cosine_decay_runs_from_one_to_zero():
    assert cosine_decay(0) == 1
    assert cosine_decay(0.5) == pytest.approx(0.5)
    assert cosine_decay(1) == pytest.approx(0)
    assert cosine_decay(2) == pytest.approx(0)
    assert [cosine_decay(progress, 0.2) for progress in (0, 0.5, 1, 2)] == pytest.approx([1, 0.6, 0.2, 0.2])
