import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st

from dipmed.dip.inputs import wavelet_image
from dipmed.dip.problem import make_problem
from dipmed.dip.wavelets import analyse, shrink_details, soft_threshold, synthesise

shapes = st.lists(st.integers(2, 6).map(lambda n: 2 * n), min_size=1, max_size=3)


def draw(shape, seed):
    return torch.randn((2, *shape), dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


@given(shapes, st.integers(0, 99))
def test_synthesis_inverts_analysis_and_keeps_energy(shape, seed):
    x = draw(shape, seed)
    bands = analyse(x, len(shape))
    assert len(bands) == 2 ** len(shape)
    torch.testing.assert_close(synthesise(bands, len(shape)), x)
    energy = sum(float(band.abs().square().sum()) for band in bands)
    assert energy == pytest.approx(float(x.abs().square().sum()))


def test_bands_have_the_energy_that_pywavelets_finds():
    x = draw((16, 12), 0)[0].real
    low, (d_x, d_y, d_xy) = pywt.dwt2(x.numpy(), "db2", mode="periodization")
    ours = [float(band.square().sum()) for band in analyse(x, 2)]
    theirs = [float((band**2).sum()) for band in (low, d_y, d_x, d_xy)]
    # periodisation may start at another phase, which moves energy between samples but hardly between bands
    smooth = torch.linspace(0, 1, 16)[:, None] * torch.ones(12) + 0.0
    constant = analyse(torch.ones(8, 8), 2)
    assert sum(ours) == pytest.approx(sum(theirs))
    assert float(constant[0].std()) == pytest.approx(0, abs=1e-6)
    assert max(float(band.abs().max()) for band in constant[1:]) < 1e-6
    # two vanishing moments: a ramp has no detail away from the seam
    assert float(analyse(smooth, 2)[2][:6].abs().max()) < 1e-6


def test_soft_threshold_is_the_proximal_map_of_the_modulus():
    x = torch.tensor([3 + 4j, 0.1j, -2.0, 0.0])
    torch.testing.assert_close(soft_threshold(x, 1.0), torch.tensor([2.4 + 3.2j, 0, -1.0, 0]))


def test_without_levels_or_threshold_nothing_changes():
    x = draw((16, 16), 1)
    assert torch.equal(shrink_details(x, 1.0, 0, 2), x)
    torch.testing.assert_close(shrink_details(x, 1e-12, 2, 2), x)


@pytest.mark.parametrize("shape", [(8, 8), (16, 8, 8)])
def test_shrinking_reduces_detail_and_keeps_the_mean(shape):
    x = draw(shape, 2)
    shrunk = shrink_details(x, 10.0, 2, len(shape))
    assert float(shrunk.std()) < 0.5 * float(x.std())
    torch.testing.assert_close(shrunk.mean(), x.mean())


def test_wavelet_image_is_nearer_to_the_truth_than_the_zero_filled_one(small_scan):
    y, A, truth, _ = small_scan
    problem = make_problem(
        y, A, kspace_exponent=0, held_out=None, noise_variance=None, generator=torch.Generator().manual_seed(0)
    )
    image = wavelet_image(A, problem.adjoint_data, torch.Generator().manual_seed(0), threshold=1e-2)
    scaled = truth * problem.scale
    assert float((image - scaled).norm()) < 0.7 * float((problem.adjoint_data - scaled).norm())
    again = wavelet_image(A, problem.adjoint_data, torch.Generator().manual_seed(0), threshold=1e-2)
    assert torch.equal(image, again)


def test_a_smooth_phase_improves_the_wavelet_image_of_a_real_object(small_scan):
    y, A, truth, _ = small_scan
    problem = make_problem(
        y,
        A,
        kspace_exponent=0,
        phase_weight=0.05,
        held_out=None,
        noise_variance=None,
        generator=torch.Generator().manual_seed(0),
    )
    scaled = truth * problem.scale

    def error(smooth_phase):
        generator = torch.Generator().manual_seed(0)
        image = wavelet_image(A, problem.adjoint_data, generator, 1e-2, smooth_phase=smooth_phase)
        return float((image - scaled).norm())

    assert error(problem.smooth_phase) < error(None)
