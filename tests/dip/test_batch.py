"""Fits in a batch come to what they come to by themselves."""

import os
import signal
import time

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.batch import Batch, objection
from dipmed.dip.methods import FIT_METHODS
from dipmed.dip.stack import Stack
from dipmed.scan import DipmedError, DivergedError
from operators import CartesianMRI

# small steps: at the rates of the preset, rounding alone moves such a fit by a percent in a few dozen iterations
SLOW = FitConfig(
    network=NetworkConfig(channels=(16, 16), skip_channels=8, up_channels=8),
    inputs=("zero-filled",),
    iterations=15,
    gain=1.0,
    rate=3e-3,
    adam_rate=3e-4,
    held_out=0.05,
    mixed_precision="off",
)

TOLERANCE = 1e-4
"""Relative difference of images that rounding may make; other seeds or rules make hundred times as much."""


def difference(one, other):
    return float((one - other).norm() / other.norm())


@pytest.fixture
def orders(small_scan):
    """Five scans that differ, with fits of different length, seed and rule, two of them in two legs."""
    y, A, truth, variance = small_scan
    scans = {
        "a": (DeepImagePrior(SLOW, keep_weights=True), y),
        "b": (DeepImagePrior(SLOW.replace(iterations=10, seed=3)), 2 * y + A(truth.flip(1))),
        "c": (
            DeepImagePrior(SLOW.replace(iterations=13, seed=1, stop="exponential-variance")),
            y + A(truth.roll(2, 1)),
        ),
        "d": (
            DeepImagePrior(
                SLOW.replace(iterations=10, stop="self-referenced", refit="restart"), noise_variance=variance
            ),
            0.5 * y - A(truth.flip(2)),
        ),
        "e": (DeepImagePrior(SLOW.replace(iterations=10, seed=2, held_out=0.2, refit="resume")), y - A(truth.flip(1))),
    }
    return [(name, prior, data, A) for name, (prior, data) in scans.items()]


ALONE = {}


@pytest.fixture
def alone(orders):
    """The same, one after the other; done once for all tests."""
    if not ALONE:
        ALONE.update({name: prior(y, A) for name, prior, y, A in orders})
    return dict(ALONE)


def assert_same(found, alone):
    assert found.keys() == alone.keys()
    for name, result in found.items():
        one = alone[name]
        assert difference(result.image, one.image) < TOLERANCE
        assert (result.stop.rule, result.stop.iteration, result.iterations) == (
            one.stop.rule,
            one.stop.iteration,
            one.iterations,
        )
        assert result.choices == one.choices
        assert [i for i, _ in result.curves["loss"]] == [i for i, _ in one.curves["loss"]]


def test_images_depend_neither_on_the_batch_nor_on_the_order(orders, alone):
    start = time.perf_counter()
    found = dict(Batch(3).run(orders))
    # the time of each is its own
    assert 0 < sum(result.seconds for result in found.values()) <= time.perf_counter() - start
    assert_same(found, alone)
    assert difference(found["a"].weights, alone["a"].weights) < TOLERANCE
    assert_same(dict(Batch(2).run(orders[::-1])), alone)
    # the same scan with another seed is farther away than the tolerance by orders of magnitude
    y, A = orders[0][2:]
    assert difference(DeepImagePrior(SLOW.replace(seed=1))(y, A).image, alone["a"].image) > 100 * TOLERANCE


def test_full_memory_halves_what_runs_at_once(orders, alone, monkeypatch):
    """The step that failed is done again in parts, and no image is another one for it."""
    forward = Stack.forward
    sizes = []

    def narrow(stack, rows, seen):
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.cuda.OutOfMemoryError("no memory for so many")
        return forward(stack, rows, seen)

    monkeypatch.setattr(Stack, "forward", narrow)
    batch = Batch(4)
    assert_same(dict(batch.run(orders)), alone)
    assert sizes[:4] == [4, 2, 1, 1]
    assert batch.messages == [f"the GPU's memory was full; the fits went on with {n} at a time" for n in (2, 1)]


