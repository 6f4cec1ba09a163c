import pytest
import torch

from dipmed.config import FitConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.subspace import Subspace
from dipmed.scan import DipmedError

SHORT = Subspace.configure(FitConfig(), "mri").replace(stop="budget", iterations=60)


class Watched(Subspace):
    def begin(self, fit):
        self.network = fit.network
        self.optimizers = fit.optimizers


def test_only_the_coefficients_change_and_the_weights_stay_in_their_span(small_scan, pretrained):
    y, A, _, _ = small_scan
    method = Watched(weights=pretrained, n_directions=12)
    result = DeepImagePrior(SHORT, method=method)(y, A)
    trained = [value for one in method.optimizers for group in one.param_groups for value in group["params"]]
    assert len(trained) == 1
    assert trained[0] is method.network.coefficients
    assert trained[0].shape == (12,)
    assert bool((trained[0] != 0).all())
    moved = torch.cat(
        [(value.detach() - pretrained.weights[name]).flatten() for name, value in method.network.weights().items()]
    )
    spanned = torch.cat([pretrained.directions[name][:12].flatten(1) for name in method.network.shapes], 1)
    assert float(moved.norm()) > 0
    left = moved - spanned.T @ torch.linalg.lstsq(spanned.T, moved[:, None]).solution[:, 0]
    assert float(left.norm()) < 1e-4 * float(moved.norm())
    losses = dict(result.curves["loss"])
    assert losses[60] < 0.8 * losses[1]


def test_directions_are_orthonormal_and_ordered(pretrained):
    flat = torch.cat([share.flatten(1) for share in pretrained.directions.values()], 1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(20), atol=1e-4, rtol=0)


def test_all_checkpoints_lie_in_the_span_of_as_many_directions(pretraining):
    network = torch.nn.Linear(40, 2)
    checkpoints = pretraining.Checkpoints(3)
    for row in torch.randn(3, 82, generator=torch.Generator().manual_seed(0)):
        checkpoints.taken.append(row)
    directions = checkpoints.directions(network)
    basis = torch.cat([share.flatten(1) for share in directions.values()], 1)
    away = torch.stack(checkpoints.taken) - pretraining.flatten(network)
    torch.testing.assert_close(away @ basis.T @ basis, away, atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_directions", [0, 21])
def test_as_many_directions_as_there_are_can_be_used(small_scan, pretrained, n_directions):
    y, A, _, _ = small_scan
    with pytest.raises(DipmedError, match="must be 1 to 20"):
        DeepImagePrior(SHORT, method=Subspace(pretrained, n_directions))(y, A)


def test_weights_without_directions_are_refused(small_scan, pretraining, pretrained):
    y, A, _, _ = small_scan
    bare = pretraining.PretrainedWeights(pretrained.network, "mri", 2, pretrained.weights)
    with pytest.raises(DipmedError, match="without directions"):
        DeepImagePrior(SHORT, method=Subspace(bare))(y, A)
