"""Several sets of sensitivity maps, where a field of view smaller than the object folds it over itself."""

import numpy as np
import pytest
import torch

from dipmed.baselines import CGSense
from dipmed.calib.coils import estimate_maps
from dipmed.calib.map_sets import espirit_sets
from dipmed.compare import compare
from dipmed.config import NetworkConfig, find_preset
from dipmed.dip import DeepImagePrior
from dipmed.evaluate import reference_image, score
from dipmed.phantom import Ellipse, brain_phantom_scan, coil_weights, sample_shifted_transforms
from dipmed.recon import reconstruct
from dipmed.scan import DipmedError, KSpaceScan
from dipmed.settings import ReconSettings
from operators import CartesianMRI, NonCartesianMRI, NonUniformFourier, combine_sets, dot_test, make_mask, normal_test
from operators.fourier import centred_ifft

SHAPE = (48, 48)
# a body 1.24 fields of view deep, so that an eighth of a field of view at each end lies over the other end
BODY = [
    Ellipse(0.8, (0.0, 0.0), (0.36, 0.62)),
    Ellipse(-0.5, (0.1, 0.05), (0.12, 0.2), 0.4),
    Ellipse(0.4, (-0.15, -0.3), (0.08, 0.1)),
    Ellipse(-0.3, (0.0, 0.5), (0.1, 0.05)),
    Ellipse(0.3, (0.05, -0.52), (0.08, 0.04)),
]


@pytest.fixture(scope="module")
def folded():
    """Fully sampled k-space in closed form, with the length of the vector of coil images in each voxel."""
    rng = np.random.default_rng(0)
    kspace = np.sqrt(np.prod(SHAPE)) * np.tensordot(coil_weights(8), sample_shifted_transforms(BODY, SHAPE), axes=1)
    drawn = rng.standard_normal((2, *kspace.shape))
    kspace = (kspace + 0.003 * (drawn[0] + 1j * drawn[1])).astype(np.complex64)
    lengths = np.linalg.norm(centred_ifft(torch.from_numpy(kspace), 2).numpy(), axis=0)
    scan = KSpaceScan(
        kspace=kspace[None, None],
        mask=np.ones((1, 1, *SHAPE), dtype=bool),
        affine=np.eye(4),
        image_shape=SHAPE,
        source="test",
    )
    return scan, lengths


@pytest.fixture(scope="module")
def two_sets(folded):
    return estimate_maps(folded[0].kspace[0, 0], np.ones(SHAPE, dtype=bool), n_sets=2)


