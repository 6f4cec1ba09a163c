"""What a page says of one reconstruction: where it stopped and why, with its curves."""

from __future__ import annotations

from collections.abc import Sequence

from dipmed.dip import RULES
from dipmed.report.charts import draw
from dipmed.report.page import Choice, Part
from dipmed.scan import Reconstruction

_CURVES = {
    "loss": "Disagreement of the network's image with the data that it was fitted to.",
    "refit-loss": "The same once the fit saw all data.",
    "change": "Change of the image from one iteration to the next, relative to the image.",
}
_QUALITY = "Of the images along the fit, which never saw the reference."


def part_of(
    name: str, part: Reconstruction, error: float | None, snapshots: Sequence[tuple[int, float, float]] = ()
) -> Part:
    """Say of one reconstruction what its curves show.

    Parameters
    ----------
    name
        What the page calls it.
    error
        ``‖Ax − y‖ / ‖y‖``, None where it is not known.
    snapshots
        ``(iteration, psnr, ssim)`` of images along a fit, where there is a reference to score them by.
    """
    choices = sorted(part.choices.items(), key=lambda choice: choice[1])
    told = tuple(Choice(rule, iteration, _quality_at(iteration, snapshots)) for rule, iteration in choices)
    charts = []
    if snapshots:
        psnr = [(iteration, value) for iteration, value, _ in snapshots]
        charts.append(draw("PSNR in dB", _QUALITY, psnr, choices, part.iterations))
    for curve, points in part.curves.items():
        about = _CURVES[curve] if curve in _CURVES else _about_rule(curve)
        marks = choices if curve == "loss" else [(curve, part.choices[curve])] if curve in part.choices else []
        charts.append(draw(curve, about, points, marks, part.iterations))
    drawn = tuple(chart for chart in charts if chart is not None)
    return Part(name, _lines(part, error), told, part.stop.rule, drawn)


def _lines(part: Reconstruction, error: float | None) -> tuple[str, ...]:
    first = f"Kept is the image of iteration {part.stop.iteration} of {part.iterations}, by the rule {part.stop.rule}:"
    if not part.iterations:
        first = "There were no iterations:"
    lines = [f"{first} {part.stop.reason}."]
    if part.trouble:
        lines.append(f"It was {part.status} {part.trouble}.")
    elif part.status == "interrupted":
        lines.append("The run was interrupted before this image was finished.")
    agreement = "" if error is None else f" Relative error of its data, ‖Ax − y‖ / ‖y‖: {error:.4f}."
    return (*lines, f"It took {part.seconds:.1f} s.{agreement}")


def _quality_at(iteration: int, snapshots: Sequence[tuple[int, float, float]]) -> str:
    """Score of the snapshot that is nearest, if it is no further than half of what lies between two."""
    if len(snapshots) < 2:
        return ""
    between = snapshots[1][0] - snapshots[0][0]
    at, psnr, ssim = min(snapshots, key=lambda snapshot: abs(snapshot[0] - iteration))
    if 2 * abs(at - iteration) > between:
        return ""
    return f"{psnr:.2f} dB, SSIM {ssim:.4f}" + ("" if at == iteration else f" (that of iteration {at})")


def _about_rule(name: str) -> str:
    about = (RULES[name].__doc__ or "").splitlines()[0] if name in RULES else ""
    return about.replace("``", "")
