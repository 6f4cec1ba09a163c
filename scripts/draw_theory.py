"""Compare what `dipmed.theory` predicts of a fit with the fit itself, on two simulated scans, for the documentation.

Run as ``python scripts/draw_theory.py [-o docs/img/theory.png]``. It prints the figures that docs/theory.md quotes.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor

from dipmed.nets import DeepDecoder, build
from dipmed.operators import (
    CartesianMRI,
    LinearOperator,
    ParallelBeam,
    SliceProjector,
    add_noise,
    angles_over,
    make_mask,
    norm_bound,
    slice_grid,
)
from dipmed.phantom import brain_phantom_scan
from dipmed.theory import (
    PredictedPath,
    TangentModel,
    degrees_of_freedom,
    dense_spectrum,
    exact_recovery,
    expected_risk,
    gradient_descent,
    predict_path,
    predict_stop,
)

mpl.use("Agg")
import matplotlib.pyplot as plt

SIZE = 32
STEPS = 2000
PROBED = 200
PROBES = 4
FEATURES = 48
LOOKS = sorted({0, STEPS, *(round(10 ** (k / 30)) for k in range(round(30 * math.log10(STEPS)) + 1))})
REAL, LINEAR, EXPECTED, STOP = "#c8553d", "#2f4b7c", "#7d93ab", "#444444"


@dataclass(frozen=True)
class Case:
    """A simulated measurement of a known image."""

    title: str
    A: LinearOperator
    truth: Tensor
    y: Tensor
    sigma: float

    def psnr(self, image: Tensor) -> float:
        """Return the peak signal-to-noise ratio of an image, in dB."""
        return self.psnr_of(float((image - self.truth).abs().square().sum()))

    def psnr_of(self, squared_error: float) -> float:
        """Return it of a summed squared error."""
        return 10 * math.log10(float(self.truth.abs().max()) ** 2 * self.truth.numel() / squared_error)


def projections(image: Tensor) -> Case:
    """Sixteen parallel views of the magnitude, by an operator of norm one."""
    beam = ParallelBeam(angles_over(16), SIZE + 14, 1.0)
    A = SliceProjector(slice_grid(ParallelBeam((0.0,), SIZE, 1.0), SIZE), beam)
    A_unit = (1 / norm_bound(A)) * A
    truth, sigma = image.abs().double(), 0.08
    return Case("CT, 16 views", A_unit, truth, add_noise(A_unit(truth), sigma, torch.Generator().manual_seed(1)), sigma)


def kspace(image: Tensor, maps: Tensor) -> Case:
    """A third of the lines, by two coils."""
    A = CartesianMRI(maps, make_mask("random:R=3,acs=8,seed=0", (SIZE, SIZE)))
    truth, sigma = image.to(torch.complex128), 0.25
    y = add_noise(A(truth), sigma, torch.Generator().manual_seed(1)) * A.mask
    return Case("MRI, a third of the lines", A, truth, y, sigma)


def start_of(case: Case) -> TangentModel:
    """Return a small Deep Decoder with weights and input from one seed."""
    generator = torch.Generator().manual_seed(0)
    n_out = 2 if case.truth.is_complex() else 1
    network = build(lambda: DeepDecoder(FEATURES, n_out, 2, shape=(SIZE, SIZE), channels=FEATURES, layers=4), generator)
    return TangentModel(network, torch.randn((1, FEATURES, *network.seed_shape), generator=generator), case.A)


def main() -> None:
    """Compute both cases, print their figures and draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/img/theory.png"))
    chosen = parser.parse_args()
    _, phantom = brain_phantom_scan((SIZE, SIZE), 2)
    image = torch.from_numpy(phantom.image)
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), dpi=130, layout="constrained")
    ct = projections(image)
    model, path, rate = compare(panels[0], ct)
    compare(panels[1], kspace(image, torch.from_numpy(phantom.maps)))
    draw_freedom(panels[2], ct, model, path, rate)
    figure.savefig(chosen.out)


