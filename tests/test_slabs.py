"""Slabs cover a volume, and their weights are a smooth partition of unity."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dipmed.slabs import blend, slab_ranges, slab_weights

sizes = st.tuples(st.integers(2, 200), st.integers(2, 64))


@given(sizes)
def test_slabs_cover_all_slices_and_overlap(given_sizes):
    n_slices, size = given_sizes
    ranges = slab_ranges(n_slices, size)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == n_slices
    lengths = {end - first for first, end in ranges}
    assert len(lengths) == 1
    assert lengths.pop() <= size
    for (first, end), (next_first, next_end) in pairwise(ranges):
        assert first < next_first < end < next_end


@given(sizes)
def test_weights_are_a_smooth_partition_of_unity(given_sizes):
    n_slices, size = given_sizes
    ranges = slab_ranges(n_slices, size)
    total = torch.zeros(n_slices)
    for (first, end), weights in zip(ranges, slab_weights(ranges), strict=True):
        assert bool((weights > 0).all())
        total[first:end] += weights
    torch.testing.assert_close(total, torch.ones(n_slices))


def test_weights_rise_and_fall_in_the_overlaps_alone():
    first, second = slab_weights([(0, 10), (6, 16)])
    torch.testing.assert_close(first[:6], torch.ones(6))
    assert bool((first.diff()[5:] < 0).all())
    torch.testing.assert_close(second, first.flip(0))
    assert float(first[6]) == pytest.approx(0.962, abs=1e-3)  # sin² of 7/8 of a quarter turn


@given(sizes)
def test_parts_of_one_volume_blend_to_that_volume(given_sizes):
    n_slices, size = given_sizes
    ranges = slab_ranges(n_slices, size)
    volume = torch.randn(1, 3, n_slices, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    parts = [volume[..., first:end] for first, end in ranges]
    torch.testing.assert_close(blend(parts, ranges), volume)


def test_a_slab_of_one_slice_is_refused():
    with pytest.raises(ValueError, match="two slices"):
        slab_ranges(9, 1)
