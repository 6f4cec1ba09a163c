import math

import pytest
import torch

from dipmed.nets import ImplicitNetwork, build, coordinates, fourier_features


def fresh(ndim=2, seed=0, **options):
    options = {"channels": 16, "layers": 3, **options}
    return build(lambda: ImplicitNetwork(ndim, 2, ndim, **options), torch.Generator().manual_seed(seed))


def kernels(network):
    return [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Conv3d))]


def test_coordinates_span_the_image():
    positions = coordinates((5, 1, 3))
    assert positions.shape == (1, 3, 5, 1, 3)
    torch.testing.assert_close(positions[0, 0, :, 0, 0], torch.tensor([-1, -0.5, 0, 0.5, 1]))
    assert torch.equal(positions[0, 1], torch.zeros(5, 1, 3))
    torch.testing.assert_close(positions[0, 2, 0, 0], torch.tensor([-1.0, 0, 1]))


@pytest.mark.parametrize("activation", ["sine", "relu"])
@pytest.mark.parametrize("shape", [(9, 7), (5, 6, 3)])
def test_image_has_the_shape(activation, shape):
    network = fresh(len(shape), activation=activation)
    assert network(coordinates(shape)).shape == (1, 2, *shape)


@pytest.mark.parametrize("activation", ["sine", "relu"])
def test_each_pixel_is_seen_by_itself(activation):
    network = fresh(activation=activation)
    positions = coordinates((9, 7))
    alone = torch.stack([network(positions[..., i : i + 1, j : j + 1])[0, :, 0, 0] for i, j in [(0, 0), (4, 3)]])
    whole = network(positions)
    torch.testing.assert_close(alone, torch.stack([whole[0, :, 0, 0], whole[0, :, 4, 3]]), rtol=1e-4, atol=1e-5)


def test_first_weights_of_sines_fill_their_range():
    network = fresh(channels=64, w0=31.0)
    first, *others = kernels(network)
    for kernel, bound in [(first, 1 / 2), *((other, math.sqrt(6 / 64) / 31) for other in others)]:
        largest = float(kernel.weight.detach().abs().max())
        assert 0.9 * bound < largest <= bound
    assert len(others) == 3


def test_sines_keep_the_distribution_of_features():
    # the arcsine distribution, of standard deviation 1/√2, in every layer
    network = fresh(channels=256, layers=5)
    x = coordinates((40, 40))
    spreads = []
    for stage in network.stages:
        x = stage(x)
        if type(stage).__name__ == "_Sine":
            spreads.append(float(x.detach().std()))
    assert spreads == pytest.approx([math.sqrt(0.5)] * 5, abs=0.03)


def test_a_higher_factor_gives_finer_detail():
    def roughness(w0):
        image = fresh(channels=64, w0=w0)(coordinates((64, 64))).detach()
        return float(image.diff(dim=-1).std() / image.std())

    assert roughness(30.0) > 3 * roughness(5.0)


@pytest.mark.parametrize("activation", ["sine", "relu"])
def test_weights_come_from_the_generator_alone(activation):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, again, other = (fresh(seed=seed, activation=activation)(coordinates((5, 4))) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("activation", ["sine", "relu"])
def test_gradients_and_storage(activation, stored):
    network = fresh(activation=activation)
    network(coordinates((9, 7))).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    other = fresh(seed=9, activation=activation)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(coordinates((5, 4))), network(coordinates((5, 4))))
    assert torch.equal(stored(network)(coordinates((5, 4))), network(coordinates((5, 4))))


def test_features_are_waves_of_the_drawn_frequencies(generator):
    features = fourier_features(coordinates((9, 7)), 6, 2.0, generator)
    assert features.shape == (1, 12, 9, 7)
    torch.testing.assert_close(features[:, :6].square() + features[:, 6:].square(), torch.ones(1, 6, 9, 7))
    torch.testing.assert_close(features[0, :, 4, 3], torch.tensor([0.0] * 6 + [1.0] * 6))
    drawn = 2.0 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    corner = 2 * math.pi * drawn.sum(1)
    torch.testing.assert_close(features[0, :6, -1, -1], corner.sin(), atol=1e-5, rtol=0)
    torch.testing.assert_close(features[0, 6:, -1, 0], (2 * math.pi * (drawn[:, 0] - drawn[:, 1])).cos())


def test_a_network_on_features(generator):
    features = fourier_features(coordinates((9, 7, 5)), 6, 2.0, generator)
    network = build(lambda: ImplicitNetwork(12, 1, 3, channels=16, layers=2), generator)
    assert network(features).shape == (1, 1, 9, 7, 5)
