"""The picture of a comparison: each method's image above its error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.compare import Comparison
from dipmed.evaluate import match_scale
from dipmed.io.files import atomic_write

_ERROR_GAIN = 5


def save_comparison(result: Comparison, path: Path, *, force: bool = False) -> None:
    """Draw the reference and each method's image with its scores, and the error below at five times the brightness."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_columns = 1 + len(result.rows)
    reference = _middle(result.reference)
    peak = float(reference.max())
    aspect = reference.shape[1] / reference.shape[0]
    figure = Figure(figsize=(2.4 * n_columns, 4.8 * aspect + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, n_columns, squeeze=False)
    axes[0, 0].imshow(reference.T, cmap="gray", vmin=0, vmax=peak)
    axes[0, 0].set_title("reference", fontsize=9)
    axes[1, 0].text(0.5, 0.5, f"error × {_ERROR_GAIN}", ha="center", va="center", fontsize=9)
    for column, row in enumerate(result.rows, start=1):
        matched = _middle(match_scale(result.images[row["method"]], result.reference))
        axes[0, column].imshow(matched.T, cmap="gray", vmin=0, vmax=peak)
        axes[0, column].set_title(f"{row['method']}\n{row['psnr']:.2f} dB / {row['ssim']:.3f}", fontsize=9)
        error = np.abs(matched - reference)
        axes[1, column].imshow(error.T, cmap="gray", vmin=0, vmax=peak / _ERROR_GAIN)
    for axis in axes.flat:
        axis.set_axis_off()
    with atomic_write(path, force=force) as temporary:
        figure.savefig(temporary, dpi=110)


def _middle(image: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """The middle slice of a volume, or the slice itself."""
    return image[..., image.shape[2] // 2] if image.ndim == 3 else image
