"""Settings of a fit, frozen and comparable, and the presets that the command line names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from dipmed.scan import DipmedError

InputName = Literal["noise", "zero-filled", "wavelet", "tv", "cg", "fbp"]
DataLoss = Literal["squares", "norm", "absolute"]
UpdateName = Literal["none", "drift", "data-consistent"]


_WARM_RATE = 0.5
"""Factor on the learning rates of fits that start from the weights of a neighbour."""


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the U-Net.

    Parameters
    ----------
    channels
        Features of each scale, finest first.
    skip_channels
        Features that a skip connection passes on.
    up_channels
        Features that go up from one scale to the next; fewer make the convolution after it cheaper.
    """

    channels: tuple[int, ...] = (64, 64, 64, 64)
    skip_channels: int = 16
    up_channels: int = 32

    def __post_init__(self) -> None:
        if not self.channels or min((*self.channels, self.skip_channels, self.up_channels)) < 1:
            raise DipmedError(f"a network needs at least one scale and positive channels, got {self}")


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a fit, besides the data and the operator.

    Parameters
    ----------
    network
        Size of the network.
    inputs
        What the network sees, joined along channels: ``"noise"`` (32 channels), ``"zero-filled"`` (the adjoint of
        the data), ``"wavelet"`` (a short compressed-sensing reconstruction of the same data), ``"tv"`` (one with total
        variation, for real images), ``"cg"`` (regularised least squares), ``"fbp"`` (filtered back-projection).
    wavelet_threshold, variation_weight
        Of the wavelet image, and weight of the total variation of the ``"tv"`` image; images peak near 1, those from
        projections near 2.2.
    input_jitter
        Standard deviation of the fresh Gaussian noise added to the input at each step; images peak as above.
    first_jitter
        That noise at the first step, from which it falls to `input_jitter`. 0 for the same at all steps; ``"auto"`` for
        1 where the input image of projections is off by what they say, and 0 elsewhere, see `dipmed.dip.jitter`.
    input_update, input_drift
        What the first image input moves to at each step, by the share ``input_drift``: the output
        (``"drift"``), or the output after a step towards the data (``"data-consistent"``).
    input_share
        Share of the first image input, as it is made of the data, in the image that is returned; its errors are not all
        those of the network. 0 for none.
    tv_weight
        Weight of the mean isotropic total variation of the output.
    follow_noise
        Take more of `tv_weight`, and of what weight its input is made with, where the data hold more noise than usual,
        see `dipmed.dip.noise_weights`. A weight that is chosen for a reconstruction, by ``--set``, turns this off.
    kspace_exponent
        Cartesian data are weighted by distance from the centre to this power, since a few central samples hold
        nearly all the energy, and projections by frequency along their columns; 0 weights all alike. Higher ones need
        fewer iterations, and raise the noise where k-space is as noisy everywhere, as it is in CT.
    phase_weight
        Weight of the penalty on what is out of phase with a low-resolution image, see `dipmed.dip.phase`; it does
        nothing where the centre of k-space is not fully sampled. Set it to 0 where fine detail of the phase matters.
    data_loss
        Of the weighted residuals: the sum of ``"squares"``, its root, the ``"norm"``, or the sum of ``"absolute"``
        values; each relative to that of an image of zeros.
    nonnegative
        Keep real images from becoming negative.
    subpixels
        Parts along each axis of a pixel of a slice of projections, or of a stack of them: rays run through the parts,
        the network makes them as channels, and the image is their mean. Pixels stay whole where the matrices would take
        more than 1 GiB.
    optimizer
        ``"muon"`` orthogonalises the updates of convolution kernels and uses Adam elsewhere; ``"adam"``.
    gain
        Factor on the first convolution kernels. Normalisation makes what a layer returns independent of it, but the
        same step turns a small kernel further than a large one; the best rate falls with it.
    rate, adam_rate
        Learning rates of the orthogonalised kernels and of Adam.
    schedule, final_rate
        ``"cosine"`` lets both rates fall to the share ``final_rate`` of their start at the last iteration;
        ``"constant"``.
    iterations
        Upper bound.
    averaging
        Decay of the running average of outputs, 0 for none.
    data_consistency_steps
        Gradient steps towards all measured data that end the fit; ``"auto"`` for two, and more where the noise in the
        data lets them gain, see `dipmed.dip.last_steps`.
    stop
        Name of the rule that decides; see `dipmed.dip.stopping`.
    watch
        Names of rules that keep a curve beside it and say what they would have chosen; None for those that cost next to
        nothing. They get what they need: held-out locations, added noise, a twin, whichever rule decides.
    held_out
        Share of the sampled locations that the fit does not see, when the rule needs them.
    refit
        What happens with what the deciding rule has set apart, held-out locations or the data without the noise that it
        added: ``"continue"`` gives it back near the end of the fit; ``"resume"`` goes back to the iterate that the rule
        has chosen, and on from there with all data; ``"restart"`` begins again with all data (two fits, no time limit).
        The last two end after as many iterations as the rule has chosen, more by as much as there are more data.
    refit_share
        Share of the iterations, the last ones, in which a fit that continues sees all, if the rule has found every
        iterate up to then as good as the one before; 0 for never.
    renew_input
        Make the inputs anew, from all data, when the held-out ones are given back.
    warm_share
        Share of the iterations of a fit that starts from the weights of its neighbour, see `warmed`.
    time_limit
        Seconds after which the fit ends; the rates then decay with the clock if it runs ahead of the iterations.
    mixed_precision
        Convolutions in bfloat16: ``"auto"`` where the processor has instructions for it and the rule that decides
        compares no twins, ``"on"``, ``"off"``.
    checkpointing
        Compute the features of a U-Net again for the gradient and do not hold them: less memory, more time, one image.
    seed
        Of weights, inputs, jitter and held-out locations.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    inputs: tuple[InputName, ...] = ("zero-filled", "wavelet")
    wavelet_threshold: float = 2e-3
    variation_weight: float = 8e-4
    input_jitter: float = 0.06
    first_jitter: float | Literal["auto"] = 0.0
    input_update: UpdateName = "data-consistent"
    input_drift: float = 0.02
    input_share: float = 0.0
    tv_weight: float = 0.05
    follow_noise: bool = True
    kspace_exponent: float = 0.5
    phase_weight: float = 0.03
    data_loss: DataLoss = "squares"
    nonnegative: bool = False
    subpixels: int = 1
    optimizer: Literal["muon", "adam"] = "muon"
    gain: float = 0.125
    rate: float = 0.01
    adam_rate: float = 3e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    final_rate: float = 0.0
    iterations: int = 320
    averaging: float = 0.99
    data_consistency_steps: int | Literal["auto"] = "auto"
    stop: str = "held-out"
    watch: tuple[str, ...] | None = None
    held_out: float = 0.03
    refit: Literal["continue", "resume", "restart"] = "continue"
    refit_share: float = 0.4
    renew_input: bool = False
    warm_share: float = 0.2
    time_limit: float | None = None
    mixed_precision: Literal["auto", "on", "off"] = "auto"
    checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "iterations must be at least 1": self.iterations >= 1,
            "averaging must be in [0, 1)": 0 <= self.averaging < 1,
            "held_out must be in (0, 0.5]": 0 < self.held_out <= 0.5,
            "refit_share must be in [0, 1)": 0 <= self.refit_share < 1,
            "refit='restart' takes no time_limit": self.refit != "restart" or self.time_limit is None,
            "warm_share must be in (0, 1]": 0 < self.warm_share <= 1,
            "final_rate must be in [0, 1]": 0 <= self.final_rate <= 1,
            "gain must be positive": 0 < self.gain < math.inf,
            "first_jitter must be auto, or finite and not negative": self.first_jitter == "auto"
            or 0 <= self.first_jitter < math.inf,
            "time_limit must be positive": self.time_limit is None or self.time_limit > 0,
            "subpixels must be at least 1": self.subpixels >= 1,
            "seed must not be negative": self.seed >= 0,
            "data_consistency_steps must be auto or not negative": self.data_consistency_steps == "auto"
            or self.data_consistency_steps >= 0,
            "input_drift must be in [0, 1]": 0 <= self.input_drift <= 1,
            "input_share must be in [0, 1)": 0 <= self.input_share < 1,
            "at least one input is needed": bool(self.inputs),
        }
        for rule, holds in checks.items():
            if not holds:
                raise DipmedError(f"{rule}, got {self}")

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some settings changed, checked again."""
        return replace(self, **changes)

    def warmed(self) -> Self:
        """The settings of a fit that starts from the weights of a neighbour.

        It has less to learn: fewer iterations, smaller steps, no more noise on the input at first, and an input that
        moves the faster, to come as far.
        """
        return self.replace(
            first_jitter=0.0,
            iterations=max(1, round(self.warm_share * self.iterations)),
            rate=_WARM_RATE * self.rate,
            adam_rate=_WARM_RATE * self.adam_rate,
            input_drift=min(1.0, self.input_drift / self.warm_share),
        )


_IN_3D = NetworkConfig(channels=(16, 32, 32), skip_channels=8, up_channels=16)

_PLAIN_START: dict[str, Any] = {"gain": 1.0, "rate": 0.03, "input_drift": 0.01}
"""The first kernels that torch draws, and what goes with them, where smaller ones were not tried."""

_CT = FitConfig(
    inputs=("tv",),
    input_drift=0.01,
    kspace_exponent=0.125,
    tv_weight=1e-3,  # what TV finds is in the input already; with much more of it the fit is no better than TV
    nonnegative=True,
    gain=0.5,
    rate=0.02,
    final_rate=0.5,  # small steps let the fit settle on the noise
    iterations=400,
    data_consistency_steps=0,
    stop="budget",  # of few views each one counts, and one alone is no judge; the rule can be had by name
    held_out=0.1,
    refit_share=0.7,
    renew_input=True,
    warm_share=0.5,  # fewer iterations cost more: neighbours teach each other less than in MRI
)

# parts of pixels can fit more noise
_IN_PARTS = _CT.replace(subpixels=2, tv_weight=2e-3, gain=0.25, input_share=0.3, first_jitter="auto")

# an input that moves to the output costs a volume up to 2 dB, where slices gain a little
_CT_3D = _CT.replace(network=_IN_3D, input_update="none", input_jitter=0.03, gain=0.25)

_IMAGE = FitConfig(
    **_PLAIN_START,
    network=NetworkConfig(channels=(32, 32, 32, 32)),
    inputs=("tv",),
    input_update="none",
    tv_weight=0.01,
    follow_noise=False,  # the weight of the input is chosen by the noise there
    final_rate=0.5,
    iterations=600,
    data_consistency_steps=0,
    stop="self-referenced",
)
_DENOISE = _IMAGE.replace(
    iterations=350,
    refit="restart",  # the best iterate comes early, and is worth the noise that the rule has added
)

PRESETS: dict[str, FitConfig] = {
    "mri-2d": FitConfig(),
    "mri-2d-fast": FitConfig(iterations=200),
    "ct-2d": _IN_PARTS,
    "ct-2d-fast": _IN_PARTS.replace(iterations=150),
    # more data leave less to a prior, and more to be fitted
    "ct-2d-many-views": _IN_PARTS.replace(variation_weight=4e-4, iterations=600, gain=_CT.gain, first_jitter=0.0),
    # what total variation makes of so few is far from the image
    "ct-2d-few-views": _IN_PARTS.replace(first_jitter=3.0, input_share=0.15),
    "ct-3d": _CT_3D,
    # differences along three axes add up to more variation than those along two
    "ct-3d-slices": _CT_3D.replace(
        subpixels=_IN_PARTS.subpixels, variation_weight=4e-4, input_share=_IN_PARTS.input_share
    ),
    "mri-3d": FitConfig(network=_IN_3D, iterations=500),
    "image-2d": _IMAGE,
    "image-3d": _IMAGE.replace(network=_IN_3D),
    "denoise-2d": _DENOISE,
    "denoise-3d": _DENOISE.replace(network=_IN_3D),
}


def find_preset(name: str) -> FitConfig:
    """Look a preset up.

    Raises
    ------
    DipmedError
        When there is none of that name.
    """
    if name not in PRESETS:
        raise DipmedError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
