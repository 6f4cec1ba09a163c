import math

import pytest
import torch

from dipmed.nets import TimeDecoder, build, helix
from dipmed.nets.upsample import Resize
from dipmed.scan import DipmedError


def fresh(shape, seed=0):
    def construct():
        return TimeDecoder(3, 2, len(shape), shape=shape, hidden=16, channels=8)

    return build(construct, torch.Generator().manual_seed(seed))


def test_helix_turns_once_a_cycle():
    points = helix(torch.tensor([0.0, 1 / 13, 0.5 / 13, 0.25 / 13]), 13)
    expected = [[1, 0, 0], [1, 0, 1 / 13], [-1, 0, 0.5 / 13], [0, 1, 0.25 / 13]]
    torch.testing.assert_close(points, torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(33, 26), (17, 12, 6)])
def test_each_frame_has_the_shape(shape):
    assert fresh(shape)(helix(torch.linspace(0, 1, 4), 2)).shape == (4, 2, *shape)


def test_published_sizes():
    network = TimeDecoder(3, 2, 2, shape=(128, 128))
    assert [(m.in_features, m.out_features) for m in network.to_seed if isinstance(m, torch.nn.Linear)] == [
        (3, 512),
        (512, 64),
    ]
    assert [m.size_out for m in network.stages if isinstance(m, Resize)] == [(16, 16), (32, 32), (64, 64), (128, 128)]


def test_frames_do_not_depend_on_those_beside_them():
    network = fresh((17, 12))
    points = helix(torch.linspace(0, 1, 3), 2)
    alone = torch.cat([network(point[None]) for point in points])
    torch.testing.assert_close(network(points), alone, rtol=1e-4, atol=1e-5)


def test_moments_that_look_alike_give_images_that_look_alike():
    network = fresh((17, 12))
    start, half_later, cycle_later = network(helix(torch.tensor([0.0, 0.5 / 40, 1 / 40]), 40)).detach()
    assert (cycle_later - start).norm() < 0.2 * (half_later - start).norm()


def test_weights_come_from_the_generator_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    points = helix(torch.linspace(0, 1, 2), 2)
    first, again, other = (fresh((17, 12), seed)(points) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_linear_layers_start_with_the_scale_of_torch():
    network = build(lambda: TimeDecoder(3, 2, 2, shape=(16, 16)), torch.Generator().manual_seed(0))
    weight = network.to_seed[2].weight.detach()
    assert float(weight.std()) == pytest.approx(1 / math.sqrt(3 * 512), rel=0.05)


def test_gradients_and_storage(stored):
    network = fresh((17, 12))
    points = helix(torch.linspace(0, 1, 2), 2)
    network(points).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert torch.equal(stored(network)(points), network(points))


def test_points_without_frames_are_refused():
    with pytest.raises(DipmedError, match="two axes"):
        fresh((17, 12))(torch.zeros(3))
