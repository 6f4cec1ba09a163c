import math

import pytest
import torch

from operators import (
    ConeBeam,
    DipmedError,
    FanBeam,
    FilteredProjector,
    Grid,
    ParallelBeam,
    ShapeError,
    SliceProjector,
    VolumeProjector,
    angles_over,
    operator_norm,
    posed,
)

GRID = Grid((32, 28), (1.0, 1.0))
BEAMS = {
    "parallel": ParallelBeam(angles_over(60), 50, 1.0),
    "fan": FanBeam(angles_over(90, 2 * math.pi), 50, 2.0, 100.0, 200.0),
    "curved": FanBeam(angles_over(90, 2 * math.pi), 50, 2.0, 100.0, 200.0, curved=True),
}
in_all_beams = pytest.mark.parametrize("beam", BEAMS.values(), ids=BEAMS.keys())


def smooth_slice():
    x, y = torch.meshgrid(*[torch.from_numpy(GRID.coordinates(axis)) for axis in (0, 1)], indexing="ij")
    return torch.exp(-((x - 3) ** 2 + y**2) / 30).float()[None]


@in_all_beams
def test_its_normal_operator_is_near_the_identity(beam):
    P = SliceProjector(GRID, beam)
    A = FilteredProjector(P)
    x = smooth_slice()
    assert operator_norm(A, 100) == pytest.approx(1, abs=0.03)

    def distance(image):
        return float((image * (x * image).sum() / image.square().sum() - x).norm() / x.norm())

    assert distance(A.N(x)) < 0.1
    assert distance(P.N(x)) > 3 * distance(A.N(x))


def test_weighing_makes_line_integrals_what_the_operator_gives():
    P = SliceProjector(GRID, BEAMS["fan"])
    A = FilteredProjector(P).with_mask(torch.arange(90)[:, None] < 40)
    x = smooth_slice()
    torch.testing.assert_close(A.weigh(P(x)), A(x))
    assert not A(x)[:, 40:].any()


@pytest.mark.parametrize("exponent", [0, 0.125, 0.5])
def test_rays_are_weighted_before_the_filter(exponent):
    P = SliceProjector(GRID, BEAMS["fan"])
    weights = torch.rand((90, 50)) + 0.1
    A = FilteredProjector(P, exponent=exponent, ray_weights=weights).with_mask(torch.arange(90)[:, None] < 40)
    x = smooth_slice()
    torch.testing.assert_close(A(x), FilteredProjector(P, A.mask, A.factor, exponent=exponent).weigh(weights * P(x)))
    plain = A.unfiltered()
    torch.testing.assert_close(plain(x), plain.factor * A.mask * weights * P(x))
    assert operator_norm(plain, 100) == pytest.approx(1, abs=0.03)


def test_a_higher_exponent_sharpens_the_adjoint():
    P = SliceProjector(GRID, BEAMS["parallel"])
    x = smooth_slice()

    def blur(exponent):
        image = FilteredProjector(P, exponent=exponent).N(x)
        return float((image * (x * image).sum() / image.square().sum() - x).norm() / x.norm())

    assert blur(0.5) < blur(0.25) < blur(0.125) < blur(0)


@pytest.mark.parametrize(
    ("weights", "error", "match"),
    [
        (torch.ones(90, 49), ShapeError, r"real \(90, 50\)"),
        (-torch.ones(90, 50), DipmedError, "not negative"),
        (torch.zeros(90, 50), DipmedError, "above zero"),
        (torch.full((90, 50), math.nan), DipmedError, "finite"),
    ],
)
def test_impossible_weights_are_refused(weights, error, match):
    with pytest.raises(error, match=match):
        FilteredProjector(SliceProjector(GRID, BEAMS["fan"]), ray_weights=weights)


def test_a_mask_of_another_kind_is_refused():
    with pytest.raises(ShapeError, match=r"bool \(90, 1\)"):
        FilteredProjector(SliceProjector(GRID, BEAMS["fan"]), torch.ones(90, dtype=torch.bool))


CONE = ConeBeam(angles_over(24, 2 * math.pi), 18, 20, 2.0, 2.0, 60.0, 120.0)


@pytest.mark.parametrize(
    "beam", [CONE, posed(CONE), posed(ParallelBeam(angles_over(24), 20, 1.0), 18)], ids=["cone", "posed", "parallel"]
)
def test_volumes_are_filtered_along_their_columns(beam):
    P = VolumeProjector(Grid((12, 10, 9), (1.0, 1.0, 1.0)), beam)
    A = FilteredProjector(P)
    assert 0.93 < operator_norm(A, 100) < 1.001
    few = A.with_mask(torch.arange(24)[:, None, None] % 3 > 0)
    x = torch.rand(P.domain.shape)
    torch.testing.assert_close(few.weigh(P(x)), few(x))
    assert not few(x)[:, ::3].any()
    with pytest.raises(ShapeError, match=r"bool \(24, 1, 1\)"):
        FilteredProjector(P, torch.ones((24, 1), dtype=torch.bool))
