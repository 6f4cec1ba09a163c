"""A 3-D acquisition as slices across its readout: places, noise, maps and what cannot be split."""

import numpy as np
import pytest
import torch

from dipmed.calib.readout import split_readout
from dipmed.compare import compare
from dipmed.io import load
from dipmed.prepare import prepare
from dipmed.recon import reconstruct
from dipmed.scan import DipmedError, KSpaceScan
from dipmed.settings import ReconSettings
from operators.fourier import centred_fft, centred_ifft

SHAPE = (20, 28, 24)
ENCODED = (32, *SHAPE[1:])
AFFINE = np.array([[0, -1.5, 0.2, 10], [2, 0.3, 0, -30], [0.1, 0, 3, 5], [0, 0, 0, 1.0]])
MARK = (13, 9, 17)


def volume_scan(n_coils=4, noise=0.01, **fields):
    """Coils with plane-wave sensitivities around a box, with one voxel far brighter, twofold oversampled along x."""
    places = np.meshgrid(*(np.arange(n) - n // 2 for n in SHAPE), indexing="ij")
    image = np.zeros(SHAPE)
    image[3:17, 6:22, 5:19] = 1
    image[MARK] = 5
    rng = np.random.default_rng(0)
    turns = rng.uniform(-0.4, 0.4, (n_coils, 3))
    maps = np.array([np.exp(2j * np.pi * sum(t * p / n for t, p, n in zip(turn, places, SHAPE, strict=True)))
                     for turn in turns]) / np.sqrt(n_coils)  # fmt: skip
    coils = np.zeros((n_coils, *ENCODED), dtype=complex)
    coils[:, 6:26] = maps * image
    drawn = rng.standard_normal((2, *coils.shape)) * noise / np.sqrt(2)
    kspace = centred_fft(torch.from_numpy(coils), 3).numpy() + drawn[0] + 1j * drawn[1]
    mask = np.ones((1, 1, *ENCODED), dtype=bool)
    scan = KSpaceScan(
        kspace=kspace[None, None].astype(np.complex64), mask=mask, affine=AFFINE, image_shape=SHAPE, source="test"
    )
    return scan.replace(**fields), image


def brightest(volume):
    index = np.unravel_index(np.abs(volume.data).argmax(), volume.data.shape)
    return volume.affine @ [*index, 1]


def test_a_voxel_is_at_the_same_place_both_ways():
    scan, image = volume_scan(noise_covariance=np.eye(4) * 0.01**2)
    whole = reconstruct(scan, ReconSettings(method="zero-filled", device="cpu"))
    settings = ReconSettings(method="zero-filled", split_readout=True, device="cpu")
    slices = reconstruct(scan, settings)
    assert slices.volume.data.shape == (*SHAPE[1:], SHAPE[0])
    assert slices.preset == "mri-2d"
    np.testing.assert_allclose(brightest(whole.volume), AFFINE @ [*MARK, 1], atol=1e-9)
    np.testing.assert_allclose(brightest(slices.volume), AFFINE @ [*MARK, 1], atol=1e-9)
    # with the same maps, the images are the same
    moved = np.abs(np.moveaxis(slices.volume.data, -1, 0))
    inside = image > 0
    np.testing.assert_allclose(moved[inside], np.abs(whole.volume.data)[inside], rtol=0.02)
    assert np.linalg.det(slices.volume.affine) == pytest.approx(np.linalg.det(AFFINE))
    # positions before and after the object are air, and stay black
    assert not moved[[0, 19]].any()
    few = reconstruct(scan, ReconSettings(method="zero-filled", split_readout=True, slices=(12, 15), device="cpu"))
    np.testing.assert_allclose(brightest(few.volume), AFFINE @ [*MARK, 1], atol=1e-9)


def test_samples_are_those_of_the_slices_and_noise_stays_what_it_was():
    scan, image = volume_scan(noise=0, calibration=volume_scan(noise=0)[0].kspace * 2, noise_covariance=np.eye(4))
    slices = split_readout(scan)
    assert slices.kspace.shape == (1, 20, 4, 28, 24)
    assert slices.image_shape == (28, 24)
    images = np.linalg.norm(centred_ifft(torch.from_numpy(slices.kspace[0]), 2).numpy(), axis=1)
    np.testing.assert_allclose(images, image, atol=1e-5)
    np.testing.assert_allclose(slices.calibration, slices.kspace * 2, atol=1e-5)
    assert slices.noise_covariance is scan.noise_covariance
    pure, _ = volume_scan(noise=0.3)
    noise = split_readout(pure.replace(kspace=pure.kspace - scan.kspace)).kspace
    assert np.abs(noise).std() == pytest.approx(0.3 * np.sqrt(1 - np.pi / 4), rel=0.03)


def test_lines_that_were_not_sampled_stay_empty():
    scan, _ = volume_scan()
    mask = scan.mask & (np.random.default_rng(1).random(SHAPE[1:]) < 0.4)
    slices = split_readout(scan.replace(kspace=scan.kspace * mask[:, :, None], mask=mask))
    assert np.array_equal(slices.mask, np.repeat(mask[:, :, 0], 20, axis=1))
    assert not slices.kspace[~np.broadcast_to(slices.mask[:, :, None], slices.kspace.shape)].any()


def test_a_partial_echo_keeps_a_scan_in_three_dimensions():
    scan, _ = volume_scan()
    mask = scan.mask.copy()
    mask[:, :, :10] = False
    with pytest.raises(DipmedError, match=r"of 32 samples along x, lines hold 22.*in 3-D"):
        split_readout(scan.replace(mask=mask))


def test_what_is_no_3d_acquisition_cannot_be_split(tmp_path):
    scan, _ = volume_scan()
    with pytest.raises(DipmedError, match="is 2-D"):
        split_readout(split_readout(scan))
    varying = np.ones(SHAPE, dtype=bool)
    varying[:3] = False
    np.save(tmp_path / "mask.npy", varying)
    with pytest.raises(DipmedError, match="parts of the readout"):
        prepare(scan, ReconSettings(split_readout=True, mask=tmp_path / "mask.npy"))
    with pytest.raises(DipmedError, match="--split-readout"):
        prepare(scan, ReconSettings(slices=(0, 2)))


def test_maps_of_a_volume_serve_its_slices(tmp_path):
    scan, image = volume_scan(noise=0)
    coils = centred_ifft(torch.from_numpy(scan.kspace[0, 0]), 3).numpy()[:, 6:26]
    maps = np.where(image > 0, coils / np.where(image > 0, image, 1), 0).astype(np.complex64)
    np.save(tmp_path / "maps.npy", maps[None])
    settings = ReconSettings(method="zero-filled", split_readout=True, maps=str(tmp_path / "maps.npy"), device="cpu")
    found = np.moveaxis(reconstruct(scan, settings).volume.data, -1, 0)
    np.testing.assert_allclose(np.abs(found)[image > 0], image[image > 0], rtol=1e-3)


def test_a_simulated_head_is_compared_slice_by_slice(data_dir):
    scan = load(data_dir / "sim3d_mc6/ksp.cfl")
    settings = ReconSettings(split_readout=True, mask=data_dir / "sim3d_mc6/mask_yz.npy", slices=(26, 27), device="cpu")
    result = compare(scan, ["zero-filled", "cg-sense"], settings)
    assert result.reference.shape == (64, 48)
    zero_filled, cg = (row["psnr"] for row in result.rows)
    assert cg > zero_filled + 1
