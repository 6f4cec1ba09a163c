"""Names of undersampling rules, and the masks that they stand for."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from operators import CartesianSampling, DipmedError, ShapeError, UndersamplingSpec, make_mask, parse_undersampling

LINE_KINDS = ("random", "equispaced", "golden")
KINDS = (*LINE_KINDS, "poisson")


def test_a_name_is_read() -> None:
    assert parse_undersampling("random:R=4,acs=16,seed=3") == UndersamplingSpec("random", 4.0, 16, 3)
    assert parse_undersampling(" golden : acs = 0.08 , R = 2.5 ".replace(" :", ":")).acs == 0.08
    assert parse_undersampling("poisson:R=4,acs=16").seed == 0


@given(
    kind=st.sampled_from(KINDS),
    acceleration=st.integers(10, 999).map(lambda n: n / 10),
    acs=st.one_of(st.integers(0, 99), st.integers(1, 99).map(lambda n: n / 100)),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_rule_is_named_and_read_back(kind: str, acceleration: float, acs: float, seed: int) -> None:
    rule = UndersamplingSpec(kind, acceleration, acs, seed)
    assert parse_undersampling(str(rule)) == rule


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "one of random, equispaced, poisson, golden, got ''"),
        ("radial:R=4,acs=16", "got 'radial'"),
        ("Random:R=4,acs=16", "got 'Random'"),
        ("random", "R and acs missing"),
        ("random:R=4", "acs missing"),
        ("random:acs=4", "R missing"),
        ("random:R=4,acs=16,width=3", "expected R=, acs= and seed=, got 'width=3'"),
        ("random:R=4,acs=16,", "got ''"),
        ("random:R4,acs=16", "got 'R4'"),
        ("random:R=4,R=6,acs=16", "R is given twice"),
        ("random:R=four,acs=16", "R must be a number, got 'four'"),
        ("random:R=4,acs=16,seed=1.5", "seed must be a whole number, got '1.5'"),
        ("random:R=4,acs=16,seed=-1", "seed must be a whole number from 0"),
        ("random:R=4,acs=16,seed=99999999999", "seed must be a whole number from 0"),
        ("random:R=0.5,acs=16", "R must be at least 1, got 0.5"),
        ("random:R=nan,acs=16", "R must be at least 1, got nan"),
        ("random:R=inf,acs=16", "R must be at least 1, got inf"),
        ("random:R=4,acs=-1", "acs must be a whole number of lines or a fraction below 1, got -1"),
        ("random:R=4,acs=16.5", "acs must be a whole number of lines or a fraction below 1, got 16.5"),
        ("random:R=4,acs=nan", "acs must be a whole number"),
    ],
)
def test_a_bad_name_is_refused_with_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(DipmedError, match=message):
        parse_undersampling(name)


@given(text=st.text(max_size=40) | st.from_regex(r"(random|poisson):(R|acs|seed|x)=[-0-9.e]{0,9}(,acs=[0-9.]{0,9})?"))
def test_any_text_is_a_rule_or_an_error_of_ours(text: str) -> None:
    try:
        make_mask(text, (8, 8))
    except DipmedError:
        return


def test_random_lines_are_those_of_the_protocol() -> None:
    """The protocol's recipe, written out: centre first, then a choice by numpy's generator."""
    n, n_centre = 180, 16
    expected = np.zeros(n, bool)
    expected[n // 2 - n_centre // 2 : n // 2 - n_centre // 2 + n_centre] = True
    rest = np.flatnonzero(~expected)
    expected[np.random.default_rng(7).choice(rest, round(n / 4) - n_centre, replace=False)] = True
    mask = make_mask("random:R=4,acs=16,seed=7", (3, n))
    assert mask.dtype == torch.bool
    assert torch.equal(mask, torch.from_numpy(expected).expand(3, n))


def test_a_fraction_of_lines_is_rounded() -> None:
    mask = make_mask("random:R=8,acs=0.04", (1, 180))[0]
    assert mask[87:94].all()  # 7.2 lines are 7
    assert mask.sum() == round(180 / 8)


@given(
    kind=st.sampled_from(LINE_KINDS),
    n=st.integers(2, 80),
    acceleration=st.floats(1, 8),
    acs=st.one_of(st.integers(0, 20), st.floats(0, 0.3)),
    seed=st.integers(0, 99),
    is_3d=st.booleans(),
)
def test_lines_are_as_many_as_asked_and_hold_the_centre(
    kind: str, n: int, acceleration: float, acs: float, seed: int, is_3d: bool
) -> None:
    rule = UndersamplingSpec(kind, acceleration, acs, seed)
    n_centre, n_kept = rule.n_centre(n), round(n / acceleration)
    assume(n_kept >= max(n_centre, 1))
    shape = (2, 3, n) if is_3d else (2, n)
    mask = make_mask(rule, shape)
    assert tuple(mask.shape) == shape
    lines = mask.reshape(-1, n)
    assert torch.equal(lines, lines[:1].expand_as(lines))
    assert lines[0].sum() == n_kept
    start = n // 2 - n_centre // 2
    assert lines[0, start : start + n_centre].all()
    assert torch.equal(mask, make_mask(rule, shape))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_chooses_the_pattern(kind: str) -> None:
    a, b = (make_mask(f"{kind}:R=4,acs=4,seed={seed}", (32, 48)) for seed in (0, 1))
    assert not torch.equal(a, b)


def test_equispaced_gaps_differ_by_one_at_most() -> None:
    mask = make_mask("equispaced:R=4,acs=0,seed=2", (1, 96))[0]
    gaps = torch.diff(torch.nonzero(mask).flatten())
    assert set(gaps.tolist()) == {4}
    uneven = torch.diff(torch.nonzero(make_mask("equispaced:R=3,acs=0", (1, 100))[0]).flatten())
    assert set(uneven.tolist()) <= {3, 4}


def test_golden_steps_leave_no_large_gap() -> None:
    mask = make_mask("golden:R=5,acs=0,seed=1", (1, 200))[0]
    gaps = torch.diff(torch.nonzero(mask).flatten())
    # golden steps cut an axis into at most three lengths, the longest the sum of the others
    assert gaps.max() <= 3 * 5


@given(
    shape=st.tuples(st.integers(4, 24), st.integers(4, 24)),
    acceleration=st.floats(1, 8),
    acs=st.integers(0, 6),
    seed=st.integers(0, 9),
)
def test_poisson_discs_are_as_many_as_asked_and_hold_a_square_centre(
    shape: tuple[int, int], acceleration: float, acs: int, seed: int
) -> None:
    n_kept = round(shape[0] * shape[1] / acceleration)
    assume(acs <= min(shape) and max(acs**2, 1) <= n_kept)
    mask = make_mask(UndersamplingSpec("poisson", acceleration, acs, seed), shape)
    assert mask.sum() == n_kept
    corner = [n // 2 - acs // 2 for n in shape]
    assert mask[corner[0] : corner[0] + acs, corner[1] : corner[1] + acs].all()


def test_poisson_discs_keep_apart_and_thin_out() -> None:
    mask = make_mask("poisson:R=8,acs=6,seed=0", (64, 64))
    edge = torch.nonzero(mask[:16]).double()
    distances = torch.cdist(edge, edge) + 1e9 * torch.eye(len(edge))
    assert distances.min() >= 2
    assert mask[:16].float().mean() < mask[24:40, 24:40].float().mean() / 2


def test_poisson_discs_of_a_volume_are_the_same_along_the_readout() -> None:
    mask = make_mask("poisson:R=3,acs=4", (3, 16, 12))
    assert torch.equal(mask, make_mask("poisson:R=3,acs=4", (16, 12)).expand(3, 16, 12))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("random:R=4,acs=16", (8, 32), "keeps 8 of 32 lines, fewer than the 16 of the centre"),
        ("golden:R=1,acs=64", (8, 32), "keeps 32 of 32 lines, fewer than the 64"),
        ("random:R=99,acs=0", (8, 32), "keeps 0 of 32 lines"),
        ("poisson:R=4,acs=9", (16, 16), "keeps 64 of 16x16 locations"),
        ("poisson:R=1,acs=9", (8, 16), "too narrow for the 9x9"),
        ("random:R=1,acs=0", (8,), r"\(x, y\) or \(x, y, z\), got \(8,\)"),
        ("random:R=1,acs=0", (8, 0), r"got \(8, 0\)"),
    ],
)
def test_a_matrix_too_small_for_the_rule_is_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make_mask(name, shape)


def test_the_operator_sets_unsampled_locations_to_zero(generator: torch.Generator) -> None:
    mask = torch.rand(4, 5, generator=generator) < 0.5
    P = CartesianSampling(mask, 3)
    y = P.domain.randn((2,), generator=generator)
    assert torch.equal(P(y)[..., mask], y[..., mask])
    assert torch.all(P(y)[..., ~mask] == 0)


def test_the_operator_hides_no_nan() -> None:
    mask = torch.tensor([[True, False]])
    y = torch.tensor([[[1.0 + 0j, complex("nan")]]])
    assert CartesianSampling(mask, 1)(y).isnan().any()


def test_limits_are_named_and_read_back() -> None:
    rule = UndersamplingSpec("equispaced", 2.0, 8, 3, partial=0.75, echo=0.8, shutter=True)
    assert str(rule) == "equispaced:R=2,acs=8,seed=3,partial=0.75,echo=0.8,shutter=1"
    assert parse_undersampling(str(rule)) == rule
    assert parse_undersampling("random:R=2,acs=8,shutter=0,partial=1") == UndersamplingSpec("random", 2.0, 8)
    assert set(rule.limits) == {"partial", "echo", "shutter"}


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("partial=0.5", "0.5 < partial <= 1.*got 0.5"),
        ("partial=1.2", "got 1.2"),
        ("echo=nan", "got nan"),
        ("shutter=2", "shutter must be 0 or 1, got 2"),
        ("shutter=yes", "shutter must be a whole number"),
    ],
)
def test_impossible_limits_are_refused(limit: str, message: str) -> None:
    with pytest.raises(DipmedError, match=message):
        parse_undersampling(f"random:R=2,acs=8,{limit}")


@given(
    kind=st.sampled_from(LINE_KINDS),
    n=st.integers(8, 80),
    acceleration=st.floats(1, 3),
    partial=st.floats(0.6, 1),
    seed=st.integers(0, 99),
)
def test_partial_fourier_leaves_lines_of_low_index_out_and_keeps_the_centre(
    kind: str, n: int, acceleration: float, partial: float, seed: int
) -> None:
    rule = UndersamplingSpec(kind, acceleration, 2, seed, partial=partial)
    n_missing = min(n - round(n * partial), n // 2)
    assume(n // 2 - 1 >= n_missing)
    lines = make_mask(rule, (2, n))[0]
    assert not lines[:n_missing].any()
    assert lines.sum() == round((n - n_missing) / acceleration)
    assert lines[n // 2 - 1 : n // 2 + 1].all()


@given(n=st.integers(2, 60), echo=st.floats(0.51, 1))
def test_an_asymmetric_echo_leaves_the_beginning_of_the_readout_out(n: int, echo: float) -> None:
    mask = make_mask(UndersamplingSpec("random", 1.0, 0, echo=echo), (n, 6))
    n_missing = min(n - round(n * echo), n // 2)
    assert not mask[:n_missing].any()
    assert mask[n_missing:].all()
    assert mask[n // 2].all()


def test_a_shutter_leaves_the_corners_of_both_phase_encodes_out() -> None:
    mask = make_mask("random:R=1,acs=0,shutter=1", (4, 40, 30))
    assert abs(float(mask.float().mean()) - np.pi / 4) < 0.02
    assert torch.equal(mask, mask[:1].expand_as(mask))
    y, z = torch.meshgrid((torch.arange(40) - 20) / 20, (torch.arange(30) - 15) / 15, indexing="ij")
    assert torch.equal(mask[0], y**2 + z**2 <= 1)
    discs = make_mask("poisson:R=4,acs=8,shutter=1,partial=0.7", (4, 40, 30))[0]
    allowed = mask[0] & (torch.arange(30) >= 9)
    assert not (discs & ~allowed).any()
    assert discs.sum() == round(int(allowed.sum()) / 4)
    assert discs[16:24, 11:19].all()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("random:R=1,acs=0,shutter=1", (8, 8), "two phase encodes"),
        ("random:R=1,acs=8,partial=0.6", (8, 20), "leaves out lines of the centre"),
        ("poisson:R=1,acs=10,partial=0.6", (4, 20, 20), "a part of the centre"),
    ],
)
def test_limits_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make_mask(name, shape)
