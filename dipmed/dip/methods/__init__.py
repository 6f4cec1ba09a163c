"""Every method of the deep image prior, one class each."""

from __future__ import annotations

from dipmed.dip.method import FitMethod
from dipmed.dip.methods.aseqdip import AutoencodingSequential
from dipmed.dip.methods.conv_decoder import ConvDecoder
from dipmed.dip.methods.deep_decoder import DeepDecoder
from dipmed.dip.methods.deep_red import DeepRED
from dipmed.dip.methods.dip_input import ImageInput
from dipmed.dip.methods.double_over import DoubleOverparameterisation
from dipmed.dip.methods.edip import Educated
from dipmed.dip.methods.eye_surgeon import OptimalEyeSurgeon
from dipmed.dip.methods.frequency_regularised import FrequencyRegularised
from dipmed.dip.methods.implicit import Implicit
from dipmed.dip.methods.plain import Default, TotalVariation, Vanilla
from dipmed.dip.methods.random_projector import DeepRandomProjector
from dipmed.dip.methods.reference_guided import ReferenceGuided
from dipmed.dip.methods.self_diffusion import SelfDiffusion
from dipmed.dip.methods.self_guided import SelfGuided
from dipmed.dip.methods.sgld import LangevinDynamics
from dipmed.dip.methods.subspace import Subspace
from dipmed.dip.methods.tada import Tada
from dipmed.dip.methods.time_dependent import TimeDependent

FIT_METHODS: dict[str, type[FitMethod]] = {
    method.name: method
    for method in (
        Default,
        Vanilla,
        ImageInput,
        AutoencodingSequential,
        Tada,
        SelfGuided,
        ReferenceGuided,
        SelfDiffusion,
        TotalVariation,
        DeepRED,
        DeepRandomProjector,
        ConvDecoder,
        FrequencyRegularised,
        Implicit,
        DeepDecoder,
        LangevinDynamics,
        Educated,
        Subspace,
        DoubleOverparameterisation,
        OptimalEyeSurgeon,
        TimeDependent,
    )
}
"""By their names on the command line."""

__all__ = ["FIT_METHODS", "FitMethod"]
