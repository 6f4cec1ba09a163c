"""Prints for docs/live.md what a terminal shows while the last of three slices of a simulated head is fitted.

Run as ``python scripts/draw_live.py``; with a small network and few iterations it takes a minute.
"""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from dipmed.dip import Progress
from dipmed.fit_progress import FitProgress
from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.settings import ReconSettings

FIT = ReconSettings(
    device="cpu",
    sets=("network.channels=16,16",),
    changes={"iterations": 200},
    undersample="random:R=3,acs=12,seed=0",
)
SHOWN_AT = (2, 140)
"""Number of the slice, and iteration."""


def main() -> None:
    """Fit three slices, and keep what is on the screen at one moment."""
    one = brain_phantom_scan((64, 64), n_coils=4, noise=0.02)[0]
    assert one.mask is not None  # noqa: S101  # it is Cartesian
    scan = one.replace(kspace=np.repeat(one.kspace, 3, axis=1), mask=np.repeat(one.mask, 3, axis=1))
    # lines stay where they are printed, and the table is printed once: a screen that does not move
    screen = Console(file=io.StringIO(), record=True, width=88, force_terminal=True)
    view = FitProgress(screen)

    def look(number: int, n_images: int, state: Progress) -> None:
        if (number, state.iteration) == SHOWN_AT:
            # the view hears of this moment after this
            view(number, n_images, state)
            screen.print(view)
            print("\n".join(line.rstrip() for line in screen.export_text(clear=False).splitlines()))

    reconstruct(scan, FIT, progress=look, listeners=[view])


if __name__ == "__main__":
    main()
