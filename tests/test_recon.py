"""Scans along a trajectory on their way to an image, where the object is known."""

import numpy as np
import pytest
import torch

from dipmed.compare import compare
from dipmed.jobs import jobs
from dipmed.phantom import brain_phantom_scan
from dipmed.prepare import join_frames, prepare
from dipmed.recon import reconstruct
from dipmed.scan import DipmedError, KSpaceScan
from dipmed.settings import ReconSettings
from operators import NonUniformFourier, radial

MATRIX = (48, 40)
N_SPOKES = 64


@pytest.fixture(scope="module")
def radial_scan():
    """Two frames of golden-angle spokes of one head, and its image."""
    _, truth = brain_phantom_scan(MATRIX, n_coils=5)
    spokes = radial(MATRIX, 2 * N_SPOKES, golden=True)
    positions = spokes.reshape(2, -1, 2)
    images = torch.from_numpy(truth.maps * truth.image[0])
    kspace = np.stack([NonUniformFourier((5, *MATRIX), frame)(images).numpy() for frame in positions])
    noise = np.random.default_rng(0).standard_normal((2, *kspace.shape)).astype(np.float32)
    kspace = kspace + 0.002 * np.abs(kspace).max() * (noise[0] + 1j * noise[1])
    scan = KSpaceScan(
        kspace=kspace[:, None].astype(np.complex64),
        mask=None,
        affine=np.eye(4),
        image_shape=MATRIX,
        source="test",
        frame_labels=({"contrast": 0}, {"contrast": 1}),
        trajectory=positions.float().numpy(),
        n_readouts=N_SPOKES,
    )
    return scan, np.abs(truth.image[0])


def error(image, truth):
    image = np.abs(image)
    return np.linalg.norm(image * (image * truth).sum() / (image**2).sum() - truth) / np.linalg.norm(truth)


def test_each_frame_becomes_an_image(radial_scan):
    scan, truth = radial_scan
    result = reconstruct(scan, ReconSettings(method="cg-sense", device="cpu"))
    assert result.volume.data.shape == (*MATRIX, 1, 2)
    for frame in range(2):
        assert error(result.volume.data[:, :, 0, frame], truth) < 0.15


def test_the_operator_has_norm_one_and_takes_weighted_samples(radial_scan):
    scan, truth = radial_scan
    job = next(jobs(prepare(scan, ReconSettings()), ReconSettings(), torch.device("cpu")))
    assert error(job.A.adjoint(job.y)[0].numpy(), truth) < 0.3
    x = job.A.domain.randn(generator=torch.Generator().manual_seed(0))
    for _ in range(30):
        x = job.A.N(x) / x.norm()
    assert 0.8 < float(x.norm()) <= 1


def test_joined_frames_are_one_acquisition(radial_scan):
    scan, _ = radial_scan
    joined = join_frames(scan)
    assert joined.kspace.shape == (1, 1, 5, 2 * scan.kspace.shape[-1])
    assert joined.n_readouts == 2 * N_SPOKES
    first = scan.kspace.shape[-1]
    assert np.array_equal(joined.kspace[0, 0, :, first:], scan.kspace[1, 0])
    assert np.array_equal(joined.trajectory[0, first:], scan.trajectory[1])


def test_undersampling_keeps_whole_readouts(radial_scan):
    scan, _ = radial_scan
    few = prepare(scan, ReconSettings(undersample="equispaced:R=4,acs=0,seed=0"))
    n_samples = scan.kspace.shape[-1] // N_SPOKES
    assert few.n_readouts == N_SPOKES // 4
    assert few.kspace.shape[-1] == n_samples * few.n_readouts
    spokes = few.trajectory[0].reshape(few.n_readouts, n_samples, 2)
    everything = scan.trajectory[0].reshape(N_SPOKES, n_samples, 2)
    assert all((everything == spoke).all(axis=(1, 2)).any() for spoke in spokes)


def test_methods_are_compared_along_a_trajectory(radial_scan):
    scan, _ = radial_scan
    settings = ReconSettings(
        undersample="equispaced:R=4,acs=0,seed=0", join_frames=True, changes={"iterations": 60}, device="cpu"
    )
    rows = {row["method"]: row for row in compare(scan, ["zero-filled", "cg-sense", "tv", "dip"], settings).rows}
    assert rows["cg-sense"]["psnr"] > rows["zero-filled"]["psnr"]
    assert rows["tv"]["psnr"] > rows["zero-filled"]["psnr"]
    assert rows["dip"]["psnr"] > rows["zero-filled"]["psnr"] + 2


def test_a_trajectory_beyond_half_the_matrix_is_refused(radial_scan):
    scan, _ = radial_scan
    outside = scan.replace(trajectory=scan.trajectory * 1.2)
    with pytest.raises(DipmedError, match="half the matrix"):
        reconstruct(outside, ReconSettings(method="zero-filled", device="cpu"))


def test_a_trajectory_with_gaps_is_no_reference(radial_scan):
    scan, _ = radial_scan
    few = prepare(scan, ReconSettings(undersample="equispaced:R=4,acs=0,seed=0"))
    with pytest.raises(DipmedError, match="not fully sampled"):
        compare(few, ["zero-filled"], ReconSettings(device="cpu"))


@pytest.mark.parametrize(
    ("change", "settings", "match"),
    [
        ({}, {"mask": "mask.npy"}, "has a trajectory"),
        ({"n_readouts": None}, {"undersample": "random:R=4,acs=0"}, "differ in length"),
        ({}, {"undersample": "random:R=4,acs=0,partial=0.75"}, "partial leave out parts of a Cartesian grid"),
    ],
)
def test_choices_that_do_not_fit_a_trajectory_are_refused(radial_scan, change, settings, match):
    with pytest.raises(DipmedError, match=match):
        prepare(radial_scan[0].replace(**change), ReconSettings(**settings))


def test_frames_on_a_grid_cannot_be_joined():
    scan, _ = brain_phantom_scan((32, 32), n_coils=2)
    with pytest.raises(DipmedError, match="Cartesian"):
        prepare(scan, ReconSettings(join_frames=True))


@pytest.mark.parametrize(
    "settings",
    [
        ReconSettings(method="cg-sense", device="cpu"),
        ReconSettings(method="cg-sense", mode="3d", device="cpu"),
        ReconSettings(method="time-dependent", changes={"iterations": 3}, device="cpu"),
    ],
)
def test_a_slice_without_a_sample_that_is_not_zero_costs_no_other(radial_scan, settings):
    scan, truth = radial_scan
    empty = scan.replace(kspace=np.concatenate([scan.kspace, 0 * scan.kspace], axis=1))
    result = reconstruct(empty, settings)
    assert np.isfinite(result.volume.data).all()
    if settings.mode == "3d":
        assert error(result.volume.data[:, :, 0, 1], truth) < 0.15
        return
    assert result.volume.data[:, :, 0, 1].any()
    assert not result.volume.data[:, :, 1].any()
    assert [part.status for part in result.reconstructions] == ["done", "filled"] * 2
    assert result.warnings[1] == "slice 1 of frame 1 was filled with zeros, because all its samples are zero"
