"""The noise of line integrals is found by the rays that meet least: that of photons, or the same for all."""

import numpy as np
import pytest

from dipmed.calib.ray_noise import ray_noise_level
from dipmed.scan import DipmedError


def lines(n_columns=96, peak=4.0, detail=0.15):
    """Views of a disc that is full of detail as fine as the columns, with air on both sides, ``(40, n_columns)``."""
    column = np.linspace(-1, 1, n_columns)
    disc = peak * np.sqrt(np.clip(1 - (column / 0.6) ** 2, 0, None))
    return (disc * (1 + np.random.default_rng(5).uniform(-detail, detail, (40, n_columns)))).astype(np.float32)


def photons(p, n, seed=0):
    counts = np.random.default_rng(seed).poisson(n * np.exp(-p))
    return -np.log(np.maximum(counts, 1) / n).astype(np.float32)


@pytest.mark.parametrize("n", [3e3, 3e4, 3e5])
def test_noise_of_photons(n):
    p = lines()
    true = np.sqrt(np.mean(np.exp(p) / n))
    level, is_told = ray_noise_level(photons(p, n))
    assert is_told
    assert level == pytest.approx(true, rel=0.2)
    # what the object has of detail counts as noise where all rays are looked at alike
    naive = np.median(np.abs(np.diff(photons(p, 3e5), n=4))) / 0.6745 / np.sqrt(70)
    assert naive > 3 * np.sqrt(np.mean(np.exp(p) / 3e5))


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_noise_that_is_the_same_everywhere_in_any_unit(unit):
    noise = np.random.default_rng(1).normal(0, unit, lines().shape)
    assert ray_noise_level((unit * lines() + noise).astype(np.float32))[0] == pytest.approx(unit, rel=0.15)


def test_rows_of_a_volume_and_large_data_are_the_same_to_it(monkeypatch):
    p = photons(lines(), 3e4)
    assert ray_noise_level(p.reshape(5, 8, -1)) == ray_noise_level(p)
    monkeypatch.setattr("dipmed.calib.ray_noise._ENOUGH", 1000)
    assert ray_noise_level(p)[0] == pytest.approx(np.sqrt(np.mean(np.exp(lines()) / 3e4)), rel=0.3)


def test_air_that_was_set_to_zero_does_not_hide_the_noise():
    p = lines(detail=0)
    seen = np.where(p > 0, photons(p, 3e4), 0).astype(np.float32)
    level, is_told = ray_noise_level(seen)
    assert not is_told
    assert level == pytest.approx(np.sqrt(np.mean(np.where(p > 0, np.exp(p) / 3e4, 0))), rel=0.2)


def test_what_tells_nothing_is_refused():
    with pytest.raises(DipmedError, match="no noise at all"):
        ray_noise_level(np.zeros((4, 16), np.float32))
    with pytest.raises(DipmedError, match="five columns or more, got 4"):
        ray_noise_level(np.ones((4, 4), np.float32))
