import pytest
import torch

from dipmed.nets import Hourglass, build
from dipmed.scan import DipmedError


def fresh(ndim, seed=0, **options):
    return build(lambda: Hourglass(3, 2, ndim, channels=(4, 6, 8), **options), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(33, 26), (17, 9, 12)])
@pytest.mark.parametrize("down", ["average", "stride"])
@pytest.mark.parametrize("upsample", ["nearest", "kaiser"])
def test_any_size_is_kept(shape, down, upsample, generator):
    network = fresh(len(shape), down=down, upsample=upsample)
    assert network(torch.rand(2, 3, *shape, generator=generator)).shape == (2, 2, *shape)


def test_published_sizes():
    network = Hourglass(32, 1, 2)
    kernels = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [k.out_channels for k in kernels[:12:2]] == [16, 32, 64, 128, 128, 128]
    assert {k.kernel_size for k in kernels[:12]} == {(5, 5)}


@pytest.mark.parametrize("down", ["average", "stride"])
def test_all_that_the_decoder_knows_passes_the_coarsest_scale(down, generator):
    network = fresh(2, down=down)
    coarsest = []
    network.downs[-1].register_forward_hook(lambda _module, _inputs, output: coarsest.append(output))
    x = torch.rand(1, 3, 16, 16, generator=generator)
    output = network(x)
    assert coarsest[0].shape[2:] == (2, 2)
    with torch.no_grad():
        again = coarsest[0]
        for size, up in zip([(4, 4), (8, 8), (16, 16)], reversed(network.ups), strict=True):
            again = up(torch.nn.functional.interpolate(again, size))
        torch.testing.assert_close(network.out(again), output.detach())


def test_weights_come_from_the_generator_alone(generator):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, again, other = fresh(2, 3), fresh(2, 3), fresh(2, 4)
    assert torch.equal(before, torch.random.get_rng_state())
    x = torch.rand(1, 3, 16, 16, generator=generator)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))


def test_every_weight_has_a_gradient(generator):
    network = fresh(2)
    network(torch.rand(1, 3, 33, 26, generator=generator)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_whole_network_survives_storage(generator, stored):
    network = fresh(2)
    x = torch.rand(1, 3, 17, 12, generator=generator)
    assert torch.equal(stored(network)(x), network(x))


def test_an_image_smaller_than_the_scales_is_refused():
    with pytest.raises(DipmedError, match="a single pixel"):
        fresh(2)(torch.rand(1, 3, 8, 8))
