"""What is shown of fits where there is no terminal."""

import io

from rich.console import Console

from dipmed.dip import Progress
from dipmed.display import FitProgress


def test_images_that_are_fitted_together_are_announced_once():
    text = io.StringIO()
    with FitProgress(Console(file=text, width=80)) as show:
        for iteration in (10, 20):
            for image in (0, 1):
                show(image, 3, Progress(iteration, 30, 0.5, None, 1.0))
    assert text.getvalue().split("\n")[:-1] == [f"image {n}/3: the fit has begun" for n in (1, 2)]
