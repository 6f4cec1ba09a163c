import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.start import start_from, weights_of
from dipmed.nets import make_network
from dipmed.scan import DipmedError

CONFIG = FitConfig(
    network=NetworkConfig(channels=(8, 8), skip_channels=4, up_channels=8),
    inputs=("zero-filled",),
    data_consistency_steps=2,  # as many as pay would make up for a network that has not learned
    gain=1.0,
    rate=0.03,
    iterations=40,
    mixed_precision="off",
)


def fresh(seed, last=torch.channels_last):
    network = make_network(CONFIG.network, 2, 2, 2, torch.Generator().manual_seed(seed))
    return network.to(memory_format=last)


def test_weights_go_from_one_network_to_another():
    first, second = fresh(0), fresh(1)
    start_from(second, weights_of(first))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.data_ptr() != b.data_ptr()


def test_weights_of_another_network_are_refused():
    with pytest.raises(DipmedError, match="cannot start from"):
        start_from(fresh(0), torch.zeros(7))


def test_a_fit_from_a_neighbours_weights_needs_fewer_iterations(small_scan):
    y, A, truth, _ = small_scan

    def error(image):
        return float((image - truth).abs().square().sum() / truth.abs().square().sum())

    neighbour = DeepImagePrior(CONFIG, keep_weights=True)(0.8 * y, A)
    few = CONFIG.replace(iterations=10)
    cold = DeepImagePrior(few)(y, A)
    warm = DeepImagePrior(few, start=neighbour.weights)(y, A)
    assert warm.is_warm
    assert not cold.is_warm
    assert cold.weights is None
    assert error(warm.image) < 0.5 * error(cold.image)


def test_a_warm_fit_is_shorter_and_its_input_comes_as_far():
    warm = CONFIG.replace(iterations=600, warm_share=0.1).warmed()
    assert warm.iterations == 60
    assert warm.rate == pytest.approx(CONFIG.rate / 2)
    assert (1 - warm.input_drift) ** 60 == pytest.approx((1 - CONFIG.input_drift) ** 600, abs=1e-2)
    assert CONFIG.replace(input_drift=0.5, warm_share=0.1).warmed().input_drift == 1.0
