import numpy as np
import pytest
import torch

from dipmed.calib.trajectory import central_kspace
from dipmed.scan import DipmedError
from operators import NonUniformFourier, centred_fft, radial

MATRIX = (48, 40)


def coil_images():
    """Two images of an object that does not reach the edge of the field of view."""
    x, y = np.meshgrid(*[(np.arange(n) - n // 2) / n for n in MATRIX], indexing="ij")
    inside = ((x / 0.35) ** 2 + (y / 0.3) ** 2 < 1) * (1 + 0.5 * np.cos(20 * x + 9 * y))
    return np.stack([inside * np.exp(1j * (3 * x + y)) * (1 + x), inside * np.exp(-2j * y) * (1 - y)]).astype("c8")


@pytest.mark.parametrize("n_spokes", [80, 30])
def test_the_centre_is_that_of_the_cartesian_transform(n_spokes):
    images = torch.from_numpy(coil_images())
    trajectory = radial(MATRIX, n_spokes).reshape(-1, 2)
    samples = NonUniformFourier((2, *MATRIX), trajectory)(images).numpy()
    kspace, mask = central_kspace(samples, trajectory.float().numpy(), MATRIX, 16)
    expected = centred_fft(images, 2).numpy()
    assert mask.sum() == 16 * 16
    assert mask[24, 20]
    assert not kspace[:, ~mask].any()
    error = np.linalg.norm((kspace - expected)[:, mask]) / np.linalg.norm(expected[:, mask])
    assert error < 0.05


def test_a_trajectory_without_a_centre_is_refused():
    trajectory = radial(MATRIX, 20).reshape(-1, 2)
    outer = trajectory[trajectory.norm(dim=-1) > 5].float().numpy()
    with pytest.raises(DipmedError, match="does not cover the centre"):
        central_kspace(np.ones((2, len(outer)), dtype=np.complex64), outer, MATRIX, 16)
