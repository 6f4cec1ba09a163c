"""DeepRED: the output is drawn towards what a denoiser leaves as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from dipmed.dip.denoisers import non_local_means, shifted_wavelets
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import HELD_OUT_VIEWS, PUBLISHED
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class DeepRED(FitMethod):
    """``min_{θ, x} ‖A f(z; θ) − y‖² + β Re⟨x, x − D(x)⟩`` subject to ``x = f(z; θ)``, with a denoiser D.

    By alternating directions with the multiplier u: each step moves the weights θ along the gradient of

        ‖A f − y‖² / ‖y‖² + μ ‖f − x + u‖² / ‖Aᴴy‖²

    then takes one step of the fixed point of x, ``x ← (β D(x) + μ (f + u)) / (β + μ)``, and last ``u ← u + f − x``.
    No derivative of D is needed.

    G. Mataev, P. Milanfar, M. Elad, "DeepRED: deep image prior powered by RED", 2019, arXiv:1903.10176.

    Parameters
    ----------
    denoiser
        ``"nlm"``, non-local means, or ``"wavelet"``, see `dipmed.dip.denoisers`.
    strength
        Of the denoiser; images peak near 1, those from projections near 2.2.
    prior_weight, coupling
        β and μ; by default what is published for super-resolution.
    refresh
        Iterations for which D(x) is used before it is computed anew.
    """

    name: ClassVar[str] = "deep-red"
    family: ClassVar[str] = "regularisation"
    summary: ClassVar[str] = "The output is drawn towards what a denoiser without training leaves as it is."
    suits: ClassVar[str] = "noisy scans, repeated structure"
    citation: ClassVar[str] = "arXiv:1903.10176"
    deviations: ClassVar[str] = (
        "weights that stay constant, images not clipped, the denoiser in the same thread as the fit"
    )
    cost: ClassVar[float] = 1.5
    changes: ClassVar[Mapping[str, Any]] = PUBLISHED
    ct_changes: ClassVar[Mapping[str, Any]] = HELD_OUT_VIEWS

    denoiser: Literal["nlm", "wavelet"] = "nlm"
    strength: float = 0.05
    prior_weight: float = 0.05
    coupling: float = 0.06
    refresh: int = 10

    def __post_init__(self) -> None:
        if self.denoiser not in ("nlm", "wavelet"):
            raise DipmedError(f"unknown denoiser {self.denoiser!r}; choose nlm or wavelet")
        if min(self.strength, self.prior_weight, self.coupling) <= 0 or self.refresh < 1:
            raise DipmedError(
                f"strength, prior_weight and coupling must be positive, and refresh at least 1, got {self}"
            )

    def begin(self, fit: Fit) -> None:
        # of what is fitted alone: held-out locations must not be seen here either
        start = fit.problem.A_fit.adjoint(fit.problem.y_fit)[None]
        fit.state.update(image=start.clone(), denoised=start.clone(), multiplier=torch.zeros_like(start))
        fit.state["energy"] = _energy(start)

    def penalty(self, fit: Fit, prediction: Tensor) -> Tensor:
        distance = prediction - fit.state["image"] + fit.state["multiplier"]
        return self.coupling * _energy(distance) / fit.state["energy"]

    def after_step(self, fit: Fit, gradient: Tensor) -> None:
        super().after_step(fit, gradient)
        image, denoised, multiplier = (fit.state[name] for name in ("image", "denoised", "multiplier"))
        if fit.iteration % self.refresh == 0:
            denoised.copy_(self._denoise(fit, image))
        shifted = fit.output + multiplier
        image.copy_((self.prior_weight * denoised + self.coupling * shifted) / (self.prior_weight + self.coupling))
        multiplier.copy_(shifted - image)

    def _denoise(self, fit: Fit, image: Tensor) -> Tensor:
        if self.denoiser == "wavelet":
            return shifted_wavelets(image, self.strength, len(fit.shape), fit.jitter)
        return non_local_means(image, self.strength, len(fit.shape))


def _energy(x: Tensor) -> Tensor:
    return torch.view_as_real(x).square().sum() if x.is_complex() else x.square().sum()
