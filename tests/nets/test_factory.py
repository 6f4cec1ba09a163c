import pytest
import torch

from dipmed.config import NetworkConfig
from dipmed.nets import UNet, build, initialise, make_network

TINY = NetworkConfig((8, 8), 4, 4)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_a_network_made_with_weights_gets_those_of_the_generator():
    ready = initialise(UNet(TINY, 2, 2, 2), torch.Generator().manual_seed(5))
    assert torch.equal(weights(ready), weights(make_network(TINY, 2, 2, 2, torch.Generator().manual_seed(5))))


def test_frozen_weights_stay_frozen(generator):
    def construct():
        network = UNet(TINY, 2, 2, 2)
        network.out.requires_grad_(False)
        return network

    network = build(construct, generator)
    assert not network.out.weight.requires_grad
    assert network.skips[0][0].weight.requires_grad


def test_weights_without_a_rule_are_refused(generator):
    with pytest.raises(TypeError, match="PReLU"):
        build(lambda: torch.nn.Sequential(torch.nn.PReLU()), generator)


@pytest.mark.parametrize(("channels", "groups"), [(12, 6), (7, 7), (11, 1), (64, 8), (4, 4)])
def test_any_number_of_channels_can_be_normalised(channels, groups, generator):
    network = make_network(NetworkConfig((channels, channels), 3, 5), 2, 2, 2, generator)
    assert {m.num_groups for m in network.modules() if isinstance(m, torch.nn.GroupNorm)} == {groups}
    assert network(torch.rand(1, 2, 8, 8, generator=generator)).shape == (1, 2, 8, 8)


def test_a_unet_of_one_scale(generator):
    # that of the deep random projector, T. Li et al., CVPR 2023
    network = make_network(NetworkConfig((64,), 64, 64), 3, 2, 2, generator)
    assert network(torch.rand(1, 3, 10, 12, generator=generator)).shape == (1, 2, 10, 12)


def test_a_gain_scales_the_kernels_and_nothing_else():
    plain, scaled = (
        make_network(TINY, 2, 2, 2, torch.Generator().manual_seed(5), gain=gain).state_dict() for gain in (1.0, 0.25)
    )
    for name, parameter in plain.items():
        assert torch.equal(scaled[name], 0.25 * parameter if parameter.ndim == 4 else parameter), name