def compare(panel: Any, case: Case) -> tuple[TangentModel, PredictedPath, float]:
    """Run the real network beside its linear model, and draw the error of both with every stop."""
    model = start_of(case)
    spectrum = dense_spectrum(model)
    path = predict_path(spectrum, case.y)
    risk = expected_risk(spectrum, case.truth, case.sigma, LOOKS)
    stop = predict_stop(path, case.sigma)
    looked = set(LOOKS)
    fit = islice(gradient_descent(model, case.y, spectrum.rate), STEPS + 1)
    images = {step: image for step, image in enumerate(fit) if step in looked}
    real = {step: case.psnr(image) for step, image in images.items()}
    linear = {step: case.psnr(path.image(step)) for step in LOOKS}
    noise = model.stacked.m * model.stacked.deviation(case.sigma) ** 2
    errors = {step: float((case.A(image) - case.y).abs().square().sum()) for step, image in images.items()}
    own_stop = next((step for step in LOOKS if errors[step] <= noise), None)
    marks = {
        "discrepancy, predicted": (stop.discrepancy, ":"),
        "mode SNR, predicted": (stop.mode_snr, "-."),
        "best image on average, predicted": (round(risk.best_image_step), "-"),
        "discrepancy of the real run": (own_stop, "--"),
    }
    print_figures(case, model, real, linear, marks, path)
    report = exact_recovery(spectrum, case.truth)
    print(
        f"  noiseless limit: rank {report.rank} of {model.stacked.m}, error {report.limit_error:.3f}, "
        f"distance to the range {report.distance_to_range:.3f}, unseen {report.null_space_share:.3f}, "
        f"error seen {report.row_space_error:.3f}, unseen {report.null_space_error:.3f}"
    )
    panel.semilogx(LOOKS[1:], [real[step] for step in LOOKS[1:]], color=REAL, lw=2, label="real network")
    panel.semilogx(LOOKS[1:], [linear[step] for step in LOOKS[1:]], color=LINEAR, lw=2, label="linear model")
    expected = [case.psnr_of(error) for error in risk.image[1:]]
    panel.semilogx(LOOKS[1:], expected, color=EXPECTED, lw=1, label="linear model, mean over noise")
    for name, (step, style) in marks.items():
        if step is not None:
            panel.axvline(step, color=REAL if "real" in name else STOP, ls=style, lw=1, label=name)
    panel.set(title=case.title, xlabel="step of gradient descent", ylabel="PSNR / dB", xlim=(1, STEPS))
    panel.legend(fontsize=7, loc="lower right", framealpha=1)
    return model, path, spectrum.rate


def print_figures(
    case: Case,
    model: TangentModel,
    real: dict[int, float],
    linear: dict[int, float],
    marks: dict[str, tuple[int | None, str]],
    path: PredictedPath,
) -> None:
    """Print what the page quotes."""
    weights = sum(value.numel() for value in model.weights.values())
    print(f"{case.title}: {model.stacked.n} pixel values, {model.stacked.m} data, {weights} weights")
    for name, curve in (("real", real), ("linear", linear)):
        step = max(curve, key=lambda key: curve[key])
        print(f"  {name}: best {curve[step]:.2f} dB at {step}, {curve[STEPS]:.2f} dB at {STEPS}")
    for name, (step, _) in marks.items():
        if step is None:
            print(f"  {name}: none")
            continue
        nearest = min(real, key=lambda look: abs(look - step))
        print(f"  {name}: {step}, linear {case.psnr(path.image(step)):.2f} dB, real {real[nearest]:.2f} dB")
    for bound in (0.1, 0.25, 0.5, 1.0):
        within = [step for step in LOOKS if all(abs(real[s] - linear[s]) <= bound for s in LOOKS if s <= step)]
        print(f"  real and linear within {bound} dB up to step {max(within)}")
    step = max(LOOKS, key=lambda look: abs(real[look] - linear[look]))
    print(f"  largest difference {real[step] - linear[step]:+.2f} dB at {step}")


def draw_freedom(panel: Any, case: Case, model: TangentModel, path: PredictedPath, rate: float) -> None:
    """Draw degrees of freedom of the real run by probes, and those of the linear model."""
    curve = degrees_of_freedom(
        lambda y: islice(gradient_descent(model, y, rate), PROBED + 1),
        case.y,
        case.A,
        case.sigma,
        n_probes=PROBES,
        generator=torch.Generator().manual_seed(0),
    )
    steps = [step for step in LOOKS if 0 < step <= PROBED]
    for probe in curve.probes:
        panel.semilogx(steps, probe[steps], color=REAL, lw=0.8, alpha=0.6)
    panel.semilogx(steps, curve.mean[steps], color=REAL, lw=2, label=f"real network, {PROBES} probes and their mean")
    predicted = [path.degrees_of_freedom(step) for step in steps]
    panel.semilogx(steps, predicted, color=LINEAR, lw=2, label="linear model")
    for step in (10, 100, PROBED):
        mean, error = float(curve.mean[step]), float(curve.standard_error[step])
        print(
            f"  degrees of freedom at {step}: real {mean:.1f} ± {error:.1f}, linear {path.degrees_of_freedom(step):.1f}"
        )
    panel.set(title="CT, degrees of freedom", xlabel="step of gradient descent", xlim=(1, PROBED))
    panel.legend(fontsize=7, loc="upper left")


if __name__ == "__main__":
    main()
