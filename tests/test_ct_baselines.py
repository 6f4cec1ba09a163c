import math

import pytest
import torch

from dipmed.ct_baselines import CT_BASELINES, SIRT, CGTotalVariation, LeastSquares
from dipmed.scan import DipmedError, ShapeError
from operators import (
    ConeBeam,
    FanBeam,
    FilteredProjector,
    Grid,
    ParallelBeam,
    SliceProjector,
    StackedProjector,
    VolumeProjector,
    angles_over,
    block_means,
    subdivided,
    total_variation,
)


def phantom(grid: Grid) -> torch.Tensor:
    x, y = (torch.from_numpy(grid.coordinates(axis)).float() for axis in (0, 1))
    x, y = x[:, None], y[None, :]
    body = (x / 20) ** 2 + (y / 16) ** 2 < 1
    bone = ((x - 8).abs() < 3) & ((y + 3).abs() < 4)
    return 0.02 * (body.float() + bone.float())[None]


@pytest.fixture(scope="module")
def scan():
    """Few views of a slice with sharp edges, with noise."""
    grid = Grid((48, 40), (1.0, 1.2))
    A = SliceProjector(grid, FanBeam(angles_over(18, 2 * math.pi), 60, 2.0, 100.0, 200.0))
    truth = phantom(grid)
    noise = 0.01 * torch.randn(A.range.shape, generator=torch.Generator().manual_seed(0))
    return A(truth) + noise, A, truth


def error(image, truth):
    return float((image - truth).norm() / truth.norm())


@pytest.mark.parametrize("name", CT_BASELINES)
def test_attenuation_comes_out_in_its_unit(scan, name):
    y, A, truth = scan
    result = CT_BASELINES[name]()(y, A)
    assert result.method == name
    assert result.image.shape == truth.shape
    assert result.image.dtype == torch.float32
    assert float(result.image.sum()) == pytest.approx(float(truth.sum()), rel=0.03)
    assert error(result.image, truth) < 0.35


def test_more_knowledge_gives_a_better_image(scan):
    y, A, truth = scan
    errors = {name: error(make()(y, A).image, truth) for name, make in CT_BASELINES.items()}
    assert errors["cg-tv"] < 0.7 * errors["sirt"] < 0.7 * errors["fbp"]


def test_exact_data_are_solved_exactly():
    grid = Grid((24, 20), (1.0, 1.0))
    A = SliceProjector(grid, ParallelBeam(angles_over(60), 40, 1.0))
    truth = phantom(grid)
    y = A(truth)
    assert error(LeastSquares(lam=1e-7, max_iter=500)(y, A).image, truth) < 0.02
    assert error(SIRT(iterations=2000)(y, A).image, truth) < 0.03


def test_total_variation_is_at_its_minimum(scan):
    y, A, _ = scan
    solver = CGTotalVariation(lam=1e-3, coupling=5e-3, max_iter=400, tol=1e-6, subpixels=1)
    found = solver(y, A)
    norm = float(torch.linalg.matrix_norm(A(torch.eye(A.domain.size).reshape(-1, *A.domain.shape)).flatten(1), 2))

    def objective(image):
        x = image * found.scale
        n = x.numel()
        penalty = 1e-3 * n * float(total_variation(x, 2, 1e-9))
        return 0.5 * float((A(x) - y * found.scale).square().sum()) / norm**2 + penalty

    best = objective(found.image)
    generator = torch.Generator().manual_seed(0)
    for size in (0.3, 0.03, 0.01):
        step = size * found.image.abs().max() * torch.randn(found.image.shape, generator=generator)
        assert objective((found.image + step).clamp(min=0)) > best
    for factor in (0.97, 1.03):
        assert objective(found.image * factor) > best
    assert float(found.image.min()) >= 0


