"""What a person sees of fits: a table while they run, a line for each that has ended."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from dipmed.dip import Progress
from dipmed.fit_progress import FitProgress, curve
from dipmed.phantom import brain_phantom_scan
from dipmed.prepare import prepare
from dipmed.recon import reconstruct
from dipmed.scan import Reconstruction, StopReason
from dipmed.settings import ReconSettings

FIT = ReconSettings(device="cpu", sets=("network.channels=8,8",), changes={"iterations": 20}, slices=(5, 8))
STOP = StopReason("held-out", 410, "no better image for [200] iterations")


@pytest.fixture(scope="module")
def scan():
    """Eight slices alike."""
    one = brain_phantom_scan((24, 20), n_coils=3, noise=0.01)[0]
    return one.replace(kspace=np.repeat(one.kspace, 8, axis=1), mask=np.repeat(one.mask, 8, axis=1))


def state(iteration, error, criterion):
    return Progress(iteration, 800, error, "held-out", criterion, {}, 5.0, 65.0)


def job(index):
    return SimpleNamespace(place=(0, index))


def part(**changes):
    return replace(Reconstruction(torch.zeros(1, 2, 2), "dip", STOP, 610, 31.25), **changes)


def shown(view):
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    console.print(view)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_a_table_shows_running_fits_and_lines_the_ends_of_others(scan):
    now = [0.0]
    screen = io.StringIO()
    view = FitProgress(Console(file=screen, force_terminal=True, width=80), clock=lambda: now[0])
    view.begin(prepare(scan, FIT), FIT, 0)
    for step in range(1, 41):
        view.progress(job(1), state(10 * step, 2.0**-step, 0.5 + 0.01 * (step - 20) ** 2))
    view.progress(job(2), state(10, 0.5, 0.25))
    now[0] = 60.0
    view.finished(job(0), [part()])
    view.progress(job(0), state(610, 0.1, 0.1))  # late, of a worker
    lines = shown(view)
    assert "data error" in lines[0]
    assert "held-out" in lines[0]
    assert "400/800 █▇▆▆▅▄▃▃▂▁ 9.09e-13" in lines[1]
    assert lines[1].startswith("slice 6")
    assert "▁" in lines[1].split("e-13")[1]
    assert lines[1].split()[-2:] == ["4.5", "1:05"]
    assert lines[2].startswith("slice 7")
    # half of one and the first steps of another beside one of three: 1.51 of 3 in 60 s
    assert lines[3].split()[0] == "all"
    assert "1/3" in lines[3]
    assert "after 1:00" in lines[3]
    assert lines[3].endswith("about 0:59")
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    text = screen.getvalue()
    assert "slice 5: kept is iteration 410 of 610, by held-out: no better image for [200] iterations (31.2 s)" in text


def test_without_a_terminal_there_are_lines_alone(scan):
    screen = io.StringIO()
    console = Console(file=screen, width=80)
    heard = []
    with FitProgress(console) as view:
        result = reconstruct(scan, FIT, listeners=(view,), progress=lambda n, _, state: heard.append((n, state)))
    lines = screen.getvalue().splitlines()
    assert [line for line in lines if line.startswith("image")] == [
        f"image {n}/3: the fit has begun" for n in (1, 2, 3)
    ]
    ends = [line for line in lines if line.startswith("slice")]
    assert [line.split(":")[0] for line in ends] == ["slice 5", "slice 6", "slice 7"]
    assert result.reconstructions[0].stop.reason in ends[0]
    assert "\x1b" not in screen.getvalue()
    # the image of now, in the units of the data
    last = heard[-1][1]
    image = last.image().abs().numpy()[0]
    truth = np.abs(result.reconstructions[2].image.numpy()[0])
    assert np.linalg.norm(image - truth) < 0.5 * np.linalg.norm(truth)
    points = [point for number, one in heard if number == 2 for point in one.points["held-out"]]
    assert points == result.reconstructions[2].curves["held-out"][: len(points)]
    assert points[-1][1] == last.criterion


def test_pieces_one_after_the_other_need_no_scan():
    screen = io.StringIO()
    view = FitProgress(Console(file=screen, width=80))
    for image in (0, 1):
        view(image, 2, state(10, 0.5, 0.25))
    lines = shown(view)
    assert [line.split()[0] for line in lines[1:]] == ["image", "all"]
    assert "1/2" in lines[2]


def test_methods_without_iterations_say_nothing_but_their_trouble(scan):
    screen = io.StringIO()
    view = FitProgress(Console(file=screen, width=200))
    view.begin(prepare(scan, FIT), FIT, 0)
    view.finished(job(0), [part(iterations=0, stop=StopReason("direct", 0, "no fit"))])
    view.finished(job(1), [part(iterations=0, status="filled", trouble="by cg-sense, because it diverged")])
    assert len(screen.getvalue().splitlines()) == 1
    assert "filled by cg-sense, because it diverged" in screen.getvalue()


def test_curves_in_letters():
    assert curve([1.0, 10.0, 100.0], "abc") == "abc"
    assert curve([-1.0, 0.0, 1.0], "abc") == "abc"
    assert curve([1.0, float("nan"), 1.0], "abc") == "a a"
    assert curve(list(range(-100, 0)), "abcdefghij", 10) == "abcdefghij"
    assert curve([]) == ""


def test_images_that_are_fitted_together_are_announced_once(scan):
    screen = io.StringIO()
    view = FitProgress(Console(file=screen, width=80))
    view.begin(prepare(scan, FIT), FIT, 0)
    for iteration in (10, 20):
        for index in (0, 1):
            view.progress(job(index), state(iteration, 0.5, 0.25))
    assert screen.getvalue().splitlines() == [f"image {n}/3: the fit has begun" for n in (1, 2)]
