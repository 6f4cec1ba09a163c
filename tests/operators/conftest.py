"""Settings of the operators' tests, and the one list of operators that all laws are tested on.

A case makes an operator for any shape, precision and seed; a test with the argument ``case`` runs for all of them.
"""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import (
    Adjoint,
    Blur,
    CartesianMRI,
    CartesianSampling,
    Composition,
    ConeBeam,
    FanBeam,
    FilteredProjector,
    FiniteDifferences,
    FourierTransform,
    Frames,
    Grid,
    Identity,
    ImageMask,
    LinearOperator,
    NonCartesianMRI,
    NonUniformFourier,
    Normal,
    OffResonance,
    ParallelBeam,
    Scaled,
    Sensitivity,
    Separable,
    SliceProfile,
    SliceProjector,
    Slices,
    StackedProjector,
    Sum,
    VolumeProjector,
    from_sigpy,
    posed,
)
from operators.sigpy_bridge import _FromSigpy

Matrix = tuple[int, ...]
Maker = Callable[[Matrix, torch.dtype, int], LinearOperator]
"""Takes the sizes of an image, the complex precision of what the operator holds, and a seed."""


@dataclass(frozen=True)
class Case:
    """A family of operators.

    Parameters
    ----------
    name
        Of the case; several may be of one class.
    kind
        The class that it is a case of.
    make
        Makes a member.
    ndims
        Dimensions of images that it takes.
    least
        Smallest size of an axis.
    normal_error
        Of ``A.N`` against ``AᴴA``, where that is an approximation.
    double
        Whether it computes in double precision where the input has it.
    """

    name: str
    kind: type[LinearOperator]
    make: Maker
    ndims: tuple[int, ...] = (2, 3)
    least: int = 1
    normal_error: float | None = None
    double: bool = True


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coils(seed: int) -> int:
    return 1 + seed % 4


