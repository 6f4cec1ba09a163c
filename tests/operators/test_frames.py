import pytest
import torch

from operators import CartesianMRI, Frames, NonCartesianMRI, ShapeError, make_mask, radial

SHAPE = (12, 10)


def maps_of(generator, *front):
    maps = torch.randn(*front, 3, *SHAPE, dtype=torch.complex64, generator=generator)
    return maps / maps.abs().square().sum(-3, keepdim=True).sqrt()


def series(kind, generator):
    if kind == "cartesian":
        return Frames(
            [CartesianMRI(maps_of(generator), make_mask(f"random:R=2,acs=2,seed={i}", SHAPE)) for i in (0, 1)]
        )
    if kind == "two sets":
        maps = maps_of(generator, 2)
        return Frames([CartesianMRI(maps, make_mask(f"random:R=2,acs=2,seed={i}", SHAPE)) for i in (0, 1, 2)])
    spokes = radial(SHAPE, 10, golden=True).reshape(2, -1, 2)
    return Frames([NonCartesianMRI(maps_of(generator), frame) for frame in spokes])


@pytest.mark.parametrize("kind", ["cartesian", "two sets", "radial"])
def test_each_frame_goes_its_own_way(generator, kind):
    A = series(kind, generator)
    x = A.domain.randn((4,), generator=generator)
    y = A(x)
    for frame, image, data in zip(A.operators, A.images_of(x), A.data_of(y), strict=True):
        torch.testing.assert_close(frame(image), data)
    torch.testing.assert_close(A.N(x), A.adjoint(y), rtol=1e-3, atol=1e-4)
    z = A.range.randn((4,), generator=generator)
    torch.testing.assert_close((y * z.conj()).sum(), (x * A.adjoint(z).conj()).sum(), rtol=1e-3, atol=1e-3)
    assert A.mask.shape == A.range.shape[1:]
    assert all(along.shape == A.mask.shape for along in A.positions)


def test_a_mask_of_all_frames_leaves_samples_out(generator):
    A = series("cartesian", generator)
    mask = torch.rand(A.mask.shape, generator=generator) < 0.5
    x = A.domain.randn(generator=generator)
    torch.testing.assert_close(A.with_mask(mask & A.mask)(x), A(x) * mask)


def test_frames_of_different_sizes_are_refused(generator):
    frame = series("cartesian", generator).operators[0]
    other = CartesianMRI(maps_of(generator)[:2], frame.mask)
    with pytest.raises(ShapeError, match="one domain and one range"):
        Frames([frame, other])
    with pytest.raises(ShapeError, match="got 0"):
        Frames([])
