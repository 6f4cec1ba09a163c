import pytest
import torch

from dipmed.dip.data_term import NormalTerm, ResidualTerm, make_data_term
from operators import NonCartesianMRI, radial


@pytest.fixture(scope="module")
def along_spokes():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn((3, 16, 12), dtype=torch.complex64, generator=generator)
    trajectory = radial((16, 12), 9, 20).reshape(-1, 2)
    A = NonCartesianMRI(maps, trajectory, torch.rand(len(trajectory), generator=generator))
    x = A.domain.randn((1,), generator=generator)
    return A, A(x)[0] + 0.1 * A.range.randn(generator=generator), x


@pytest.mark.parametrize("factor", [0.0, 0.9, 2.0])
def test_both_forms_agree(along_spokes, factor):
    A, y, x = along_spokes
    by_residual, by_normal = ResidualTerm(A, y), NormalTerm(A, y)
    value, gradient = by_residual.gradient(factor * x)
    other, other_gradient = by_normal.gradient(factor * x)
    scale = float(by_residual.energy)
    assert float(other) == pytest.approx(float(value), abs=1e-4 * scale)
    assert float(by_normal.value(factor * x)) == pytest.approx(float(other), abs=1e-6 * scale)
    assert float((gradient - other_gradient).norm()) < 1e-4 * float(by_normal.adjoint_data.norm())
    assert float(by_normal.energy) == pytest.approx(scale, rel=1e-5)


def test_a_fit_along_a_trajectory_needs_the_normal_operator_alone(along_spokes, small_scan, monkeypatch):
    A, y, x = along_spokes
    term = make_data_term(A, y)
    monkeypatch.setattr(A.transform, "_transform", None)
    term.gradient(x)
    y, A, _, _ = small_scan
    assert isinstance(make_data_term(A, y), ResidualTerm)