def test_parts_of_pixels_find_the_mean_of_what_lies_within_them():
    """A slice with more detail than its pixels hold, measured by cells with a width."""
    grid = Grid((24, 20), (2.0, 2.4))
    beam = FanBeam(angles_over(18, 2 * math.pi), 60, 2.0, 100.0, 200.0)
    fine = subdivided(grid, 6)
    y, truth = SliceProjector(fine, beam, weights="strip")(phantom(fine)), block_means(phantom(fine), 6, (1, 2))
    A = SliceProjector(grid, beam)
    for one, data, expected in (
        (A, y, truth),
        (StackedProjector(A, 3), y[:, :, None].repeat(1, 1, 3, 1), truth[..., None].repeat(1, 1, 1, 3)),
    ):
        whole, parts = (error(CGTotalVariation(lam=5e-5, subpixels=n)(data, one).image, expected) for n in (1, 2))
        assert parts < 0.7 * whole


def test_pixels_stay_whole_where_the_matrices_would_be_large(scan):
    y, A, _ = scan
    whole = CGTotalVariation(subpixels=1)(y, A).image
    assert torch.equal(CGTotalVariation(matrices_gib=1e-4)(y, A).image, whole)
    assert not torch.equal(CGTotalVariation()(y, A).image, whole)


def test_no_negative_values(scan):
    y, A, _ = scan
    assert float(SIRT()(y, A).image.min()) >= 0
    assert float(CGTotalVariation()(y, A).image.min()) >= 0


@pytest.mark.parametrize("name", CT_BASELINES)
def test_wrong_data_are_refused(scan, name):
    y, A, _ = scan
    with pytest.raises(ShapeError, match=r"one element of"):
        CT_BASELINES[name]()(y[:, :-1], A)
    with pytest.raises(DipmedError, match="not finite"):
        CT_BASELINES[name]()(y * float("nan"), A)


def test_empty_projections_are_refused(scan):
    y, A, _ = scan
    with pytest.raises(DipmedError, match="back-projection is zero"):
        CGTotalVariation()(torch.zeros_like(y), A)


def test_a_filtered_operator_is_solved_by_the_same_solver(scan):
    from dipmed.solvers import total_variation_image

    y, A, truth = scan
    F = FilteredProjector(A)
    weighted = F.weigh(y) / 0.04
    image, changes = total_variation_image(F, F.adjoint(weighted), 3e-3, coupling=0.03, max_iter=60, inner=4)
    assert error(image * 0.04, truth) < 0.2
    assert changes[-1][1] < changes[0][1]


@pytest.fixture(scope="module", params=["circle", "helix"])
def volume(request):
    """Few views of a volume with sharp edges, with noise."""
    grid = Grid((26, 24, 20), (1.0, 1.1, 1.0))
    x, y, z = torch.meshgrid(*[torch.from_numpy(grid.coordinates(axis)).float() for axis in range(3)], indexing="ij")
    body = (x / 11) ** 2 + (y / 10) ** 2 + (z / 8) ** 2 < 1
    bone = ((x - 4).abs() < 2) & ((y + 2).abs() < 2.5) & (z.abs() < 4)
    truth = 0.02 * (body.float() + bone.float())[None]
    heights = tuple(-3 + 6 * view / 11 for view in range(12)) if request.param == "helix" else ()
    A = VolumeProjector(grid, ConeBeam(angles_over(12, 2 * math.pi), 28, 34, 2.0, 2.0, 100.0, 200.0, z_mm=heights))
    noise = 0.005 * torch.randn(A.range.shape, generator=torch.Generator().manual_seed(0))
    return A(truth) + noise, A, truth


@pytest.mark.parametrize("name", CT_BASELINES)
def test_volumes_are_reconstructed_in_their_unit(volume, name):
    y, A, truth = volume
    if name == "fbp" and not A.beam.is_circular:
        with pytest.raises(DipmedError, match="choose sirt, cg-tv or dip"):
            CT_BASELINES[name]()(y, A)
        return
    result = CT_BASELINES[name]()(y, A)
    assert result.image.shape == truth.shape
    assert float(result.image.sum()) == pytest.approx(float(truth.sum()), rel=0.03)
    assert error(result.image, truth) < {"fbp": 0.3, "cg-ls": 0.25, "sirt": 0.18, "cg-tv": 0.11}[name]
