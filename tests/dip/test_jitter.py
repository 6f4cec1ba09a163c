"""The noise on the input falls from its first level to its last by equal factors."""

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig, find_preset
from dipmed.dip.fit import Fit
from dipmed.dip.jitter import jitter_level
from dipmed.dip.methods import FIT_METHODS
from dipmed.dip.problem import make_problem
from dipmed.dip.stopping import Panel, make_rules
from dipmed.scan import DipmedError

FALLING = FitConfig(first_jitter=4.0, input_jitter=0.25)


def test_it_falls_by_equal_factors_and_then_stays():
    levels = [jitter_level(FALLING, 0.7 * step / 4) for step in range(5)]
    assert levels == pytest.approx([4.0, 2.0, 1.0, 0.5, 0.25])
    assert jitter_level(FALLING, 0.85) == jitter_level(FALLING, 1.0) == 0.25


@pytest.mark.parametrize("changes", [{"first_jitter": 0.0}, {"input_jitter": 0.0}])
def test_it_stays_where_one_of_the_levels_is_zero(changes):
    config = FALLING.replace(**changes)
    assert {jitter_level(config, share) for share in (0.0, 0.3, 1.0)} == {config.input_jitter}


def test_a_level_is_not_negative():
    with pytest.raises(DipmedError, match="first_jitter"):
        FALLING.replace(first_jitter=-1.0)


def test_a_fit_that_starts_from_a_neighbour_has_settled_what_is_coarse():
    assert find_preset("ct-2d").first_jitter >= 1
    assert find_preset("ct-2d").warmed().first_jitter == 0


def test_published_methods_have_their_own():
    preset = find_preset("ct-2d")
    others = [method for name, method in FIT_METHODS.items() if name != "dip" and "ct" in method.modalities]
    assert {method.configure(preset, "ct").first_jitter for method in others} == {0.0}


def test_the_network_sees_that_much(small_scan):
    y, A, _, _ = small_scan
    config = FALLING.replace(network=NetworkConfig(channels=(8, 8), skip_channels=4), iterations=10)
    problem = make_problem(
        y, A, kspace_exponent=0.5, held_out=0.1, noise_variance=None, generator=torch.Generator().manual_seed(0)
    )
    rules = make_rules("held-out", (), noise_is_measured=False)
    fit = Fit(problem, config, FIT_METHODS["dip"](), Panel(rules, problem), torch.Generator().manual_seed(0), 0.0)
    for wanted in (4.0, 4.0 * 16 ** (-1 / 7)):
        seen = torch.cat([fit.method.network_input(fit) - fit.input for _ in range(20)])
        assert float(seen.std()) == pytest.approx(wanted, rel=0.02)
        fit.step()
