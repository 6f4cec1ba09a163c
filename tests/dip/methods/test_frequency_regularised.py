import pytest
import torch
from torch import nn

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.frequency_regularised import FrequencyRegularised
from dipmed.nets import Gaussian, Kaiser, UNet
from dipmed.nets.lipschitz import SpectralBound, lipschitz_penalty
from dipmed.nets.upsample import Resize
from dipmed.scan import DipmedError

TINY_NETWORK = NetworkConfig(channels=(8, 8), skip_channels=4, up_channels=8)
SMALL = {"channels": 16, "layers": 4}


def configured(modality, iterations):
    config = FrequencyRegularised.configure(FitConfig(), modality)
    return config.replace(iterations=iterations, stop="budget", network=TINY_NETWORK)


class Watched(FrequencyRegularised):
    """Keeps the fit, to look into it afterwards."""

    def begin(self, fit):
        self.fit = fit
        self.first_input = fit.input.clone()
        if self._is_bounded:
            self.first_penalty = float(lipschitz_penalty(fit.network).detach())


def fitted(scan, iterations=2, **options):
    method = Watched(**{**SMALL, **options})
    DeepImagePrior(configured("mri", iterations), method=method)(*scan[:2])
    return method.fit.network, method


def _roughness(x):
    return float(x.diff(dim=-1).square().mean() / x.var())


@pytest.mark.parametrize("architecture", ["decoder", "u-net"])
def test_the_input_is_blurred_once(small_scan, architecture):
    _, smooth = fitted(small_scan, architecture=architecture)
    _, white = fitted(small_scan, architecture=architecture, blur=0.0)
    assert torch.equal(smooth.fit.input, smooth.first_input)
    assert _roughness(smooth.first_input) < 0.6 * _roughness(white.first_input)
    assert 0 <= white.first_input.min() < white.first_input.max() <= 0.1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Kaiser(11, 5.0)),
        ({"taps": 7, "strength": 2.0}, Kaiser(7, 2.0)),
        ({"upsample": "gaussian", "strength": 0.8}, Gaussian(11, 0.8)),
        ({"upsample": "linear"}, "linear"),
    ],
)
def test_the_network_up_samples_by_the_chosen_filter(small_scan, options, expected):
    unet, _ = fitted(small_scan, architecture="u-net", **options)
    assert isinstance(unet, UNet)
    assert unet.upsample == expected
    decoder, _ = fitted(small_scan, **options)
    resize = next(module for module in decoder.modules() if isinstance(module, Resize))
    size_in = tuple(decoder.seed_shape)
    wanted = Resize(size_in, resize.size_out, expected)
    torch.testing.assert_close(resize.matrix_0, wanted.matrix_0)


@pytest.mark.parametrize("architecture", ["decoder", "u-net"])
def test_no_kernel_exceeds_a_given_bound_and_no_scale_undoes_it(small_scan, architecture):
    network, _ = fitted(small_scan, iterations=10, architecture=architecture, lipschitz_bound=0.5)
    assert not any(isinstance(module, nn.GroupNorm) for module in network.modules())
    kernels = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    norms = torch.stack([torch.linalg.matrix_norm(kernel.detach().flatten(1), 2) for kernel in kernels])
    assert len(norms) > 4
    assert float(norms.max()) <= 0.5 + 1e-5
    assert float(norms.max()) > 0.49  # the bound is at work
    assert not any(m.raw_bound.requires_grad for m in network.modules() if isinstance(m, SpectralBound))


def test_the_penalty_pulls_fitted_bounds_down(small_scan):
    after = {}
    for weight in (1e-6, 10.0):
        network, method = fitted(small_scan, iterations=20, lipschitz_weight=weight)
        after[weight] = float(lipschitz_penalty(network).detach()) / method.first_penalty
    assert after[10.0] < 0.95
    assert after[10.0] < after[1e-6] - 0.05


@pytest.mark.parametrize("scan", ["small_slice", "small_volume", "small_mri_volume"])
def test_projections_and_volumes_are_fitted(request, scan):
    y, A, truth = request.getfixturevalue(scan)
    config = configured("mri" if truth.is_complex() else "ct", 60)
    image = DeepImagePrior(config, method=FrequencyRegularised(channels=16, layers=3))(y, A).image
    assert image.shape == truth.shape
    assert (image - truth).norm() < 0.5 * truth.norm()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"blur": -1.0}, "blur"),
        ({"layers": 1}, "layers"),
        ({"taps": 4}, "odd"),
        ({"upsample": "gaussian", "strength": 0.0}, "sigma"),
        ({"lipschitz_bound": 0.0}, "positive"),
    ],
)
def test_impossible_options_are_refused(options, says):
    with pytest.raises(DipmedError, match=says):
        FrequencyRegularised(**options)