def test_a_second_set_is_found_where_the_body_lies_over_itself(two_sets):
    second = two_sets.support[1, 0]
    y = np.abs(np.arange(SHAPE[1]) - SHAPE[1] // 2)
    assert second[16:32, y > 20].mean() > 0.95
    assert second[:, y < 14].mean() < 0.02
    gram = np.einsum("scxy,tcxy->xyst", two_sets.cropped.conj(), two_sets.cropped)
    np.testing.assert_allclose(gram[second], np.broadcast_to(np.eye(2), (second.sum(), 2, 2)), atol=1e-5)


def test_two_sets_explain_all_coils_see_and_one_does_not(folded, two_sets):
    kspace, lengths = folded[0].kspace[0, 0], folded[1]
    coils = centred_ifft(torch.from_numpy(kspace), 2)
    errors = {}
    for name, maps in (("one", estimate_maps(kspace, np.ones(SHAPE, dtype=bool)).cropped), ("two", two_sets.cropped)):
        A = CartesianMRI(torch.from_numpy(maps), torch.ones(SHAPE, dtype=torch.bool))
        explained = centred_ifft(A(A.adjoint(torch.from_numpy(kspace))), 2)
        errors[name] = float((explained - coils).norm() / coils.norm())
    assert errors["two"] < 0.06 < 0.15 < errors["one"]
    image, support = reference_image(kspace, n_sets=2)
    np.testing.assert_allclose(np.abs(image)[support], lengths[support], atol=0.03 * lengths.max())


def test_two_sets_beat_one_by_far_when_undersampled(folded):
    kspace, lengths = torch.from_numpy(folded[0].kspace[0, 0]), folded[1]
    mask = make_mask("equispaced:R=2,acs=20,seed=0", SHAPE)
    psnr = {}
    for n_sets in (1, 2):
        found = estimate_maps((kspace * mask).numpy(), mask.numpy(), n_sets=n_sets)
        A = CartesianMRI(torch.from_numpy(found.cropped), mask)
        image = combine_sets(CGSense(lam=0.001)(kspace * mask, A).image)
        psnr[n_sets] = score(image[0].numpy(), lengths).psnr
    assert psnr[2] > psnr[1] + 6


def test_the_first_of_one_set_is_what_the_usual_way_finds():
    scan, _ = brain_phantom_scan((48, 40), 5, noise=0.002)
    mask = make_mask("random:R=2,acs=16,seed=0", (48, 40)).numpy()
    kspace = scan.kspace[0, 0] * mask
    one, two = (estimate_maps(kspace, mask, n_sets=n) for n in (1, 2))
    assert two.support[0, 0][one.support].all()
    only_one = one.support & ~two.support[1, 0]
    agree = np.abs((one.cropped.conj() * two.cropped[0]).sum(axis=0))[only_one]
    assert only_one.mean() > 0.3
    assert np.quantile(agree, 0.01) > 0.999
    # the phase reference is the same as well
    angles = np.angle((one.cropped.conj() * two.cropped[0]).sum(axis=0))[only_one]
    assert np.quantile(np.abs(angles), 0.99) < 0.01


@pytest.mark.parametrize("shape", [(24, 18), (9, 8)])
def test_the_covariance_of_a_voxel_is_that_of_its_definition(shape):
    """Against the sum over kernels in each voxel."""
    rng = np.random.default_rng(0)
    kspace = (rng.standard_normal((3, *shape)) + 1j * rng.standard_normal((3, *shape))).astype(np.complex64)
    maps, values = espirit_sets(kspace, 8, 4, 0.3, 3, crop=2.0)
    region = kspace[:, shape[0] // 2 - 4 : shape[0] // 2 + 4, shape[1] // 2 - 4 : shape[1] // 2 + 4]
    blocks = np.stack([region[:, i : i + 4, j : j + 4].ravel() for i in range(5) for j in range(5)])
    _, singular, rows = np.linalg.svd(blocks, full_matrices=False)
    kernels = rows[singular > 0.3 * singular.max()].reshape(-1, 3, 4, 4)
    for x, y in ((0, 0), (3, 5), (shape[0] - 1, 2)):
        turns = np.add.outer(
            np.arange(4) * (x - shape[0] // 2) / shape[0], np.arange(4) * (y - shape[1] // 2) / shape[1]
        )
        seen = (kernels * np.exp(2j * np.pi * turns)).sum(axis=(-1, -2)) / 4
        covariance = np.einsum("ka,kb->ab", seen, seen.conj())
        found = maps[:, :, x, y]
        np.testing.assert_allclose(found.conj() @ covariance @ found.T, np.diag(values[:, 0, x, y]), atol=1e-4)


def test_sets_of_a_volume_are_those_of_its_positions():
    rng = np.random.default_rng(0)
    kspace = np.zeros((4, 6, 16, 16), dtype=np.complex64)
    kspace[:] = rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)
    found = estimate_maps(kspace, np.ones(kspace.shape[1:], dtype=bool), n_sets=2)
    assert found.maps.shape == (2, 4, 6, 16, 16)
    assert found.support.shape == (2, 1, 6, 16, 16)
    gram = np.einsum("scxyz,tcxyz->xyzst", found.cropped.conj(), found.cropped)
    second = found.support[1, 0]
    np.testing.assert_allclose(gram[second], np.broadcast_to(np.eye(2), (second.sum(), 2, 2)), atol=1e-4)


def test_operators_of_sets_sum_what_the_sets_show():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn((2, 3, 8, 6), dtype=torch.complex128, generator=generator)
    positions = (torch.rand((40, 2), generator=generator) - 0.5) * torch.tensor([8.0, 6.0])
    mask = torch.rand(8, 6, generator=generator) < 0.5
    for make in (lambda m: CartesianMRI(m, mask), lambda m: NonCartesianMRI(m, positions)):
        A = make(maps)
        x = A.domain.randn(dtype=torch.complex128, generator=generator)
        assert x.shape == (2, 8, 6)
        torch.testing.assert_close(A(x), make(maps[0])(x[:1]) + make(maps[1])(x[1:]))
        assert dot_test(A, generator, (2,), torch.complex128) < 1e-12
        assert normal_test(A, generator, (2,), torch.complex128) < 1e-4
        assert A.with_mask(A.mask).domain == A.domain


def test_combined_sets_have_the_length_of_the_coil_vector():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((3, 5, 4), dtype=torch.complex64, generator=generator)
    combined = combine_sets(image)
    torch.testing.assert_close(combined.abs()[0], image.norm(dim=0))
    torch.testing.assert_close(combined.angle()[0], image[0].angle())
    assert combine_sets(image[:1]).data_ptr() == image.data_ptr()
    torch.testing.assert_close(combine_sets(image.real)[0], image.real.norm(dim=0))


def test_every_method_takes_two_sets(folded):
    scan, lengths = folded
    settings = ReconSettings(
        map_sets=2,
        undersample="random:R=2,acs=16,seed=0",
        changes={"iterations": 150, "network": NetworkConfig((16, 16, 16), 8, 8)},
        device="cpu",
    )
    rows = {row["method"]: row for row in compare(scan, None, settings).rows}
    assert set(rows) == {"zero-filled", "cg-sense", "l1-wavelet", "tv", "dip"}
    for name in ("cg-sense", "l1-wavelet", "tv", "dip"):
        assert rows[name]["psnr"] > rows["zero-filled"]["psnr"] + 2, name
    result = reconstruct(scan, ReconSettings(method="cg-sense", map_sets=2, device="cpu"))
    assert result.volume.data.shape == (*SHAPE, 1)
    assert score(result.volume.data[..., 0], lengths).psnr > 28


def test_sets_along_a_trajectory(folded):
    scan, lengths = folded
    coils = centred_ifft(torch.from_numpy(scan.kspace[0, 0]), 2)
    axes = [torch.arange(n) - n // 2 for n in SHAPE]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2).float()
    samples = NonUniformFourier((8, *SHAPE), positions)(coils).numpy()
    along = scan.replace(kspace=samples[None, None], mask=None, trajectory=positions.numpy()[None])
    psnr = {}
    for n_sets in (1, 2):
        result = reconstruct(along, ReconSettings(method="cg-sense", map_sets=n_sets, device="cpu"))
        psnr[n_sets] = score(result.volume.data[..., 0], lengths).psnr
    assert psnr[2] > psnr[1] + 4


def test_the_fit_of_two_sets_returns_both(two_sets, folded):
    A = CartesianMRI(torch.from_numpy(two_sets.cropped), make_mask("random:R=2,acs=20,seed=0", SHAPE))
    y = torch.from_numpy(folded[0].kspace[0, 0]) * A.mask
    config = find_preset("mri-2d").replace(iterations=5, network=NetworkConfig((8, 8), 4, 4))
    assert DeepImagePrior(config)(y, A).image.shape == (2, *SHAPE)


def test_what_cannot_be(folded):
    kspace, full = folded[0].kspace[0, 0], np.ones(SHAPE, dtype=bool)
    with pytest.raises(DipmedError, match="1 to 8 sets"):
        estimate_maps(kspace, full, n_sets=9)
    with pytest.raises(DipmedError, match="not by jsense"):
        estimate_maps(kspace, full, "jsense", n_sets=2)
    with pytest.raises(DipmedError, match="a file holds one set"):
        reconstruct(folded[0], ReconSettings(map_sets=2, maps="maps.npy", device="cpu"))
