import os
import signal
import time

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.fit import Fit
from dipmed.dip.problem import Problem
from dipmed.dip.recovery import has_diverged
from dipmed.scan import DipmedError, DivergedError

TINY = FitConfig(network=NetworkConfig(channels=(16, 16), skip_channels=8), iterations=120, held_out=0.05)


def nrmse(image, truth):
    return float((image.abs() - truth.abs()).norm() / truth.norm())


def test_fit_beats_the_zero_filled_image(small_scan):
    y, A, truth, _ = small_scan
    result = DeepImagePrior(TINY)(y, A)
    assert result.image.shape == A.domain.shape
    assert nrmse(result.image, truth) < 0.8 * nrmse(A.adjoint(y), truth)
    assert result.stop.rule == "held-out"
    assert result.iterations <= 120
    assert 0 < result.stop.iteration <= result.iterations
    assert result.curves["loss"][-1][1] < result.curves["loss"][0][1]
    assert {"held-out", "exponential-variance"} <= set(result.curves)


def test_same_seed_same_image_bit_for_bit(small_scan):
    y, A, _, _ = small_scan
    config = TINY.replace(iterations=25)
    first, again = (DeepImagePrior(config)(y, A).image for _ in range(2))
    torch.rand(7)  # the global state must not matter
    third = DeepImagePrior(config)(y, A).image
    other = DeepImagePrior(config.replace(seed=1))(y, A).image
    assert torch.equal(first, again)
    assert torch.equal(first, third)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_changes_nothing(small_scan, mode):
    y, A, _, _ = small_scan
    config = TINY.replace(iterations=5)
    with mode():
        found = DeepImagePrior(config)(y, A).image
    assert torch.equal(found, DeepImagePrior(config)(y, A).image)


def test_observing_changes_nothing(small_scan):
    y, A, _, _ = small_scan
    config = TINY.replace(iterations=25)
    seen = []
    watched = DeepImagePrior(config, observer=lambda i, x: seen.append((i, x.shape)), observer_interval=10)(y, A)
    assert seen == [(10, A.domain.shape), (20, A.domain.shape)]
    assert torch.equal(watched.image, DeepImagePrior(config)(y, A).image)


def test_the_unit_of_the_data_is_the_unit_of_the_image(small_scan):
    y, A, _, _ = small_scan
    config = TINY.replace(iterations=25, mixed_precision="off")
    one = DeepImagePrior(config)(y, A).image
    # a power of two, so that scaling is exact
    large = DeepImagePrior(config)(y * 1024, A).image
    torch.testing.assert_close(large / 1024, one)


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": ("noise",), "input_update": "none", "optimizer": "adam"},
        {"inputs": ("zero-filled",), "input_update": "drift"},
        {"inputs": ("zero-filled", "noise"), "input_update": "data-consistent"},
        {"averaging": 0.0, "stop": "windowed-variance"},
        {"stop": "exponential-variance"},
        {"stop": "budget", "schedule": "constant", "tv_weight": 0.0, "kspace_exponent": 0.0},
        {"mixed_precision": "on"},
    ],
)
def test_every_choice_runs_and_reduces_the_loss(small_scan, changes):
    y, A, _, _ = small_scan
    result = DeepImagePrior(TINY.replace(iterations=40, **changes))(y, A)
    assert bool(torch.isfinite(torch.view_as_real(result.image)).all())
    losses = dict(result.curves["loss"])
    assert losses[40] < losses[1]


def test_discrepancy_uses_the_measured_noise(small_scan):
    y, A, _, variance = small_scan
    result = DeepImagePrior(TINY.replace(stop="discrepancy"), noise_variance=50 * variance)(y, A)
    assert result.stop.rule == "discrepancy"
    assert result.iterations < 120
    assert "times the noise" in result.stop.reason
    with pytest.raises(DipmedError, match="noise measurement"):
        DeepImagePrior(TINY.replace(stop="discrepancy"))(y, A)


