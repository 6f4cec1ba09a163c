import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.double_over import DoubleOverparameterisation
from dipmed.dip.methods.plain import Vanilla
from dipmed.scan import DipmedError

TINY = NetworkConfig(channels=(8, 8), skip_channels=4, up_channels=8)
CONFIG = DoubleOverparameterisation.configure(FitConfig(), "mri").replace(
    network=TINY, iterations=250, adam_rate=1e-2, averaging=0.9, stop="budget"
)


class Watched(DoubleOverparameterisation):
    """Keeps the fit, to look into it afterwards."""

    def begin(self, fit):
        super().begin(fit)
        self.fit = fit


def error(result, truth):
    return float((result.image - truth).norm() / truth.norm())


def test_each_step_is_gradient_descent_on_the_squares(small_scan):
    y, A, _, _ = small_scan

    class Checked(Watched):
        def after_step(self, fit, gradient):
            plus = fit.state["plus"].clone().requires_grad_()
            minus = fit.state["minus"].clone().requires_grad_()
            residual = fit.problem.A_fit(fit.output)[0] - fit.problem.y_fit
            with torch.enable_grad():
                outliers = torch.view_as_complex(plus.square() - minus.square())
                (residual + outliers).abs().square().sum().backward()
            rate = self.outlier_rate / fit.problem.y.abs().max() / 4
            expected = plus.detach() - rate * plus.grad, minus.detach() - rate * minus.grad
            super().after_step(fit, gradient)
            torch.testing.assert_close((fit.state["plus"], fit.state["minus"]), expected)

    DeepImagePrior(CONFIG.replace(iterations=5), method=Checked(outlier_rate=0.9))(y, A)


def test_spikes_in_k_space_are_found_and_taken_out(small_scan):
    y, A, truth, _ = small_scan
    spikes = torch.zeros_like(y)
    places = torch.nonzero(A.mask)[5::40]
    spikes[0, places[:, 0], places[:, 1]] = y.abs().max() * (0.6 - 0.8j)
    method = Watched(outlier_rate=0.5)
    robust = DeepImagePrior(CONFIG, method=method)(y + spikes, A)
    assert error(robust, truth) < 0.7 * error(DeepImagePrior(CONFIG, method=Vanilla())(y + spikes, A), truth)
    found = method.outliers(method.fit) / robust.scale
    assert (found - spikes).norm() < 0.5 * spikes.norm()
    assert int((found.abs() > 0.1 * spikes.abs().max()).sum()) < 3 * len(places)


def test_offsets_of_detector_cells_are_found_as_rings(small_slice):
    y, A, truth = small_slice
    offsets = torch.zeros(y.shape[-1])
    offsets[[12, 21]] = 0.6 * y.max() * torch.tensor([1.0, -1.0])
    method = Watched(outlier_rate=0.5, rings=True)
    robust = DeepImagePrior(CONFIG, method=method)(y + offsets, A)
    found = method.outliers(method.fit)
    assert found.shape == (1, 1, 36)
    assert set(found.flatten().abs().topk(2).indices.tolist()) == {12, 21}
    assert float(found[0, 0, 12]) > 0 > float(found[0, 0, 21])
    assert error(robust, truth) < error(DeepImagePrior(CONFIG, method=Vanilla())(y + offsets, A), truth)


def test_a_cone_beam_has_rings_of_cells(small_volume):
    y, A, _ = small_volume
    method = Watched(rings=True)
    result = DeepImagePrior(CONFIG.replace(iterations=5), method=method)(y, A)
    assert method.outliers(method.fit).shape == (1, 1, *y.shape[2:])
    assert result.image.isfinite().all()


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        ({"rings": True}, {}, "rings"),
        ({}, {"kspace_exponent": 0.5}, "kspace_exponent"),
        ({}, {"data_loss": "norm"}, "norm"),
    ],
)
def test_what_does_not_go_together_is_refused(small_scan, options, changes, words):
    y, A, _, _ = small_scan
    with pytest.raises(DipmedError, match=words):
        DeepImagePrior(CONFIG.replace(**changes), method=DoubleOverparameterisation(**options))(y, A)


def test_a_rate_that_flips_signs_is_refused():
    with pytest.raises(DipmedError, match="outlier_rate"):
        DoubleOverparameterisation(outlier_rate=1.0)
