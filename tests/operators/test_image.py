"""Operators on images: blur against scipy and its moments, thick slices against what lies in them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from operators import Blur, DipmedError, Identity, ImageMask, Separable, ShapeError, SliceProfile, operator_norm


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 2),
    lengths=st.tuples(*[st.sampled_from([1, 3, 7])] * 2),
    boundary=st.sampled_from(["reflect", "zero"]),
    seed=st.integers(0, 999),
)
def test_a_blur_is_a_convolution(shape, lengths, boundary, seed):
    rng = np.random.default_rng(seed)
    image, kernels = rng.standard_normal(shape), [rng.standard_normal(n) for n in lengths]
    expected = image
    for axis, kernel in enumerate(kernels):
        mode = "reflect" if boundary == "reflect" else "constant"
        expected = ndimage.convolve1d(expected, kernel, axis, mode=mode)
    blur = Blur((1, *shape), [torch.from_numpy(kernel) for kernel in kernels], boundary)
    np.testing.assert_allclose(blur(torch.from_numpy(image)[None])[0], expected, atol=1e-12)


def test_a_gaussian_has_its_width_in_millimetres():
    spacing, fwhm = (0.5, 2.0, 1.0), (4.0, 9.0, 0.0)
    blur = Blur.gaussian((1, 41, 31, 3), fwhm, spacing)
    point = torch.zeros(blur.domain.shape, dtype=torch.float64)
    point[0, 20, 15, 1] = 1
    spread = blur(point)[0]
    assert float(spread.sum()) == pytest.approx(1)
    assert not spread[..., [0, 2]].any()
    for axis in (0, 1):
        place = (np.arange(spread.shape[axis]) - (20, 15)[axis]) * spacing[axis]
        share = spread.sum(dim=tuple({0, 1, 2} - {axis})).numpy()
        # of the Gaussian, and of the voxel that it is averaged over
        variance = (fwhm[axis] / 2.3548) ** 2 + spacing[axis] ** 2 / 12
        assert share @ place**2 == pytest.approx(variance, rel=5e-3)


def test_a_constant_image_keeps_its_value_unless_there_is_nothing_around_it():
    ones = torch.ones(1, 12, 9)
    reflected = Blur.gaussian((1, 12, 9), (5.0, 5.0), (1.0, 1.0))
    torch.testing.assert_close(reflected(ones), ones)
    assert operator_norm(reflected) == pytest.approx(1, abs=1e-3)
    alone = Blur.gaussian((1, 12, 9), (3.0, 3.0), (1.0, 1.0), "zero")(ones)
    assert float(alone[0, 6, 4]) == pytest.approx(1, abs=1e-3)
    assert float(alone[0, 0, 0]) < 0.5


@pytest.mark.parametrize("profile", ["rectangular", "gaussian"])
@pytest.mark.parametrize("factor", [1, 2, 3, 2.5])
@pytest.mark.parametrize("axis", [0, 2])
def test_slices_lie_where_their_affine_says(profile, factor, axis):
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3] = rng.standard_normal((3, 4))
    shape = [4, 5, 6]
    shape[axis] = 24
    A = SliceProfile((1, *shape), factor, 1.5, 2.0, profile, axis=axis)
    # an image of the first coordinate, in millimetres: its mean over a symmetric profile is that of the slice's middle
    places = np.einsum("i,ixyz->xyz", affine[0, :3], np.indices(shape)) + affine[0, 3]
    coarse = A.coarse_affine(affine)
    np.testing.assert_allclose(A.fine_affine(coarse), affine, atol=1e-9)
    indices = np.indices(A.range.shape[1:])
    expected = np.einsum("i,ixyz->xyz", coarse[0, :3], indices) + coarse[0, 3]
    found = A(torch.from_numpy(places)[None])[0].numpy()
    inner = [slice(None)] * 3
    inner[axis] = slice(2, -2)  # a profile that reaches beyond the volume is not symmetric
    # a voxel that a profile cuts in two pulls as a whole: part of a voxel, where slices do not keep step with voxels
    atol = 1e-4 if factor == int(factor) else 0.15 * abs(affine[0, axis])
    np.testing.assert_allclose(found[tuple(inner)], expected[tuple(inner)], atol=atol)


def test_slices_side_by_side_are_means_of_their_voxels():
    x = torch.randn(1, 3, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(SliceProfile(x.shape, 3)(x), x.unflatten(-1, (3, 3)).mean(-1))
    # thinner slices, with gaps, see the voxel in their middle; thicker ones overlap
    torch.testing.assert_close(SliceProfile(x.shape, 3, 2.0, 2.0)(x), x[..., 1::3])
    thick = SliceProfile(x.shape, 3, 2.0, 10.0)(x)
    torch.testing.assert_close(thick[..., 1], x[..., 2:7].mean(-1))
    torch.testing.assert_close(thick[..., 0], x[..., :4].mean(-1))


def test_the_profile_of_a_gaussian_is_half_as_high_at_half_its_width():
    A = SliceProfile((1, 2, 401), 401, 0.1, 10.0, "gaussian")
    weights = A.matrices[1][0]
    assert float(weights[200 + 50] / weights[200]) == pytest.approx(0.5, abs=1e-3)


def test_a_mask_keeps_voxels_and_the_identity_keeps_all():
    mask = torch.tensor([[True, False, True], [False, True, True]])
    x = torch.randn(2, 1, 2, 3)
    A = ImageMask(mask)
    assert torch.equal(A(x), x * mask)
    assert torch.equal(A.with_mask(~mask)(x) + A(x), x)
    assert torch.equal(Identity((1, 2, 3))(x), x)
    assert torch.equal(Identity((1, 2, 3)).with_mask(mask)(x), A(x))
    assert Identity((1, 2, 3), is_complex=True).with_mask(mask).domain.is_complex


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Identity((2, 4, 4)), ShapeError, r"\(1, x, y\)"),
        (lambda: ImageMask(torch.ones(4, 4)), ShapeError, "bool"),
        (lambda: Separable((1, 4, 4), [None]), ShapeError, "as many axes"),
        (lambda: Separable((1, 4, 4), [torch.ones(2, 3), None]), ShapeError, r"real \(n, 4\)"),
        (lambda: Blur((1, 4, 4), [torch.ones(2), None]), ShapeError, "odd length"),
        (lambda: Blur((1, 4, 4), [torch.ones(3)]), ShapeError, "2 kernels"),
        (lambda: Blur((1, 4, 4), [None, None], "wrap"), DipmedError, "reflect or zero"),
        (lambda: Blur.gaussian((1, 4, 4), (-1.0, 1.0), (1.0, 1.0)), DipmedError, "width"),
        (lambda: Blur.gaussian((1, 4, 4), (1.0, 1.0), (0.0, 1.0)), DipmedError, "voxel size"),
        (lambda: SliceProfile((1, 4, 4, 8), 9), ShapeError, "1 to 8 voxels apart"),
        (lambda: SliceProfile((1, 4, 4, 8), math.nan), ShapeError, "voxels apart"),
        (lambda: SliceProfile((1, 4, 4, 8), 2, axis=3), ShapeError, "axis 0 to 2"),
        (lambda: SliceProfile((1, 4, 4, 8), 2, 1.0, 0.0), DipmedError, "thickness"),
        (lambda: SliceProfile((1, 4, 4, 8), 2, profile="sinc"), DipmedError, "rectangular or gaussian"),
    ],
)
def test_bad_input_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()
