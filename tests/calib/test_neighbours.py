"""How much neighbouring slices differ, against images from which that is known."""

import numpy as np
import pytest
import torch

from dipmed.calib.neighbours import slice_change
from dipmed.scan import KSpaceScan, ProjectionScan
from operators import FanBeam, Grid, ParallelBeam, SliceProjector, StackedProjector, angles_over, centred_fft


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def change_of(images):
    """Of images ``(x, y, z)``, from the images themselves."""
    energy = (np.abs(images) ** 2).sum((0, 1))
    return np.sqrt(2 * (np.abs(np.diff(images, axis=2)) ** 2).sum() / (energy[1:] + energy[:-1]).sum())


def kspace_of(images, mask=None):
    """Two coils, ``(1, z, 2, x, y)``."""
    coils = np.stack([images, 0.5j * images]).transpose(3, 0, 1, 2)
    kspace = centred_fft(torch.from_numpy(coils), 2).numpy().astype(np.complex64)[None]
    full = np.ones((1, images.shape[2], *images.shape[:2]), bool)
    mask = full if mask is None else full & mask
    return KSpaceScan(kspace * mask[:, :, None], mask, np.eye(4), images.shape[:2], "test")


def balls(shift, n=48, n_slices=5):
    """A plate with a ball that moves from slice to slice."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, k) for k in (n, n, n_slices)], indexing="ij")
    return (x**2 + y**2 < 0.7).astype(np.float32) + ((x - shift * z) ** 2 + y**2 < 0.15)


def lines_of(images, beam):
    A = StackedProjector(SliceProjector(Grid(images.shape[:2], (1.0, 1.0)), beam), images.shape[2])
    lines = A.data_of(A(torch.from_numpy(images)[None]))[:, 0].numpy()
    return ProjectionScan(lines, beam, A.grid, np.eye(4), "test")


def test_full_kspace_tells_the_change_of_complex_images(rng):
    images = rng.standard_normal((12, 10, 4)) + 1j * rng.standard_normal((12, 10, 4))
    assert slice_change(kspace_of(images)) == pytest.approx(change_of(images), rel=1e-4)


def test_samples_of_one_slice_alone_do_not_count(rng):
    images = np.repeat(rng.standard_normal((12, 10, 1)) + 0j, 4, axis=2)
    mask = rng.random((1, 4, 12, 10)) < 0.5
    assert slice_change(kspace_of(images, mask)) == 0


def test_a_phase_that_jumps_is_a_change(rng):
    images = np.repeat(rng.standard_normal((12, 10, 1)) + 0j, 4, axis=2) * (-1) ** np.arange(4)
    assert slice_change(kspace_of(images)) == pytest.approx(2)


@pytest.mark.parametrize("shift", [0.2, 0.35, 0.5])
@pytest.mark.parametrize(
    "beam",
    [
        ParallelBeam(angles_over(30, np.pi), 72, 1.0),
        FanBeam(angles_over(30, 2 * np.pi), 100, 1.2, 200.0, 400.0),
    ],
    ids=["parallel", "fan"],
)
def test_line_integrals_tell_the_change_of_their_images(shift, beam):
    images = balls(shift)
    assert slice_change(lines_of(images, beam)) == pytest.approx(change_of(images), rel=0.1)


def test_beside_an_empty_slice_all_may_have_changed(rng):
    images = np.repeat(rng.standard_normal((12, 10, 1)) + 0j, 40, axis=2)
    images[..., 7] = 0
    assert slice_change(kspace_of(images)) == np.inf


def test_slices_without_a_common_sample_are_not_alike(rng):
    images = np.repeat(rng.standard_normal((12, 10, 1)) + 0j, 2, axis=2)
    mask = np.arange(10) % 2 == np.arange(2)[None, :, None, None]
    assert slice_change(kspace_of(images, mask)) == np.inf


def test_what_has_no_neighbours_is_refused(rng):
    with pytest.raises(ValueError, match="two slices or more"):
        slice_change(kspace_of(rng.standard_normal((4, 4, 1)) + 0j))
