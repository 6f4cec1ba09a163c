import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior, Uncertainty
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import Default
from dipmed.dip.methods.sgld import LangevinDynamics
from dipmed.dip.uncertainty import ensemble, shown_of
from dipmed.scan import DipmedError, Reconstruction, StopReason

TINY = FitConfig(
    network=NetworkConfig(channels=(8, 8), skip_channels=4, up_channels=8),
    iterations=20,
    inputs=("noise",),
    held_out=0.05,
)


def test_an_ensemble_is_the_mean_and_spread_of_fits_from_several_seeds(small_scan):
    y, A, _, _ = small_scan
    seen = []
    result = DeepImagePrior(
        TINY, uncertainty=Uncertainty("ensemble", 3), observer=lambda i, _: seen.append(i), observer_interval=10
    )(y, A)
    single = torch.stack([DeepImagePrior(TINY.replace(seed=seed))(y, A).image for seed in range(3)])
    torch.testing.assert_close(result.image, single.mean(0))
    torch.testing.assert_close(result.std, single.abs().std(0))
    assert result.iterations == 60
    assert seen == [10, 20]


def test_jitter_spreads_with_the_noise_and_leaves_the_image_alone(small_scan):
    y, A, _, _ = small_scan
    config = TINY.replace(stop="budget", data_consistency_steps=0)
    spreads = []

    class Louder(Default):
        """The same fit, whose noise grows after the last step."""

        factor = 1.0

        def network_input(self, fit):
            noise = super().network_input(fit) - fit.input
            return fit.input + (self.factor if fit.iteration == 20 else 1.0) * noise

    for factor in (0.1, 0.4):
        method = Louder()
        method.factor = factor
        result = DeepImagePrior(config, method=method, uncertainty=Uncertainty("jitter", 10))(y, A)
        spreads.append(result.std)
        assert torch.equal(result.image, DeepImagePrior(config, method=method)(y, A).image)
    ratio = float(spreads[1].mean() / spreads[0].mean())
    assert 2 < ratio < 6
    assert spreads[0].shape == (1, 24, 20)


def test_all_images_of_a_map_end_with_the_steps_of_the_image(small_scan, monkeypatch):
    asked = []

    def one_more(_, image):
        asked.append(image)
        return 2 + len(asked)

    monkeypatch.setattr("dipmed.dip.last_steps.steps_that_pay", one_more)
    y, A, _, _ = small_scan
    auto, three = (TINY.replace(data_consistency_steps=steps) for steps in ("auto", 3))
    results = [DeepImagePrior(config, uncertainty=Uncertainty("jitter", 3))(y, A) for config in (auto, three)]
    assert len(asked) == 1
    assert [result.last_steps for result in results] == [3, 3]
    assert torch.equal(results[0].std, results[1].std)


def test_samples_of_the_method_are_in_the_units_of_the_data(small_scan):
    y, A, _, _ = small_scan
    config = LangevinDynamics.configure(TINY, "mri").replace(iterations=20)
    spreads = [
        DeepImagePrior(config, method=LangevinDynamics(), uncertainty=Uncertainty("sgld"))(factor * y, A).std
        for factor in (1, 1024)  # a power of two, which leaves the rounding alone
    ]
    torch.testing.assert_close(spreads[1], 1024 * spreads[0], rtol=1e-2, atol=1e-2)


def test_an_interruption_keeps_what_was_averaged_before_it():
    def fit_with(number):
        rule = "interrupted" if number == 2 else "budget"
        image = torch.full((1, 4, 4), float(number))
        return Reconstruction(image, "dip", StopReason(rule, 1, ""), iterations=1, seconds=1.0)

    result = ensemble(fit_with, 5)
    assert result.image.unique() == 0.5
    assert result.std.unique() == pytest.approx(0.5**0.5)
    assert result.stop.rule == "interrupted"
    assert result.iterations == 3

    alone = ensemble(lambda number: fit_with(number + 2), 5)
    assert alone.image.unique() == 2
    assert alone.std is None
    assert ensemble(lambda number: fit_with(number + 1), 5).std is None


def test_what_is_shown_of_several_sets_is_their_length():
    image = torch.tensor([3 + 0j, 4j])[:, None, None].expand(2, 4, 4)
    assert shown_of(image).unique() == 5
    real = -torch.ones(1, 4, 4)
    assert torch.equal(shown_of(real), real)


def test_what_has_no_map_is_refused_before_the_fit(small_scan):
    y, A, _, _ = small_scan
    with pytest.raises(DipmedError, match="no samples"):
        DeepImagePrior(TINY, uncertainty=Uncertainty("sgld"))(y, A)
    with pytest.raises(DipmedError, match="no noise on its input"):
        DeepImagePrior(TINY.replace(input_jitter=0.0), uncertainty=Uncertainty("jitter"))(y, A)

    class Noisy(FitMethod):
        def network_input(self, fit):
            return fit.input

    assert Uncertainty("jitter").objection(Noisy, TINY.replace(input_jitter=0.0)) is None


@pytest.mark.parametrize(("kind", "samples"), [("guess", None), ("ensemble", 1), ("sgld", 5)])
def test_impossible_requests_are_refused(kind, samples):
    with pytest.raises(DipmedError):
        Uncertainty(kind, samples)