def maps(matrix: Matrix, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn((coils(seed), *matrix), dtype=dtype, generator=rng_of(seed))


def mask(matrix: Matrix, seed: int) -> Tensor:
    """Scattered locations, lines along one axis, all, or none: `AᴴA` takes another way for each."""
    varying = [n if seed >> axis & 1 else 1 for axis, n in enumerate(matrix)]
    return (torch.rand(varying, generator=rng_of(seed)) < 0.6).expand(matrix).clone()


def trajectory(matrix: Matrix, seed: int) -> Tensor:
    positions = torch.rand((30, len(matrix)), generator=rng_of(seed), dtype=torch.float64) - 0.5
    return positions * torch.tensor(matrix)


def fourier(matrix: Matrix, _dtype: torch.dtype, seed: int) -> LinearOperator:
    return FourierTransform((coils(seed), *matrix), len(matrix))


def sensitivity(matrix: Matrix, dtype: torch.dtype, seed: int) -> Sensitivity:
    return Sensitivity(maps(matrix, dtype, seed))


def cartesian(matrix: Matrix, dtype: torch.dtype, seed: int) -> LinearOperator:
    return CartesianMRI(maps(matrix, dtype, seed), mask(matrix, seed))


def non_cartesian(backend: str) -> Maker:
    def make(matrix: Matrix, dtype: torch.dtype, seed: int) -> LinearOperator:
        weights = torch.rand(30, generator=rng_of(seed))
        return NonCartesianMRI(maps(matrix, dtype, seed), trajectory(matrix, seed), weights, backend)

    return make


def non_uniform(backend: str) -> Maker:
    return lambda matrix, _, seed: NonUniformFourier((coils(seed), *matrix), trajectory(matrix, seed), backend)


def two_sets(make: Maker) -> Maker:
    """The same encoding with a second set of maps."""

    def make_two(matrix: Matrix, dtype: torch.dtype, seed: int) -> LinearOperator:
        one = make(matrix, dtype, seed)
        assert isinstance(one, CartesianMRI | NonCartesianMRI)  # those have maps
        both = torch.stack([one.maps, one.maps.flip(0) * (1 + 2j)])
        if isinstance(one, CartesianMRI):
            return CartesianMRI(both, one.mask)
        return NonCartesianMRI(both, one.trajectory, one.weights, one.transform.backend)

    return make_two


def frames(make: Maker) -> Maker:
    """A series of three frames, each sampled in its own way."""

    def make_frames(matrix: Matrix, dtype: torch.dtype, seed: int) -> LinearOperator:
        first = make(matrix, dtype, seed)
        assert isinstance(first, CartesianMRI | NonCartesianMRI)  # the operators that a series is made of
        others = [first.with_mask(first.mask.roll(step, 0)) for step in (1, 2)]
        return Frames([first, *others])

    return make_frames


def stacked(make: Maker) -> Maker:
    """Slices that are the last axis of the matrix, each sampled in its own way."""

    def make_stack(matrix: Matrix, dtype: torch.dtype, seed: int) -> LinearOperator:
        first = make(matrix[:2], dtype, seed)
        assert isinstance(first, CartesianMRI | NonCartesianMRI)  # the operators that slices are measured by
        return Slices([first.with_mask(first.mask.roll(step, 0)) for step in range(matrix[2])])

    return make_stack


def off_resonance(make: Maker) -> Maker:
    """The same encoding over a field of up to 100 Hz, within 10 ms."""

    def make_off(matrix: Matrix, dtype: torch.dtype, seed: int) -> LinearOperator:
        encoding = make(matrix, dtype, seed)
        field = 100 * torch.rand(matrix, generator=rng_of(seed), dtype=torch.float64)
        times = 0.01 * torch.rand(encoding.range.shape[1:], generator=rng_of(seed), dtype=torch.float64)
        return OffResonance(encoding, field, times, None if seed % 2 else 3)

    return make_off


def slices(kind: str, weights: str) -> Maker:
    """Rays through unequal pixels off the axis, by a detector that is not in the middle."""

    def make(matrix: Matrix, _dtype: torch.dtype, seed: int) -> SliceProjector:
        rng = np.random.default_rng(seed)
        # pixels so large that some ray meets them, however few there are of either
        grid = Grid(matrix, tuple(rng.uniform(1.2, 3, 2)), tuple(rng.uniform(-0.3, 0.3, 2)))
        angles, n_columns = tuple(rng.uniform(-7, 7, 1 + seed % 5)), 1 + seed % 9
        offset = rng.uniform(-0.4, 0.4)
        if kind == "parallel":
            return SliceProjector(grid, ParallelBeam(angles, n_columns, 1.0, offset), weights)
        shift = rng.uniform(-0.3, 0.3)
        beam = FanBeam(angles, n_columns, 2.0, 50.0, 100.0, offset, kind == "curved", shift)
        return SliceProjector(grid, beam, weights)

    return make


def stack_of_projections(matrix: Matrix, dtype: torch.dtype, seed: int) -> StackedProjector:
    projector = slices("flat", "joseph")(matrix[:2], dtype, seed)
    return StackedProjector(projector, matrix[2])


def filtered_stack(matrix: Matrix, dtype: torch.dtype, seed: int) -> LinearOperator:
    projector = stack_of_projections(matrix, dtype, seed)
    weights = torch.rand(projector.range.shape[1:], generator=rng_of(seed)) if seed % 2 else None
    return FilteredProjector(projector, None, 0.5, exponent=0.125, ray_weights=weights)


def volume(kind: str) -> Maker:
    """The same in three dimensions."""

    def make(matrix: Matrix, _dtype: torch.dtype, seed: int) -> VolumeProjector:
        rng = np.random.default_rng(seed)
        grid = Grid(matrix, tuple(rng.uniform(2, 3, 3)), tuple(rng.uniform(-0.3, 0.3, 3)))
        angles, n_rows, n_columns = tuple(rng.uniform(-7, 7, 1 + seed % 4)), 1 + seed % 5, 1 + seed % 7
        rows_by, columns_by, shift = rng.uniform(-0.3, 0.3, 3)
        if kind == "parallel":
            return VolumeProjector(grid, posed(ParallelBeam(angles, n_columns, 1.0, columns_by), n_rows))
        turned = kind == "curved"
        beam = ConeBeam(angles, n_rows, n_columns, 2.5, 2.0, 60.0, 100.0, rows_by, columns_by, turned, shift)
        return VolumeProjector(grid, beam)

    return make


def filtered(matrix: Matrix, dtype: torch.dtype, seed: int) -> LinearOperator:
    projector = slices(["parallel", "flat", "curved"][seed % 3], "joseph")(matrix, dtype, seed)
    seen = torch.rand((projector.range.shape[1], 1), generator=rng_of(seed)) < 0.7
    weights = torch.rand(projector.range.shape[1:], generator=rng_of(seed)) if seed % 2 else None
    return FilteredProjector(projector, seen, 0.5, exponent=[0.5, 0.125, 0][seed % 3], ray_weights=weights)


def filtered_volume(matrix: Matrix, dtype: torch.dtype, seed: int) -> LinearOperator:
    projector = volume(["parallel", "flat", "curved"][seed % 3])(matrix, dtype, seed)
    seen = torch.rand((projector.range.shape[1], 1, 1), generator=rng_of(seed)) < 0.7
    return FilteredProjector(projector, seen, 0.5)


def matrices(matrix: Matrix, _dtype: torch.dtype, seed: int) -> LinearOperator:
    drawn = [torch.randn((1 + seed % 5, n), generator=rng_of(seed)) for n in matrix]
    kept = [one if seed >> axis & 1 else None for axis, one in enumerate(drawn)]
    return Separable((1, *matrix), kept, is_complex=seed % 2 == 0)


def blur(matrix: Matrix, _dtype: torch.dtype, seed: int) -> LinearOperator:
    kernels = [torch.randn(2 * ((seed >> axis) % 3) + 1, generator=rng_of(seed)) for axis, _ in enumerate(matrix)]
    return Blur((1, *matrix), kernels, "reflect" if seed % 2 else "zero", is_complex=seed % 3 == 0)


def thick(matrix: Matrix, _dtype: torch.dtype, seed: int) -> LinearOperator:
    axis = seed % len(matrix)
    factor = 1 + (matrix[axis] - 1) * (seed % 7) / 7
    profile = "gaussian" if seed % 2 else "rectangular"
    return SliceProfile((1, *matrix), factor, 1.5, 2.0, profile, axis=axis, is_complex=seed % 3 == 0)


def bridged(matrix: Matrix, _dtype: torch.dtype, seed: int) -> LinearOperator:
    import sigpy

    multiply = sigpy.linop.Multiply((1, *matrix), maps(matrix, torch.complex64, seed).numpy())
    return from_sigpy(sigpy.linop.FFT(multiply.oshape, axes=tuple(range(-len(matrix), 0))) * multiply)


CASES = (
    Case("fourier", FourierTransform, fourier),
    Case("sampling", CartesianSampling, lambda matrix, _, seed: CartesianSampling(mask(matrix, seed), coils(seed))),
    Case("sensitivity", Sensitivity, sensitivity),
    Case("mri", CartesianMRI, cartesian),
    Case("non-uniform fourier, sigpy", NonUniformFourier, non_uniform("sigpy"), least=2),
    Case("non-uniform fourier, finufft", NonUniformFourier, non_uniform("finufft"), least=2),
    Case("mri along a trajectory, sigpy", NonCartesianMRI, non_cartesian("sigpy"), least=2, normal_error=1e-4),
    Case("mri along a trajectory, finufft", NonCartesianMRI, non_cartesian("finufft"), least=2, normal_error=1e-5),
    Case("mri of two sets", CartesianMRI, two_sets(cartesian)),
    Case("along a trajectory, two sets", NonCartesianMRI, two_sets(non_cartesian("sigpy")), least=2, normal_error=1e-4),
    Case("frames", Frames, frames(cartesian)),
    Case("frames of two sets", Frames, frames(two_sets(cartesian))),
    Case("frames along a trajectory", Frames, frames(non_cartesian("sigpy")), least=2, normal_error=1e-4),
    Case("slices", Slices, stacked(cartesian), (3,)),
    Case("off-resonance", OffResonance, off_resonance(cartesian)),
    Case("off-resonance, trajectory", OffResonance, off_resonance(non_cartesian("sigpy")), least=2),
    Case(
        "differences", FiniteDifferences, lambda matrix, _, seed: FiniteDifferences((coils(seed), *matrix), len(matrix))
    ),
    Case("real differences", FiniteDifferences, lambda matrix, _, __: FiniteDifferences(matrix, 1, is_complex=False)),
    *(
        Case(f"slices, {kind}, {weights}", SliceProjector, slices(kind, weights), (2,))
        for kind in ("parallel", "flat", "curved")
        for weights in ("joseph", "strip")
    ),
    Case("stack of projections", StackedProjector, stack_of_projections, (3,)),
    *(Case(f"volume, {kind}", VolumeProjector, volume(kind), (3,)) for kind in ("parallel", "flat", "curved")),
    Case("filtered slices", FilteredProjector, filtered, (2,)),
    Case("filtered stack", FilteredProjector, filtered_stack, (3,)),
    Case("filtered volume", FilteredProjector, filtered_volume, (3,)),
    Case("identity", Identity, lambda matrix, _, seed: Identity((1, *matrix), is_complex=seed % 2 == 0)),
    Case("image mask", ImageMask, lambda matrix, _, seed: ImageMask(mask(matrix, seed), is_complex=seed % 2 == 0)),
    Case("matrices", Separable, matrices),
    Case("blur", Blur, blur),
    Case("thick slices", SliceProfile, thick),
    Case("composition", Composition, lambda *given: fourier(*given) @ sensitivity(*given)),
    Case("sum", Sum, lambda *given: cartesian(*given) + sensitivity(*given)),
    Case("scaled", Scaled, lambda *given: (2 - 1.5j) * cartesian(*given)),
    Case("adjoint", Adjoint, lambda *given: sensitivity(*given).H),
    Case("normal", Normal, lambda *given: cartesian(*given).N),
    Case("bridged from sigpy", _FromSigpy, bridged, double=False),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        without = pytest.mark.skipif(importlib.util.find_spec("finufft") is None, reason="needs finufft")
        marked = [pytest.param(c, id=c.name, marks=[without] if "finufft" in c.name else []) for c in CASES]
        metafunc.parametrize("case", marked)


@pytest.fixture(scope="session")
def all_cases() -> tuple[Case, ...]:
    return CASES


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Arrays here are tiny: sharing them between threads costs more than it saves, most of all on a busy machine."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)
