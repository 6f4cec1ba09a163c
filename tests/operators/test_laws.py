"""The laws that every operator obeys, over generated shapes, batches and precisions."""

import inspect
import itertools
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import operators
from operators import LinearOperator, batch_test, dot_test, gradient_test, normal_test

TOLERANCE = {torch.complex64: 1e-5, torch.complex128: 1e-12}
REAL = {torch.complex64: torch.float32, torch.complex128: torch.float64}

batches = st.sampled_from([(), (1,), (3,), (2, 2)])
precisions = st.sampled_from([torch.complex64, torch.complex128])
seeds = st.integers(0, 2**16)
# forward mode in torch 2.13 calls a part of torch that is marked as deprecated
forward_mode = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def draw_matrix(data: st.DataObject, case: Any) -> tuple[int, ...]:
    ndim = data.draw(st.sampled_from(case.ndims))
    return data.draw(st.tuples(*[st.integers(case.least, 12 if ndim == 2 else 6)] * ndim))


def small(case: Any, dtype: torch.dtype = torch.complex64) -> LinearOperator:
    return case.make((3, 4) if 2 in case.ndims else (2, 3, 4), dtype, 3)


def draw(op: LinearOperator, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.complex64) -> Tensor:
    kind = dtype if op.domain.is_complex else REAL[dtype]
    return op.domain.randn(batch, dtype=kind, generator=torch.Generator().manual_seed(5))


def test_no_operator_is_missing(all_cases: tuple[Any, ...]) -> None:
    public = [getattr(operators, name) for name in operators.__all__]
    classes = {one for one in public if inspect.isclass(one) and issubclass(one, LinearOperator)}
    concrete = {one for one in classes if not inspect.isabstract(one)}
    assert concrete - {case.kind for case in all_cases} == set()
    for case in all_cases:
        assert type(small(case)) is case.kind, case.name


@given(data=st.data(), batch=batches, dtype=precisions, seed=seeds)
def test_an_operator_obeys_the_laws(
    case: Any, data: st.DataObject, batch: tuple[int, ...], dtype: torch.dtype, seed: int
) -> None:
    op = case.make(draw_matrix(data, case), dtype, seed)
    generator = torch.Generator().manual_seed(seed)
    tolerance = TOLERANCE[dtype if case.double else torch.complex64]
    for check in (dot_test, gradient_test, batch_test, normal_test):
        allowed = case.normal_error or tolerance if check is normal_test else tolerance
        error = check(op, generator, batch, dtype)
        assert error < allowed, f"{check.__name__} of {op!r}: {error}"


@given(data=st.data(), dtype=precisions, seed=seeds)
def test_results_have_the_precision_of_the_input(case: Any, data: st.DataObject, dtype: torch.dtype, seed: int) -> None:
    other = torch.complex128 if dtype == torch.complex64 else torch.complex64
    op = case.make(draw_matrix(data, case), other, seed)
    x = draw(op, dtype=dtype)
    for result in (op(x), op.adjoint(op(x)), op.N(x)):
        assert result.dtype in (dtype, REAL[dtype])


def test_an_operator_is_linear(case: Any) -> None:
    op = small(case)
    x, z = draw(op, (2,))
    factor = 0.7 - 1.3j if op.domain.is_complex else -1.7
    torch.testing.assert_close(op(factor * x + z), factor * op(x) + op(z), rtol=1e-4, atol=1e-4)
    assert not op(torch.zeros_like(x)).any()


def test_the_adjoint_of_the_adjoint_is_the_operator(case: Any) -> None:
    op = small(case)
    assert (op.H.domain, op.H.range) == (op.range, op.domain)
    assert op.H.H is op or op.H.H.H is op.H  # the second where op is itself made by .H
    assert (op.N.domain, op.N.range) == (op.domain, op.domain)
    x = draw(op)
    torch.testing.assert_close(op.N.H(x), op.N(x))


@forward_mode
def test_second_derivatives_are_right(case: Any) -> None:
    if not case.double:
        pytest.skip("needs double precision")
    op = small(case, torch.complex128)
    x = draw(op, dtype=torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(op, x, check_forward_ad=True)
    # of a quartic, so that the second derivative is not constant
    assert torch.autograd.gradgradcheck(lambda z: op(z).abs().square().square().sum(), x)


@pytest.mark.parametrize("axis", [0, 1])
def test_vmap_is_a_batch(case: Any, axis: int) -> None:
    op = small(case)
    x = draw(op, (2, 3))
    mapped = torch.func.vmap(op, in_dims=axis, out_dims=axis)(x)
    torch.testing.assert_close(mapped, op(x))


@forward_mode
def test_forward_mode_is_the_operator_itself(case: Any) -> None:
    op = small(case)
    x, tangent = draw(op, (2,)), draw(op, (2,)).flip(0)
    value, derivative = torch.func.jvp(op, (x,), (tangent,))
    torch.testing.assert_close(value, op(x))
    torch.testing.assert_close(derivative, op(tangent))


def test_an_empty_batch_gives_an_empty_batch(case: Any) -> None:
    op = small(case)
    x = draw(op, (0, 2))
    assert op(x).shape == (0, 2, *op.range.shape)
    assert op.adjoint(op(x)).shape == op.N(x).shape == x.shape


def test_a_pickled_operator_is_the_same(case: Any) -> None:
    op = small(case)
    x = draw(op)
    again = pickle.loads(pickle.dumps(op))  # noqa: S301  # our own bytes
    assert torch.equal(again(x), op(x))
    assert torch.equal(again.adjoint(op(x)), op.adjoint(op(x)))
    assert torch.equal(again.N(x), op.N(x))


def tensors_of(op: LinearOperator) -> list[Tensor]:
    """All tensors that an operator and its parts hold, as buffers or otherwise."""
    parts = [value for module in op.modules() for value in vars(module).values()]
    kept = itertools.chain(parts, *(part.values() for part in parts if isinstance(part, dict)))
    return [value for value in kept if isinstance(value, Tensor)]


def test_all_that_an_operator_holds_moves_with_it(case: Any) -> None:
    op = small(case)
    n_tensors = len(tensors_of(op))
    on_meta = pickle.loads(pickle.dumps(op)).to("meta")  # noqa: S301  # our own bytes
    held = tensors_of(on_meta)
    assert len(held) == n_tensors
    assert {tensor.device.type for tensor in held} <= {"meta"}
    assert on_meta.device.type == ("meta" if held else "cpu")
    assert not list(op.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_operator_gives_the_same_on_cuda(case: Any, generator: torch.Generator) -> None:
    op = small(case)
    on_device = pickle.loads(pickle.dumps(op)).to("cuda")  # noqa: S301  # our own bytes
    x = draw(op, (2,))
    torch.testing.assert_close(on_device(x.cuda()).cpu(), op(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(on_device.adjoint(op(x).cuda()).cpu(), op.adjoint(op(x)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(on_device.N(x.cuda()).cpu(), op.N(x), rtol=1e-4, atol=1e-4)
    assert dot_test(on_device, generator) < TOLERANCE[torch.complex64]
