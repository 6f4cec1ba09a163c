"""Measured locations that are kept from a fit, to judge it by."""

from __future__ import annotations

import torch
from torch import Tensor

from dipmed.scan import DipmedError
from operators import (
    CartesianMRI,
    FilteredProjector,
    Frames,
    ImageMask,
    LinearOperator,
    MRIOperator,
    NonCartesianMRI,
    Series,
    Slices,
)

WITH_A_MASK = CartesianMRI | NonCartesianMRI | FilteredProjector | ImageMask | Frames | Slices
"""Operators whose locations can be seen one by one; their norm is 1 or a little less."""

_CORE = 8
"""Half-open width of the k-space centre that is never held out: without it no image has a brightness."""


def hold_out(
    A: LinearOperator, share: float, generator: torch.Generator
) -> tuple[Tensor, LinearOperator, LinearOperator]:
    """Draw sampled locations outside the core, or views; return them, the operator of the others, and theirs.

    Raises
    ------
    DipmedError
        When the operator cannot be taken apart, or too few locations are left to hold any out.
    """
    if not isinstance(A, WITH_A_MASK):
        raise DipmedError(f"held-out stopping cannot take {A!r} apart; choose another rule with --stop")
    mask = A.mask.cpu()
    candidates = torch.nonzero((mask & ~_core(A)).flatten()).squeeze(1)
    n_held_out = round(share * int(mask.sum()))
    if isinstance(A, FilteredProjector):  # of which there may be few
        n_held_out = max(1, n_held_out)
    if not 0 < n_held_out < len(candidates):
        raise DipmedError(
            f"cannot hold {share:.0%} of {int(mask.sum())} sampled locations out of the fit: {len(candidates)} lie "
            "outside the centre; choose another rule with --stop"
        )
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[:n_held_out]]
    held_out = torch.zeros(mask.numel(), dtype=torch.bool)
    held_out[chosen] = True
    held_out = held_out.reshape(mask.shape)
    fitted, measured = A.with_mask((mask & ~held_out).to(A.device)), A.with_mask(held_out.to(A.device))
    return held_out.to(A.device), fitted, measured


def _core(A: MRIOperator | FilteredProjector | ImageMask | Series) -> Tensor:
    """Locations without which no image has a brightness: the middle of k-space, but no view of a CT scan, no voxel."""
    core = torch.ones_like(A.mask, device="cpu")
    if isinstance(A, FilteredProjector | ImageMask):
        return ~core
    for along in A.positions:
        core = core & (along.cpu() >= -_CORE / 2) & (along.cpu() < _CORE / 2)
    return core
