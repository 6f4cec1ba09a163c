import pytest
import torch

from dipmed.nets import ConvDecoder, DeepDecoder, Gaussian, build
from dipmed.nets.ladder import geometric_sizes, halved_sizes, ladder_sizes
from dipmed.nets.upsample import Resize
from dipmed.scan import DipmedError

# arXiv:2007.02471: a knee of 640 x 368 pixels in 8 layers
PUBLISHED_SIZES = [(8, 4), (15, 8), (28, 15), (53, 28), (98, 53), (183, 102), (343, 193), (640, 368)]


def decoder(kind, shape, generator, **options):
    return build(lambda: kind(3, 4, len(shape), shape=shape, channels=8, layers=4, **options), generator)


def test_sizes_are_the_published_ones():
    assert geometric_sizes((8, 4), (640, 368), 7) == PUBLISHED_SIZES
    assert build(lambda: ConvDecoder(2, 2, 2, shape=(640, 368), channels=2), torch.Generator()).seed_shape == (8, 4)


def test_sizes_of_a_whole_ratio_gain_no_pixel():
    # 8 * 32 ** (4 / 5) is a little above 128 in floating point
    assert geometric_sizes((8, 3), (256, 96), 5) == [(8, 3), (16, 6), (32, 12), (64, 24), (128, 48), (256, 96)]


def test_halves_double_to_the_next_size_or_one_more():
    sizes = halved_sizes((45, 32, 7), 3)
    assert sizes == [(6, 4, 1), (12, 8, 2), (23, 16, 4), (45, 32, 7)]


def test_weights_are_as_many_as_published():
    # 8 layers of 160 channels for 15 coils have 1.85 million
    network = ConvDecoder(160, 30, 2, shape=(640, 368))
    assert round(sum(p.numel() for p in network.parameters()), -4) == 1_850_000


@pytest.mark.parametrize("kind", [ConvDecoder, DeepDecoder])
@pytest.mark.parametrize("upsample", ["nearest", "linear", "kaiser", Gaussian(5, 0.5)])
@pytest.mark.parametrize("shape", [(33, 26), (17, 12, 9)])
def test_image_has_the_shape(kind, upsample, shape, generator):
    network = decoder(kind, shape, generator, upsample=upsample)
    seed = torch.rand(2, 3, *network.seed_shape, generator=generator)
    assert network(seed).shape == (2, 4, *shape)


@pytest.mark.parametrize("kind", [ConvDecoder, DeepDecoder])
def test_seed_of_a_chosen_size(kind, generator):
    network = decoder(kind, (33, 26), generator, seed_shape=(5, 3))
    assert network.seed_shape == (5, 3)
    assert network(torch.rand(1, 3, 5, 3, generator=generator)).shape == (1, 4, 33, 26)


@pytest.mark.parametrize("kind", [ConvDecoder, DeepDecoder])
def test_weights_come_from_the_generator_alone(kind):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, again, other = (decoder(kind, (16, 12), torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    seed = torch.rand(1, 3, *first.seed_shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first(seed), again(seed))
    assert not torch.equal(first(seed), other(seed))


@pytest.mark.parametrize("kind", [ConvDecoder, DeepDecoder])
@pytest.mark.parametrize("upsample", ["nearest", "kaiser"])
def test_every_weight_has_a_gradient(kind, upsample, generator):
    network = decoder(kind, (17, 12), generator, upsample=upsample)
    seed = torch.rand(1, 3, *network.seed_shape, generator=generator)
    network(seed).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("upsample", ["nearest", "gaussian"])
def test_weights_and_whole_network_survive_storage(upsample, generator, stored):
    network = decoder(ConvDecoder, (17, 12), generator, upsample=upsample)
    seed = torch.rand(1, 3, *network.seed_shape, generator=generator)
    other = decoder(ConvDecoder, (17, 12), torch.Generator().manual_seed(9), upsample=upsample)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(seed), network(seed))
    assert torch.equal(stored(network)(seed), network(seed))


@pytest.mark.parametrize(("kind", "mixes"), [(DeepDecoder, False), (ConvDecoder, True)])
def test_only_upsampling_sees_neighbours_in_a_deep_decoder(kind, mixes, generator):
    network = decoder(kind, (16, 16), generator)
    for index, stage in enumerate(network.stages):
        if isinstance(stage, Resize):
            network.stages[index] = torch.nn.Identity()
    seed = torch.rand(1, 3, *network.seed_shape, generator=generator)
    order = torch.randperm(seed[0, 0].numel(), generator=generator)

    def shuffle(x):
        return x.flatten(2)[..., order].reshape(x.shape)

    same = torch.allclose(network(shuffle(seed)), shuffle(network(seed)), atol=1e-5)
    assert same != mixes


def test_slices_of_a_batch_do_not_mix(generator):
    network = decoder(ConvDecoder, (17, 12), generator)
    seeds = torch.rand(3, 3, *network.seed_shape, generator=generator)
    alone = torch.cat([network(seed[None]) for seed in seeds])
    torch.testing.assert_close(network(seeds), alone, rtol=1e-4, atol=1e-5)


def test_normalisation_is_that_of_a_batch_of_one(generator):
    ours = decoder(ConvDecoder, (17, 12), generator)
    theirs = decoder(ConvDecoder, (17, 12), torch.Generator().manual_seed(0))
    for index, stage in enumerate(theirs.stages):
        if isinstance(stage, torch.nn.GroupNorm):
            theirs.stages[index] = torch.nn.BatchNorm2d(8)
    seed = torch.rand(1, 3, *ours.seed_shape, generator=generator)
    torch.testing.assert_close(ours(seed), theirs(seed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed_shape": (8, 40)}, "cannot have the size"),
        ({"seed_shape": (8,)}, "cannot have the size"),
        ({"seed_shape": (8, 4), "upsample": "kaiser"}, "leave the size of the input out"),
        ({"layers": 1}, "two layers or more"),
        ({"layers": 8, "upsample": "kaiser"}, "take fewer layers"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(DipmedError, match=message):
        ConvDecoder(3, 4, 2, **{"shape": (33, 26), **options})


def test_shapes_of_another_dimension_are_refused():
    with pytest.raises(DipmedError, match="3 axes"):
        DeepDecoder(3, 4, 3, shape=(33, 26))


def test_an_input_of_another_size_is_refused(generator):
    network = decoder(ConvDecoder, (33, 26), generator)
    with pytest.raises(DipmedError, match=r"must have the size \(8, 4\)"):
        network(torch.rand(1, 3, 4, 8))


def test_a_size_that_is_reached_already_stays():
    assert ladder_sizes((6, 4), 1, "linear", (6, 4)) == [(6, 4), (6, 4)]
