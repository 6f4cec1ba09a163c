import pytest
import torch
from torch import nn

from dipmed.config import FitConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.implicit import Implicit
from dipmed.nets import coordinates
from dipmed.scan import DipmedError
from operators import total_variation

SMALL = {"frequencies": 24, "channels": 32, "layers": 3}


def configured(modality, iterations, **changes):
    config = Implicit.configure(FitConfig(), modality)
    return config.replace(iterations=iterations, stop="budget", adam_rate=1e-3, **changes)


class Watched(Implicit):
    """Keeps the fit, to look into it afterwards."""

    def begin(self, fit):
        self.fit = fit


def test_every_pixel_is_a_function_of_its_position_alone(small_scan):
    y, A, _, _ = small_scan
    method = Watched(**SMALL)
    DeepImagePrior(configured("mri", 3), method=method)(y, A)
    network, features = method.fit.network, method.fit.input
    assert {m.kernel_size for m in network.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert features.shape == (1, 48, 24, 20)
    torch.testing.assert_close(features[:, :24] ** 2 + features[:, 24:] ** 2, torch.ones(1, 24, 24, 20))
    moved = features.clone()
    moved[..., 5, 7] += 1
    changed = (network(moved) - network(features)).abs().sum((0, 1)) > 1e-4
    assert changed[5, 7]
    assert changed.sum() == 1


@pytest.mark.parametrize("options", [{}, {"activation": "relu"}, {"frequencies": 0}])
def test_each_kind_explains_the_data(small_scan, options):
    y, A, truth, _ = small_scan
    method = Watched(**{**SMALL, **options})
    image = DeepImagePrior(configured("mri", 150), method=method)(y, A).image
    assert (image - truth).norm() < 0.4 * truth.norm()
    if options.get("frequencies") == 0:
        assert torch.equal(method.fit.input, coordinates((24, 20)))


def test_more_frequencies_make_a_finer_first_image(small_scan):
    y, A, _, _ = small_scan
    rough = {}
    for scale in (0.5, 4.0):
        method = Watched(**SMALL, frequency_scale=scale, activation="relu")
        DeepImagePrior(configured("mri", 1), method=method)(y, A)
        image = method.fit.network(method.fit.input).detach()
        rough[scale] = float(image.diff(dim=-1).square().mean() / image.var())
    assert rough[4.0] > 2 * rough[0.5]


def test_total_variation_smooths(small_scan):
    y, A, _, _ = small_scan
    variation = {}
    for weight in (0.0, 1.0):
        config = configured("mri", 80, tv_weight=weight)
        variation[weight] = float(total_variation(DeepImagePrior(config, method=Implicit(**SMALL))(y, A).image, 2))
    assert variation[1.0] < 0.8 * variation[0.0]


@pytest.mark.parametrize("scan", ["small_slice", "small_volume", "small_mri_volume"])
def test_projections_and_volumes_are_fitted(request, scan):
    y, A, truth = request.getfixturevalue(scan)
    config = configured("mri" if truth.is_complex() else "ct", 80)
    smooth = Implicit(**SMALL, frequency_scale=0.3, w0=10.0)
    image = DeepImagePrior(config, method=smooth)(y, A).image
    assert image.shape == truth.shape
    assert (image - truth).norm() < 0.5 * truth.norm()


@pytest.mark.parametrize(
    ("options", "says"),
    [({"frequencies": -1}, "frequencies"), ({"layers": 0}, "layer"), ({"w0": 0.0}, "w0")],
)
def test_impossible_options_are_refused(options, says):
    with pytest.raises(DipmedError, match=says):
        Implicit(**options)


def test_other_inputs_are_refused(small_scan):
    y, A, _, _ = small_scan
    with pytest.raises(DipmedError, match="own input"):
        DeepImagePrior(configured("mri", 1, inputs=("tv",)), method=Implicit(**SMALL))(y, A)
