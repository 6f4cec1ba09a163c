"""The estimated error of the data: its trace, its mean, and the twin that it takes."""

from dataclasses import replace

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.copies import perturb
from dipmed.dip.fit import Fit
from dipmed.dip.methods import FIT_METHODS
from dipmed.dip.precision import uses_bfloat16
from dipmed.dip.problem import make_problem
from dipmed.dip.stopping import Panel, Sight, make_rules
from dipmed.dip.stopping.sure import Sure, _trace

TINY = FitConfig(network=NetworkConfig(channels=(8, 8), skip_channels=4), iterations=20)


def low_pass(image, width=5):
    """Keep ``width²`` of the frequencies: a linear estimator whose trace is their number."""
    kept = torch.fft.fftfreq(image.shape[-1]).abs() * image.shape[-1] <= width // 2
    return torch.fft.ifft2(torch.fft.fft2(image) * (kept[:, None] & kept)).real


def sight_of(problem, probe, estimator):
    return Sight(problem, 10, None, estimator(problem.y)[None], estimator(probe.problem.y)[None], probe)


def test_the_trace_of_a_linear_method_is_found(problem_of):
    problem, _ = problem_of("image")
    found = [
        _trace(sight_of(problem, perturb(problem, torch.Generator().manual_seed(seed)), low_pass)) for seed in range(60)
    ]
    freedom = torch.tensor(found).mean() / problem.noise.level**2
    # one probe of 25 modes is off by 2 √(1 / 50), the mean of 60 by 4 %
    assert float(freedom) == pytest.approx(25, rel=0.12)


def test_the_trace_of_weighted_data_is_of_their_noise(problem_of, kind):
    problem, _ = problem_of(kind)
    probe = perturb(problem, torch.Generator().manual_seed(0))
    image = probe.problem.adjoint_data[None]
    found = _trace(Sight(problem, 10, None, torch.zeros_like(image), probe.step * image, probe))
    expected = float((probe.noise.conj() * problem.A(image)[0]).real.sum())
    assert found == pytest.approx(expected, rel=1e-3)


def test_its_mean_is_the_true_error(problem_of):
    estimated, true = [], []
    for seed in range(40):
        problem, truth = problem_of("image", seed=seed)
        probe = perturb(problem, torch.Generator().manual_seed(1000 + seed))
        energy = float(problem.y.square().sum())
        estimated.append(Sure().watch(sight_of(problem, probe, low_pass)).value)
        true.append(float((low_pass(problem.y) - truth[0]).square().sum()) / energy)
    assert sum(estimated) == pytest.approx(sum(true), rel=0.03)


def test_added_noise_is_counted(problem_of):
    """With a gain, what is subtracted of the residual is the noise of the data that are fitted."""
    problem, truth = problem_of("image")
    probe = perturb(problem, torch.Generator().manual_seed(0))
    still = Sight(problem, 10, None, truth, truth, probe)
    energy = float(problem.y_fit.square().sum())
    values = [Sure().watch(replace(still, problem=replace(problem, noise_gain=gain))).value for gain in (1.0, 1.25)]
    assert (values[0] - values[1]) * energy == pytest.approx(0.25 * problem.noise.energy, rel=1e-2)


def fit_of(small_scan, variance, config=TINY):
    y, A, _, _ = small_scan
    generator = torch.Generator().manual_seed(0)
    problem = make_problem(y, A, kspace_exponent=0.5, held_out=None, noise_variance=variance, generator=generator)
    probe = perturb(problem, torch.Generator().manual_seed(2))
    rules = make_rules("sure", (), noise_is_measured=True)
    return Fit(problem, config, FIT_METHODS["dip"](), Panel(rules, problem), generator, 0.0, probe)


def test_the_twin_does_the_same_steps(small_scan):
    fit = fit_of(small_scan, 0.0)
    for _ in range(12):
        fit.step()
    assert fit.twin.iteration == 12
    assert torch.equal(fit.twin.input, fit.input)
    assert torch.equal(fit.twin.candidate, fit.candidate)
    fit = fit_of(small_scan, 4e-4)
    for _ in range(12):
        fit.step()
    change = float((fit.twin.candidate - fit.candidate).norm() / fit.candidate.norm())
    assert 0 < change < 0.3
    assert len(fit.curves["sure"]) == 1


def test_the_twin_falls_back_with_the_fit(small_scan):
    fit = fit_of(small_scan, 0.0)
    for _ in range(25):
        fit.step()
    fit._restart(float("nan"))
    assert fit.iteration == fit.twin.iteration == 10
    assert fit.rate_factor == fit.twin.rate_factor < 1
    for _ in range(3):
        fit.step()
    assert torch.equal(fit.twin.candidate, fit.candidate)


def test_a_twin_that_diverged_alone_says_nothing(problem_of):
    problem, truth = problem_of("image")
    probe = perturb(problem, torch.Generator().manual_seed(0))
    assert Sure().watch(Sight(problem, 10, None, truth, truth * float("nan"), probe)) is None


def test_watching_leaves_the_fit_as_it_is(small_scan):
    y, A, _, variance = small_scan
    images = [
        DeepImagePrior(TINY.replace(stop="budget", watch=watch), noise_variance=variance)(y, A).image
        for watch in ((), ("sure", "spectral-band", "windowed-variance"))
    ]
    assert torch.equal(*images)


def test_twins_are_compared_without_the_rounding_of_bfloat16(monkeypatch):
    monkeypatch.setattr("dipmed.dip.precision._is_fast", lambda _: True)
    cpu = torch.device("cpu")
    assert uses_bfloat16(TINY, cpu)
    assert not uses_bfloat16(TINY.replace(stop="sure"), cpu)
    assert uses_bfloat16(TINY.replace(watch=("discrepancy", "sure")), cpu)
    assert uses_bfloat16(TINY.replace(stop="sure", mixed_precision="on"), cpu)
