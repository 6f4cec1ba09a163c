"""From one run, what every rule would have chosen; and fits that begin again with what was set apart."""

import numpy as np
import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.fit import Fit
from dipmed.dip.methods import FIT_METHODS
from dipmed.dip.problem import make_problem
from dipmed.dip.start import weights_of
from dipmed.dip.stopping import Panel
from dipmed.dip.stopping.base import Verdict
from dipmed.dip.stopping.held_out import HeldOut
from dipmed.scan import DipmedError
from operators import Blur, Identity

TINY = FitConfig(network=NetworkConfig(channels=(8, 8), skip_channels=4), iterations=20, held_out=0.05)
LONG = {
    "iterations": 200,
    "adam_rate": 3e-3,
    "averaging": 0.95,
    "input_jitter": 0.0,
    "network": NetworkConfig((32,), 16, 32),
    "mixed_precision": "off",  # rounding as coarse as that moves so short a fit as another seed does
}
SIGMA = 0.2
SEEDS = range(4)


def run(*watch, seed):
    """Fit a noisy image far beyond its best iterate; the result and the PSNR of every tenth iterate."""
    x, y = torch.meshgrid(*[torch.linspace(-1, 1, 24)] * 2, indexing="ij")
    body = ((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1).float()
    truth = (0.8 * body - 0.4 * ((x + 0.3) ** 2 + (y - 0.3) ** 2 < 0.05))[None]
    data = truth + SIGMA * torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    psnr = {}

    def observer(iteration, image):
        psnr[iteration] = float(-10 * torch.log10((image - truth).square().mean()))

    method = FIT_METHODS["dip-vanilla"]
    config = method.configure(TINY, "mri").replace(stop="budget", watch=watch, seed=seed, **LONG)
    fit = DeepImagePrior(config, method=method(), noise_variance=SIGMA**2, observer=observer, observer_interval=10)
    return fit(data, Identity(truth.shape)), psnr


@pytest.mark.parametrize("watch", [("discrepancy", "spectral-band", "sure"), ("self-referenced",)])
def test_every_rule_chooses_near_the_best_iterate(watch):
    overfitted, lost = [], []
    for seed in SEEDS:
        result, psnr = run(*watch, seed=seed)
        best = max(psnr.values())
        overfitted.append(best - psnr[LONG["iterations"]])
        lost.append([best - psnr[10 * round(result.choices[name] / 10)] for name in watch])
        assert set(result.choices) == {"budget", *watch}
        assert set(result.curves) == {"loss", "budget", *watch}
        assert result.choices["budget"] == result.stop.iteration == LONG["iterations"]
    assert np.mean(overfitted) > 1
    assert np.max(np.mean(lost, axis=0)) < 0.6, lost


@pytest.mark.parametrize("stop", ["held-out", "self-referenced"])
def test_a_fit_begins_again_with_what_was_set_apart(small_scan, stop):
    y, A, _, variance = small_scan
    config = TINY.replace(stop=stop, watch=(), refit="restart", held_out=0.2)
    seen = []
    fit = DeepImagePrior(config, noise_variance=variance, observer=lambda at, _: seen.append(at), observer_interval=10)
    result = fit(y, A)
    chosen = result.choices[stop]
    more = int(A.mask.sum()) / (int(A.mask.sum()) - round(0.2 * int(A.mask.sum()))) if stop == "held-out" else 1
    assert result.iterations == 20 + round(more * chosen) == result.stop.iteration
    assert result.stop.rule == stop
    assert "again from the start" in result.stop.reason
    assert seen == sorted(seen)
    assert seen[-1] > 20


def test_beginning_again_is_a_fit_to_all_data(small_scan):
    y, A, _, variance = small_scan
    config = TINY.replace(watch=(), schedule="constant", iterations=10)
    again = DeepImagePrior(config.replace(stop="self-referenced", refit="restart"), noise_variance=variance)(y, A)
    assert again.choices["self-referenced"] == 10
    at_once = DeepImagePrior(config.replace(stop="budget"), noise_variance=variance)(y, A)
    assert again.raised == at_once.raised != {}
    assert torch.equal(again.image, at_once.image)


@pytest.mark.parametrize(("stop", "further"), [("held-out", 0.25), ("self-referenced", 0.25)])
def test_a_fit_goes_on_from_its_choice_with_what_was_set_apart(small_scan, stop, further):
    y, A, _, variance = small_scan
    config = TINY.replace(stop=stop, watch=(), refit="resume", held_out=0.2, iterations=60)
    seen = []
    fit = DeepImagePrior(config, noise_variance=variance, observer=lambda at, _: seen.append(at), observer_interval=10)
    result = fit(y, A)
    chosen = result.choices[stop]
    assert chosen == 60
    assert result.iterations == 60 + 10 * np.ceil(further * chosen / 10) == result.stop.iteration
    assert result.stop.rule == stop
    assert "from there" in result.stop.reason
    assert seen == list(range(10, result.iterations + 1, 10))
    assert len(result.curves["refit-loss"]) == 2


class TakesTheTenth(HeldOut):
    """Chooses the tenth iterate, and ends the fit at the thirtieth."""

    def watch(self, sight):
        return Verdict(0.0, keep=sight.iteration == 10, stop="thirty" if sight.iteration == 30 else None)


@pytest.fixture
def thirtieth(small_scan):
    """A fit of 30 iterations with a fifth of the locations held out, the weights and the average of the tenth."""
    y, A, _, _ = small_scan
    config = TINY.replace(refit="resume", iterations=60)
    problem = make_problem(
        y,
        A,
        kspace_exponent=0.5,
        held_out=0.2,
        noise_variance=None,
        generator=torch.Generator().manual_seed(0),
    )
    method = FIT_METHODS["dip"]()
    fit = Fit(problem, config, method, Panel((TakesTheTenth(),), problem), torch.Generator().manual_seed(0), 0.0)
    while fit.step() is None:
        if fit.iteration == 10:
            tenth = weights_of(fit.network), fit.average.clone(), fit.input.clone()
    return fit, tenth


def test_what_comes_after_the_choice_is_undone(thirtieth):
    fit, (weights, average, seen) = thirtieth
    assert (fit.iteration, fit.ending.chosen_at) == (30, 10)
    assert not torch.equal(weights_of(fit.network), weights)
    fit.resume(1.25)
    assert fit.iteration == 10
    assert torch.equal(weights_of(fit.network), weights)
    assert torch.equal(fit.average, average)
    assert torch.equal(fit.input, seen)
    assert fit.problem.held_out_mask is None
    while fit.step() is None:
        pass
    assert fit.iteration == fit.ending.chosen_at == 20
    assert fit.problem.data_error(fit.ending.chosen) < fit.problem.data_error(average)


def test_a_fit_that_all_data_upset_keeps_its_choice(thirtieth):
    fit, (_, average, _) = thirtieth
    fit.resume(1.25)
    fit.rate_factor = 300.0
    while fit.step() is None:
        pass
    assert fit.problem.data_error(fit.candidate) > fit.problem.data_error(average)
    assert torch.equal(fit.ending.chosen, average)
    assert fit.ending.chosen_at == 10


def test_what_was_set_apart_is_worth_going_on_for(small_scan):
    y, A, truth, _ = small_scan
    gained = []
    for seed in SEEDS:
        config = TINY.replace(watch=(), held_out=0.3, iterations=80, seed=seed, refit_share=0.0)
        errors = [
            float((DeepImagePrior(config.replace(refit=refit))(y, A).image - truth).norm())
            for refit in ("continue", "resume")
        ]
        gained.append(1 - errors[1] / errors[0])
    assert np.mean(gained) > 0.02, gained


def test_the_data_themselves_are_given_back_near_the_end(small_scan):
    y, A, _, variance = small_scan
    config = TINY.replace(stop="self-referenced", watch=("held-out",), refit_share=0.5)
    result = DeepImagePrior(config, noise_variance=variance)(y, A)
    assert "those after 10 with the data themselves" in result.stop.reason
    assert result.choices == {"self-referenced": 20, "held-out": 10}
    assert [at for at, _ in result.curves["self-referenced"]] == [10]


def test_an_estimated_level_is_an_assumption():
    image = torch.rand((1, 16, 16), generator=torch.Generator().manual_seed(0))
    config = TINY.replace(stop="spectral-band", watch=(), iterations=10, inputs=("noise",))
    unknown = DeepImagePrior(config)(image, Identity(image.shape))
    assert unknown.assumptions == ("The noise level was estimated from the differences of neighbouring voxels.",)
    known = DeepImagePrior(config, noise_variance=0.01)(image, Identity(image.shape))
    assert known.assumptions == ()


def test_rules_watch_only_where_they_have_what_they_need(small_scan):
    y, A, _, _ = small_scan
    with pytest.raises(DipmedError, match="no noise measurement"):
        DeepImagePrior(TINY.replace(watch=("discrepancy",)))(y, A)
    with pytest.raises(DipmedError, match="unknown stopping rule 'nope'"):
        DeepImagePrior(TINY.replace(watch=("nope",)))(y, A)
    image = torch.rand(1, 16, 16)
    blur = Blur.gaussian(image.shape, (3.0, 3.0), (1.0, 1.0))
    for rule, said in (("held-out", "take .* apart"), ("sure", "give it"), ("self-referenced", "give it")):
        with pytest.raises(DipmedError, match=said):
            DeepImagePrior(TINY.replace(stop="budget", watch=(rule,)))(image, blur)


def test_a_fit_that_begins_again_takes_no_time_limit():
    with pytest.raises(DipmedError, match="time_limit"):
        TINY.replace(refit="restart", time_limit=5.0)
