import pytest
import torch

from dipmed.dip.copies import recorrupt
from dipmed.dip.problem import make_problem
from dipmed.dip.stopping import Sight
from dipmed.dip.stopping.spectral_band import SpectralBand, band_of, spectrum
from dipmed.scan import DipmedError
from operators import Blur


def value(problem, image):
    return SpectralBand().watch(Sight(problem, 10, None, image)).value


def test_the_criterion_of_one_gain_is_its_excess_error(problem_of):
    """``A x = g y`` in all bands: the weighted squares of g less the share of signal."""
    problem, _ = problem_of("image")
    rule = SpectralBand()
    found = rule.watch(Sight(problem, 10, None, 0.7 * problem.y[None])).value
    power = spectrum(problem.A, problem.y).abs().square()
    bands = band_of(problem.A, 5)
    energies = torch.stack([power[0, bands == band].sum() for band in range(5)])
    noise = torch.stack([(bands == band).sum() for band in range(5)]) * problem.noise.level**2
    signal = (1 - noise / energies).clamp(min=0)
    expected = (energies * (0.7 - signal).square()).sum() / energies.sum()
    assert found == pytest.approx(float(expected), rel=0.02)


def test_the_true_image_is_preferred(problem_of, kind):
    problem, truth = problem_of(kind)
    at_truth = value(problem, truth)
    assert at_truth < 0.3 * value(problem, 0.9 * truth)
    assert at_truth < 0.3 * value(problem, 1.1 * truth)
    if kind in ("image", "cartesian"):  # where a step towards the data puts noise back
        assert at_truth < 0.5 * value(problem, truth + 0.5 * problem.A.adjoint(problem.y - problem.A(truth)[0]))


def test_bands_run_from_the_centre_outwards(problem_of, kind):
    A = problem_of(kind)[0].A
    bands = band_of(A, 5)
    assert set(bands.unique().tolist()) == set(range(5))
    if kind == "cartesian":
        assert bands[20, 20] == 0
        assert bands[0, 0] == 4
    if kind == "image":
        assert bands[0, 0] == 0
        assert bands[20, 20] == 4


def test_noise_that_was_added_is_no_signal(problem_of):
    problem, truth = problem_of("image", sigma=0.2)
    pair = recorrupt(problem, torch.Generator().manual_seed(3), 1.0)
    assert value(pair, truth) < 0.3 * value(pair, pair.y_fit[None])


def test_other_data_have_no_bands():
    A = Blur.gaussian((1, 16, 16), (3.0, 3.0), (1.0, 1.0))
    problem = make_problem(
        torch.rand(1, 16, 16), A, kspace_exponent=0, held_out=None, noise_variance=0.01, generator=torch.Generator()
    )
    with pytest.raises(DipmedError, match="no bands of frequencies"):
        SpectralBand().check(problem)
