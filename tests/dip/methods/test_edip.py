from collections import defaultdict

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.edip import Educated
from dipmed.scan import DipmedError
from operators import Grid, ParallelBeam, SliceProjector, angles_over

CONFIG = Educated.configure(FitConfig(network=NetworkConfig(channels=(16, 16), skip_channels=8)), "mri")
SHORT = CONFIG.replace(stop="budget", iterations=20)


class Watched(Educated):
    """Notes the weights before and after a fit."""

    def begin(self, fit):
        self.network = fit.network
        self.first = {name: value.detach().clone() for name, value in fit.network.named_parameters()}

    def moved(self):
        return {name for name, value in self.network.named_parameters() if not torch.equal(value, self.first[name])}


def error(image, truth):
    return float((image - truth).norm() / truth.norm())


def test_a_fit_starts_from_the_weights_and_moves_all_of_them(small_scan, pretrained):
    y, A, _, _ = small_scan
    method = Watched(weights=pretrained)
    DeepImagePrior(SHORT, method=method)(y, A)
    assert method.first.keys() == pretrained.weights.keys()
    assert all(torch.equal(value, pretrained.weights[name]) for name, value in method.first.items())
    assert method.moved() == method.first.keys()


def test_a_fixed_encoder_stays_as_it_was(small_scan, pretrained):
    y, A, _, _ = small_scan
    method = Watched(weights=pretrained, fixed_encoder=True)
    DeepImagePrior(SHORT.replace(optimizer="muon"), method=method)(y, A)
    assert method.moved() == {name for name in method.first if not name.startswith("downs.")}
    assert len(method.moved()) < len(method.first)


def test_learned_weights_need_fewer_iterations(small_scan, pretrained):
    y, A, truth, _ = small_scan

    class Untaught(Educated):
        make_network = FitMethod.make_network

    def errors(method):
        """Mean over seeds, because of one rounding moves the answer by ten iterations."""
        seen = defaultdict(list)
        for seed in range(4):
            fit = DeepImagePrior(
                SHORT.replace(iterations=100, seed=seed),
                method=method,
                observer=lambda iteration, image: seen[iteration].append(error(image, truth)),
                observer_interval=10,
            )
            fit(y, A)
        return {iteration: sum(values) / len(values) for iteration, values in seen.items()}

    taught, untaught = errors(Educated(pretrained)), errors(Untaught(pretrained))
    assert min(iteration for iteration, value in taught.items() if value < untaught[100]) <= 50


def test_a_fit_without_weights_says_how_to_make_them(small_scan):
    y, A, _, _ = small_scan
    with pytest.raises(DipmedError, match=r"edip starts from pre-trained weights.*scripts/pretrain\.py"):
        DeepImagePrior(SHORT, method=Educated())(y, A)


def test_weights_of_another_network_are_refused(pretrained):
    grid = Grid((24, 20), (1.0, 1.0))
    A = SliceProjector(grid, ParallelBeam(angles_over(8, 3.14), 30, 1.0))
    with pytest.raises(DipmedError, match="for MRI images of 2 dimensions"):
        DeepImagePrior(SHORT, method=Educated(pretrained))(torch.ones(A.range.shape), A)


@pytest.mark.parametrize(("modality", "shape"), [("ct", (32, 32)), ("mri", (12, 12, 12))])
def test_slices_of_ct_and_volumes_are_fitted(pretraining, modality, shape):
    network = NetworkConfig(channels=(8, 8), skip_channels=4)
    weights = pretraining.pretrain(
        pretraining.Settings(modality, len(shape), shape[0], batch=1, steps=2, network=network)
    )
    y, A, truth = pretraining.synthetic_images.make_scan(modality, shape, torch.Generator().manual_seed(1))
    config = Educated.configure(FitConfig(), modality).replace(iterations=30, stop="budget")
    result = DeepImagePrior(config, method=Educated(weights))(y, A)
    assert result.image.shape == truth.shape
    losses = dict(result.curves["loss"])
    assert losses[30] < 0.8 * losses[1]
