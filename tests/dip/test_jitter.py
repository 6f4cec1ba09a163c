"""The noise on the input falls from its first level, which the data tell, to its last by equal factors."""

import math

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig, find_preset
from dipmed.dip import DeepImagePrior, jitter
from dipmed.dip.fit import Fit
from dipmed.dip.jitter import first_level, jitter_level
from dipmed.dip.methods import FIT_METHODS
from dipmed.dip.problem import make_problem
from dipmed.dip.stopping import Panel, make_rules
from dipmed.scan import DipmedError
from operators import ConeBeam, FanBeam, Grid, SliceProjector, StackedProjector, VolumeProjector, angles_over

FALLING = FitConfig(first_jitter=4.0, input_jitter=0.25)


def test_it_falls_by_equal_factors_and_then_stays():
    levels = [jitter_level(4.0, 0.25, 0.7 * step / 4) for step in range(5)]
    assert levels == pytest.approx([4.0, 2.0, 1.0, 0.5, 0.25])
    assert jitter_level(4.0, 0.25, 0.85) == jitter_level(4.0, 0.25, 1.0) == 0.25


@pytest.mark.parametrize(("first", "last"), [(0.0, 0.25), (4.0, 0.0)])
def test_it_stays_where_one_of_the_levels_is_zero(first, last):
    assert {jitter_level(first, last, share) for share in (0.0, 0.3, 1.0)} == {last}


def test_a_level_is_not_negative():
    with pytest.raises(DipmedError, match="first_jitter"):
        FALLING.replace(first_jitter=-1.0)


@pytest.fixture(params=["slice", "stack", "volume"])
def seen_from(request):
    """Make the problem of so many views of an object with many parts, with so much noise, and the settings."""
    x, y = torch.meshgrid(torch.arange(-24.0, 24), torch.arange(-20.0, 20), indexing="ij")
    body = ((x / 20) ** 2 + (y / 16) ** 2 < 1).float()
    parts = torch.rand((12, 10), generator=torch.Generator().manual_seed(2)).kron(torch.ones(4, 4))
    truth = 0.02 * body * parts[None]

    def make(n_views, sigma):
        grid, angles = Grid((48, 40), (1.0, 1.0)), angles_over(n_views, 2 * math.pi)
        A, image = SliceProjector(grid, FanBeam(angles, 60, 2.0, 100.0, 200.0)), truth
        if request.param == "stack":
            A, image = StackedProjector(A, 3, 1.0), truth[..., None].expand(-1, -1, -1, 3)
        elif request.param == "volume":
            beam = ConeBeam(angles, 8, 60, 2.0, 2.0, 100.0, 200.0)
            A, image = VolumeProjector(Grid((48, 40, 4), (1.0, 1.0, 1.0)), beam), truth[..., None].expand(-1, -1, -1, 4)
        noise = sigma * torch.randn(A.range.shape, generator=torch.Generator().manual_seed(0))
        settings = {"kspace_exponent": 0.125, "held_out": None, "noise_variance": None}
        return make_problem(A(image) + noise, A, generator=torch.Generator(), **settings)

    return make


AUTO = find_preset("ct-2d").replace(subpixels=1)


@pytest.mark.parametrize(
    ("n_views", "sigma", "level"), [(8, 0.001, 1.0), (20, 0.001, 1.0), (20, 0.1, 0.0), (120, 0.005, 0.0)]
)
def test_it_begins_high_where_views_are_few_for_the_object_and_its_noise(seen_from, n_views, sigma, level):
    assert first_level(AUTO, seen_from(n_views, sigma)) == level


def test_a_level_that_was_chosen_is_taken(seen_from):
    problem = seen_from(20, 0.001)
    assert first_level(AUTO.replace(first_jitter=0.5), problem) == 0.5
    assert first_level(AUTO.replace(inputs=("cg",)), problem) == 0.0


def test_of_k_space_there_is_none_unless_it_is_chosen(small_scan):
    y, A, _, _ = small_scan
    network = NetworkConfig(channels=(8, 8), skip_channels=4)
    result = DeepImagePrior(FitConfig(first_jitter="auto", network=network, iterations=2))(y, A)
    assert result.first_jitter == 0.0


@pytest.mark.parametrize("seen_from", ["slice"], indirect=True)
@pytest.mark.parametrize(("stop", "refit"), [("sure", "continue"), ("held-out", "restart"), ("held-out", "resume")])
def test_the_level_is_told_once_for_a_fit_its_twin_and_what_follows(seen_from, monkeypatch, stop, refit):
    problem = seen_from(20, 0.001)
    asked = []
    how_far_off = jitter._how_far_off
    monkeypatch.setattr(jitter, "_how_far_off", lambda *told: asked.append(told) or how_far_off(*told))
    network = NetworkConfig(channels=(8, 8), skip_channels=4)
    config = AUTO.replace(network=network, iterations=20, refit=refit, stop=stop, follow_noise=False)
    result = DeepImagePrior(config)(problem.line_integrals, problem.A.projector)
    assert result.first_jitter == 1.0
    assert len(asked) == 1


def test_a_fit_that_starts_from_a_neighbour_has_settled_what_is_coarse():
    assert find_preset("ct-2d").first_jitter == "auto"
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
