"""What a fit goes back to is as it was, however often it goes back."""

import torch

from dipmed.dip.recovery import Snapshot


def test_steps_after_going_back_leave_the_snapshot_as_it_was():
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters())
    held = torch.ones(2)

    def step():
        optimizer.zero_grad()
        network(torch.ones(3)).square().sum().backward()
        optimizer.step()
        held.add_(1)
        return [value.clone() for state in optimizer.state_dict()["state"].values() for value in state.values()]

    step()
    snapshot = Snapshot.take(7, 0.5, network, [optimizer], {"held": held}, None)
    ways = []
    for _ in range(2):
        assert snapshot.restore(network, [optimizer], {"held": held}) == (7, None)
        assert torch.equal(held, torch.full((2,), 2.0))
        ways.append([*step(), network.weight.detach().clone()])
    assert all(torch.equal(one, other) for one, other in zip(*ways, strict=True))