def test_memory_for_no_fit_at_all_is_an_error(orders, monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError("no memory")

    monkeypatch.setattr(Stack, "forward", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        dict(Batch(4).run(orders))


def test_a_fit_without_a_place_waits_for_one(orders, alone, monkeypatch):
    """Memory may also be full before the first step of one more fit."""
    course = DeepImagePrior.course
    begun = []

    def crowded(prior, y, A):
        begun.append(prior)
        if len(begun) == 3:
            raise torch.cuda.OutOfMemoryError("no memory for a third one")
        return (yield from course(prior, y, A))

    monkeypatch.setattr(DeepImagePrior, "course", crowded)
    batch = Batch(4)
    assert_same(dict(batch.run(orders)), alone)
    assert batch.messages == ["the GPU's memory was full; the fits went on with 2 at a time"]


def test_a_fit_that_diverges_takes_no_other_with_it(orders, alone):
    """Data of zeros but for one sample, which no finite rate fits."""
    _, _, y, A = orders[0]
    wild = DeepImagePrior(SLOW.replace(rate=1e12, adam_rate=1e12, schedule="constant"))
    found = dict(Batch(3).run([orders[0], ("wild", wild, y, A), *orders[1:]]))
    assert isinstance(found.pop("wild"), DivergedError)
    assert_same(found, alone)


def test_an_interruption_keeps_the_best_images_so_far(orders):
    (name, prior, y, A), second, *others = orders

    def interrupt(state):
        if state.iteration == 10:
            os.kill(os.getpid(), signal.SIGINT)

    prior.progress = interrupt
    todo = iter([(name, prior, y, A), second, *others])
    found = dict(Batch(2).run(todo))
    assert [found[one].stop.rule for one in (name, second[0])] == ["interrupted"] * 2
    assert found[name].iterations == 10
    assert [one for one, *_ in todo] == [one for one, *_ in others]


def test_traced_programs_come_to_the_same(orders, monkeypatch):
    """What is given to the compiler, here without one; a batch of one is filled up to the size of the program."""
    through = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, dynamic, **_: through(function, backend="eager", dynamic=dynamic)
    )
    _, _, y, A = orders[0]
    prior = DeepImagePrior(SLOW.replace(network=NetworkConfig((8,), 4, 4), iterations=3))
    batch = Batch(2, compiles=True)
    found = dict(batch.run([("one", prior, y, A)]))
    assert difference(found["one"].image, prior(y, A).image) < TOLERANCE
    assert batch.messages == []


def test_a_compiler_that_fails_is_done_without(orders, alone, monkeypatch):
    def broken(*_):
        raise RuntimeError("no C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    batch = Batch(3, compiles=True)
    assert_same(dict(batch.run(orders)), alone)
    assert batch.messages == ["torch could not compile the fit, which went on without: no C++ compiler"]


def test_images_of_another_shape_are_refused(orders):
    name, prior, y, A = orders[0]
    cut = CartesianMRI(A.maps[:, :16], A.mask[:16])
    with pytest.raises(DipmedError, match="one shape"):
        list(Batch(2).run([(name, prior, y, A), ("cut", prior, y[:, :16] * cut.mask, cut)]))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({}, None), ({"time_limit": 3.0}, "time limit"), ({"stop": "sure"}, "twin"), ({"checkpointing": True}, "memory")],
)
def test_who_has_to_be_fitted_by_itself(changes, reason):
    found = objection(FIT_METHODS["dip"], SLOW.replace(**changes))
    assert found is None if reason is None else reason in found


def test_methods_with_a_network_of_their_own_are_fitted_by_themselves():
    assert objection(FIT_METHODS["conv-decoder"], SLOW) is not None
    assert objection(FIT_METHODS["dip-vanilla"], SLOW) is None
