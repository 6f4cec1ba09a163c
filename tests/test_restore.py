"""What becomes of pieces that cannot be fitted, and the noise level of volumes."""

from dataclasses import replace

import numpy as np
import pytest

from dipmed import restore as restoring
from dipmed.calib.image_noise import image_noise_level
from dipmed.image_pieces import Task
from dipmed.io.source_volume import SourceVolume
from dipmed.restore import RestoreSettings, restore
from dipmed.scan import DipmedError, DivergedError, ImageVolume
from dipmed.settings import ReconSettings

SETTINGS = RestoreSettings(
    Task("denoise"),
    fit=ReconSettings(
        changes={"iterations": 20, "stop": "budget"},
        sets=("network.channels=8,8", "network.skip_channels=4"),
        device="cpu",
    ),
)


@pytest.fixture(scope="module")
def truth():
    """An ellipse in three slices, the last of which is empty."""
    x, y = np.indices((48, 40))
    inside = ((x - 23) / 18) ** 2 + ((y - 19) / 15) ** 2 < 1
    return np.stack([100.0 * inside, 60.0 * inside, np.zeros((48, 40))], axis=2).astype(np.float32)


@pytest.fixture(scope="module")
def source(truth):
    noise = np.random.default_rng(0).normal(0, 8, truth.shape) * (truth > 0)
    return SourceVolume(ImageVolume((truth + noise).astype(np.float32), np.diag([1.0, 1.0, 4.0, 1.0])))


def test_a_fit_that_diverges_is_replaced_and_the_notes_say_so(source, truth, monkeypatch):
    class Diverging:
        def __init__(self, *_, **__):
            pass

        def __call__(self, y, A):
            raise DivergedError("as it was told")

    monkeypatch.setattr(restoring, "DeepImagePrior", Diverging)
    found = restore(source, SETTINGS)
    assert [part.method for part in found.parts] == ["tv", "tv", "none"]
    assert [note.split(" diverged")[0] for note in found.notes] == ["the fit of piece 0", "the fit of piece 1"]
    assert np.linalg.norm(found.volume.data - truth) < 0.6 * np.linalg.norm(source.volume.data - truth)
    assert not found.volume.data[:, :, 2].any()


def test_an_interruption_keeps_what_was_fitted(source):
    def interrupt(_, n_pieces, state):
        assert n_pieces == 3
        if state.iteration == 10:
            raise KeyboardInterrupt

    found = restore(source, SETTINGS, progress=interrupt)
    assert found.was_interrupted
    assert [part.method for part in found.parts] == ["dip", "tv", "none"]
    assert found.notes[-1].startswith("interrupted: 1 of 3")


def test_the_same_seed_gives_the_same_volume(source):
    first, again = (restore(source, SETTINGS).volume.data for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_what_memory_will_not_hold_is_refused(source, monkeypatch):
    monkeypatch.setattr("dipmed.memory.available_memory", lambda: 10**6)
    with pytest.raises(DipmedError, match="--mode slice"):
        restore(source, replace(SETTINGS, task=Task("denoise", in_3d=True)))


@pytest.mark.parametrize("rician", [False, True])
def test_the_noise_level_of_an_object_in_dark_air_is_found(truth, rician):
    random = np.random.default_rng(1)
    a, b = random.normal(0, 5, (2, *truth.shape))
    volume = np.hypot(truth + a, b) if rician else truth + a * (truth > 0)
    assert image_noise_level(volume.astype(np.float32)) == pytest.approx(5, rel=0.15)


def test_voxels_that_are_unknown_do_not_count(truth):
    volume = truth + np.random.default_rng(1).normal(0, 5, truth.shape).astype(np.float32)
    known = np.random.default_rng(2).random(truth.shape) < 0.9
    assert image_noise_level(np.where(known, volume, 1e6), known) == pytest.approx(5, rel=0.2)
    with pytest.raises(DipmedError, match="give --sigma"):
        image_noise_level(volume, np.indices(truth.shape)[0] % 2 == 0)


def test_a_plane_across_the_slices_has_a_noise_level():
    plane = 100 + np.random.default_rng(0).normal(0, 5, (64, 1, 48)).astype(np.float32)
    assert image_noise_level(plane) == pytest.approx(5, rel=0.15)
