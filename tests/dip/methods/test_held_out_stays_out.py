"""No method shows the network what is kept from the fit, or a rule that judges by it would be fooled."""

from dataclasses import replace

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip.fit import Fit
from dipmed.dip.methods import FIT_METHODS
from dipmed.dip.problem import make_problem
from dipmed.dip.stopping import Panel, make_rules

SMALL = FitConfig(network=NetworkConfig(channels=(8, 8), skip_channels=4, up_channels=8), iterations=8, held_out=0.2)


SMALLER = {
    "deep-decoder": {"layers": 3},
    "frequency-regularised": {"layers": 3},
    "optimal-eye-surgeon": {"channels": (8, 8), "mask_steps": 2},
}
"""Options for images of 24 x 20 pixels."""

SINGLE = [name for name, method in FIT_METHODS.items() if "mri" in method.modalities and name != "time-dependent"]
"""A series is fitted frame by frame of another problem."""


def output_of(method, problem, config):
    rules = make_rules("held-out", (), noise_is_measured=False)
    fit = Fit(problem, config, method, Panel(rules, problem), torch.Generator().manual_seed(0), 0.0)
    for _ in range(4):
        fit.step()
    return fit.output


@pytest.mark.parametrize("name", SINGLE)
def test_what_is_held_out_does_not_change_the_fit(small_scan, pretrained, name):
    y, A, _, _ = small_scan
    options = dict(SMALLER.get(name, {}))
    if name == "reference-guided":
        options["guide"] = torch.ones(A.domain.shape)
    if name in ("edip", "subspace"):
        options["weights"] = pretrained
    method = FIT_METHODS[name](**options)
    config = method.configure(SMALL, "mri").replace(iterations=8, stop="held-out", refit_share=0.0)
    if "weights" in options:
        config = config.replace(network=pretrained.network)
    problem = make_problem(
        y,
        A,
        kspace_exponent=config.kspace_exponent,
        phase_weight=config.phase_weight,
        data_loss=config.data_loss,
        held_out=0.2,
        noise_variance=None,
        generator=torch.Generator().manual_seed(0),
    )
    changed = torch.where(problem.held_out_mask, -3 * problem.y, problem.y)
    adjoint = A.adjoint(changed)
    other = replace(problem, y=changed, adjoint_data=adjoint, final_data=adjoint)
    assert torch.equal(output_of(method, problem, config), output_of(method, other, config))