def test_the_end_of_a_good_fit_sees_the_held_out_locations(small_scan, monkeypatch):
    y, A, _, _ = small_scan
    monkeypatch.setattr(Problem, "held_out_error", lambda *_: 0.1)
    config = TINY.replace(iterations=80, refit_share=0.25)
    result = DeepImagePrior(config)(y, A)
    assert result.curves["held-out"][-1][0] == 60
    assert result.stop.iteration == result.iterations == 80
    assert result.stop.reason == "all 80 iterations were used, those after 60 with the held-out locations"
    without = DeepImagePrior(config.replace(refit_share=0))(y, A)
    assert without.curves["held-out"][-1][0] == 80
    assert without.stop.reason == "all 80 iterations were used"


def test_a_fit_that_became_worse_does_not_go_on_with_the_held_out_locations(small_scan, monkeypatch):
    y, A, _, _ = small_scan
    errors = iter(range(1, 100))
    monkeypatch.setattr(Problem, "held_out_error", lambda *_: float(next(errors)))
    result = DeepImagePrior(TINY.replace(iterations=80, refit_share=0.25))(y, A)
    assert result.stop.iteration == 10
    assert result.curves["held-out"][-1][0] == 80


def test_time_limit_ends_a_fit(small_scan):
    y, A, _, _ = small_scan
    start = time.perf_counter()
    result = DeepImagePrior(TINY.replace(iterations=10**6, time_limit=1.5))(y, A)
    assert time.perf_counter() - start < 15
    assert result.stop.rule == "time-limit"
    assert "1.5 s" in result.stop.reason
    assert result.iterations < 10**6


def test_interruption_keeps_the_best_image_so_far(small_scan):
    y, A, truth, _ = small_scan

    def interrupt(state):
        if state.iteration == 60:
            os.kill(os.getpid(), signal.SIGINT)

    result = DeepImagePrior(TINY, progress=interrupt)(y, A)
    assert result.stop.rule == "interrupted"
    assert 60 <= result.iterations <= 61
    assert nrmse(result.image, truth) < nrmse(A.adjoint(y), truth)


def poison(monkeypatch, at, times):
    """Turn the weights into NaN at the ``at``-th update, for as many times as said."""
    update = Fit.decay_rates
    calls = {"n": 0, "left": times}

    def poisoned(fit):
        calls["n"] += 1
        if calls["n"] >= at and calls["left"]:
            calls["left"] -= 1
            with torch.no_grad():
                next(fit.network.parameters()).fill_(float("nan"))
        return update(fit)

    monkeypatch.setattr(Fit, "decay_rates", poisoned)


@pytest.mark.parametrize("at", [1, 11, 25])
def test_a_fit_recovers_once_from_nan(small_scan, monkeypatch, at):
    y, A, truth, _ = small_scan
    poison(monkeypatch, at, times=1)
    result = DeepImagePrior(TINY)(y, A)
    assert nrmse(result.image, truth) < nrmse(A.adjoint(y), truth)


def test_a_second_divergence_says_what_to_try(small_scan, monkeypatch):
    y, A, _, _ = small_scan
    poison(monkeypatch, 25, times=10**6)
    with pytest.raises(DivergedError, match=r"--method|--seed"):
        DeepImagePrior(TINY)(y, A)


def test_divergence_is_seen():
    assert has_diverged(float("nan"), 1.0)
    assert has_diverged(float("inf"), 1.0)
    assert has_diverged(3.0, 0.01)
    assert not has_diverged(1.9, 0.001)
    assert not has_diverged(3.0, 1.0)


def test_outside_the_support_the_image_is_zero(small_scan):
    y, A, _, _ = small_scan
    maps = A.maps.clone()
    maps[:, :4] = 0
    cut = type(A)(maps, A.mask)
    result = DeepImagePrior(TINY.replace(iterations=10))(y, cut)
    assert float(result.image[:, :4].abs().max()) == 0
    assert float(result.image[:, 4:].abs().max()) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fit_on_a_gpu(small_scan):
    y, A, truth, _ = small_scan
    result = DeepImagePrior(TINY)(y.cuda(), A.to("cuda"))
    assert result.image.device.type == "cuda"
    assert nrmse(result.image.cpu(), truth) < nrmse(A.adjoint(y).cpu(), truth)


@pytest.mark.parametrize(
    "changes", [{"iterations": 0}, {"averaging": 1.0}, {"held_out": 0.9}, {"time_limit": 0.0}, {"inputs": ()}]
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(DipmedError):
        TINY.replace(**changes)
