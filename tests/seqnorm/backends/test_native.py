import multiprocessing
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from seqnorm.backends import native
from seqnorm.backends.plan import Plan
from seqnorm.functional import normalize, valid_positions

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
DTYPES = tuple(native.DTYPES)
# over, groups, center
SETS = [("L", 1), ("C", 1), ("C", 2), ("CL", 1), ("CL", 3), ("NL", 1)]
WORDS = {"float32": 2e-5, "float64": 1e-12, "bfloat16": 2e-2, "float16": 3e-3}


def tolerance(dtype: torch.dtype) -> float:
    return WORDS[str(dtype).removeprefix("torch.")]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Case:
    """An input with everything that goes with it, and what float64 says of it."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        plan: Plan,
        *,
        dtype: torch.dtype = torch.float32,
        valid: str | None = None,
        residual: bool = False,
        affine: bool = True,
        given: bool = False,
        seed: int = 0,
        offset: float = 0.0,
    ) -> None:
        draw = torch.Generator().manual_seed(seed)
        n, c, length = shape
        axes = shape if plan.layout == "NCL" else (n, length, c)
        self.plan, self.given = plan, given
        self.x = (torch.randn(axes, generator=draw, dtype=torch.float64) + offset).to(dtype)
        self.grad = torch.randn(axes, generator=draw).to(dtype)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        self.weight = torch.randn(c, generator=draw).to(wide) if affine else None
        self.bias = torch.randn(c, generator=draw).to(wide) if affine else None
        self.residual = torch.randn(axes, generator=draw).to(dtype) if residual else None
        self.valid: Tensor | None = None
        if valid == "lengths":
            self.valid = torch.randint(0, length + 1, (n,), generator=draw)
        elif valid == "mask":
            self.valid = torch.rand(n, length, generator=draw) > 0.4
        self.mean = torch.randn(c, generator=draw).double() if given else None
        self.var = torch.rand(c, generator=draw).double() + 0.1 if given else None

    def pad(self, values: Tensor, filled: float) -> Tensor:
        """Fill padded positions."""
        axis = self.plan.layout.index("L")
        mask = valid_positions(self.valid, values.shape[0], values.shape[axis])
        if mask is None:
            return values
        return torch.where(mask.unsqueeze(3 - axis), values, filled)

    def run(self, portable: bool = False) -> dict[str, Tensor]:
        x, grad = self.pad(self.x, torch.nan), self.pad(self.grad, torch.inf)
        residual = None if self.residual is None else self.pad(self.residual, torch.nan)
        tensors = (self.valid, self.weight, self.bias, residual)
        y, mean, var = native.forward(
            x, *tensors, self.mean, self.var, self.plan, portable=portable
        )
        found = native.backward(
            grad, x, mean, var, *tensors, self.plan, self.given, portable=portable
        )
        names = ("grad_x", "grad_residual", "grad_weight", "grad_bias")
        results = {"y": y, "mean": mean, "var": var, **dict(zip(names, found, strict=True))}
        return {name: value for name, value in results.items() if value is not None}

    def expected(self) -> dict[str, Tensor]:
        """The same by the public function's plain path in float64, weights a sample each."""
        plan, n, c = self.plan, self.x.shape[0], self.x.shape[self.plan.channel_axis]
        x = self.x.double().requires_grad_()
        ones, zeros = torch.ones(c), torch.zeros(c)
        weight = (ones if self.weight is None else self.weight).double().repeat(n, 1)
        bias = (zeros if self.bias is None else self.bias).double().repeat(n, 1)
        leaves = {"grad_x": x, "grad_weight": weight, "grad_bias": bias}
        if self.residual is not None:
            leaves["grad_residual"] = self.residual.double()
        for leaf in leaves.values():
            leaf.requires_grad_()
        import seqnorm

        with seqnorm.backend("reference"):
            y = normalize(
                x, plan.over, lengths=self.valid, groups=plan.groups, center=plan.center,
                layout=plan.layout, eps=plan.eps, mean=self.mean, var=self.var,
            )  # fmt: skip
        axis = plan.layout.index("L")
        y = y * weight.unsqueeze(axis) + bias.unsqueeze(axis)
        y = y + leaves.get("grad_residual", torch.zeros(()))
        if plan.activation:
            y = getattr(F, plan.activation)(y)
        y = self.pad(y, 0.0)
        gradients = torch.autograd.grad(
            y, list(leaves.values()), self.grad.double(), allow_unused=True
        )
        filled = (
            torch.zeros_like(leaf) if g is None else g
            for leaf, g in zip(leaves.values(), gradients, strict=True)
        )
        return {"y": y.detach(), **dict(zip(leaves, filled, strict=True))}


def check(case: Case) -> None:
    found, expected = case.run(), case.expected()
    limit = tolerance(case.x.dtype)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].double(), value, rtol=limit, atol=limit * (1 + value.abs().max().item())
            if value.numel() else 0.0, msg=lambda text, name=name: f"{name}: {text}",
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("valid", [None, "lengths", "mask"])
@pytest.mark.parametrize("layout", ["NCL", "NLC"])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("over", "groups"), SETS)
def test_outputs_and_gradients_equal_float64(
    over: str, groups: int, center: bool, layout: str, valid: str | None,
    activation: str | None, dtype: torch.dtype,
) -> None:  # fmt: skip
    plan = Plan(over, layout, groups, center, 1e-3, activation)
    for residual, shape in ((False, (2, 6, 37)), (True, (3, 12, 70))):
        check(Case(shape, plan, dtype=dtype, valid=valid, residual=residual, affine=residual))


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
@pytest.mark.parametrize("over", ["L", "NL"])
@pytest.mark.parametrize("activation", [None, "gelu"])
def test_given_statistics_are_constants(over: str, layout: str, activation: str | None) -> None:
    for valid in (None, "lengths", "mask"):
        plan = Plan(over, layout, 1, True, 1e-5, activation)
        check(Case((3, 70, 41), plan, valid=valid, residual=True, given=True))


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 90)),
    over=st.sampled_from(["L", "C", "CL", "NL"]),
    layout=st.sampled_from(["NCL", "NLC"]),
    valid=st.sampled_from([None, "lengths", "mask"]),
    residual=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_any_shape_equals_float64(
    shape: tuple[int, int, int], over: str, layout: str, valid: str | None, residual: bool,
    seed: int, data: Any,
) -> None:  # fmt: skip
    divisors = [g for g in range(1, shape[1] + 1) if shape[1] % g == 0]
    groups = data.draw(st.sampled_from(divisors)) if "C" in over else 1
    # An eps that sets of one number do not magnify rounding by.
    plan = Plan(over, layout, groups, eps=0.1)
    check(Case(shape, plan, valid=valid, residual=residual, seed=seed))


@pytest.mark.parametrize("shape", [(2, 3, 9001), (1, 700, 5), (3, 130, 130), (70, 2, 3)])
@pytest.mark.parametrize("layout", ["NCL", "NLC"])
@pytest.mark.parametrize("over", ["L", "C", "CL", "NL"])
def test_rows_longer_and_shorter_than_every_block_equal_float64(
    over: str, layout: str, shape: tuple[int, int, int]
) -> None:
    for valid in (None, "lengths"):
        check(Case(shape, Plan(over, layout, eps=0.1), valid=valid))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["NCL", "NLC"])
@pytest.mark.parametrize(("over", "groups"), SETS)
def test_bits_depend_on_neither_instructions_nor_threads_nor_the_run(
    over: str, groups: int, layout: str, dtype: torch.dtype
) -> None:
    plan = Plan(over, layout, groups, activation="gelu")
    case = Case((5, 18, 300), plan, dtype=dtype, valid="lengths", residual=True)
    torch.set_num_threads(1)
    first = case.run()
    for threads, portable in ((1, True), (2, False), (3, True), (7, False), (2, False)):
        torch.set_num_threads(threads)
        for name, value in case.run(portable).items():
            assert torch.equal(value, first[name]), (name, threads, portable)


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
@pytest.mark.parametrize(("over", "groups"), [case for case in SETS if case[0] != "NL"])
def test_a_sequence_has_the_same_bits_alone_in_a_batch_and_padded(
    over: str, groups: int, layout: str
) -> None:
    plan, (n, c, length) = Plan(over, layout, groups), (6, 12, 301)
    axis = layout.index("L")
    torch.set_num_threads(2)
    lengths = torch.tensor([301, 300, 129, 33, 7, 1])
    x = torch.randn(Case((n, c, length), plan).x.shape)
    y, _, _ = native.forward(x, lengths, None, None, None, None, None, plan)
    for i, size in enumerate(lengths.tolist()):
        alone = x[i : i + 1].narrow(axis, 0, size).contiguous()
        one, _, _ = native.forward(alone, None, None, None, None, None, None, plan)
        assert torch.equal(one, y[i : i + 1].narrow(axis, 0, size))


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
@pytest.mark.parametrize(("over", "groups"), SETS)
@pytest.mark.parametrize("valid", [None, "lengths", "mask"])
def test_the_error_does_not_grow_with_the_offset(
    over: str, groups: int, layout: str, valid: str | None
) -> None:
    errors = []
    for offset in (0.0, 1e2, 1e4, 1e5):
        case = Case((8, 6, 400), Plan(over, layout, groups), valid=valid, offset=offset)
        found, exact = case.run(), case.expected()
        errors.append([(found[k].double() - exact[k]).abs().max().item() for k in exact])
    for at_zero, *others in zip(*errors, strict=True):
        assert max(others) <= 4 * at_zero, errors


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
@pytest.mark.parametrize(("over", "groups"), SETS)
def test_a_first_number_far_from_the_mean_does_no_harm(over: str, groups: int, layout: str) -> None:
    """The kernels guess the mean from the first numbers of a set."""
    case = Case((2, 24, 300), Plan(over, layout, groups), affine=False)
    wide = case.x.double() + 1e4
    for axis in (1, 2):
        wide.narrow(axis, 0, 8).sub_(1e4)
    case.x = wide.float()
    found, exact = case.run(), case.expected()
    # The spread is now about 1e3 to 5e3: rounding of the inputs is not what is measured.
    assert (found["y"].double() - exact["y"]).abs().max() < 2e-6
    constant = torch.full((2, 24, 300), 1e5 + 1 / 3)
    y, mean, var = native.forward(constant, None, None, None, None, None, None, case.plan)
    assert y.abs().max() == 0
    assert (mean == constant[0, 0, 0].double()).all()
    assert (var == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_narrow_number_is_read_and_written_exactly(dtype: torch.dtype) -> None:
    """With statistics 0 and 1 the kernel copies: all 65,536 values, infinities included."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x = bits.view(dtype).reshape(1, 1, -1)
    known = (torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    for portable in (False, True):
        y, _, _ = native.forward(
            x, None, None, None, None, *known, Plan("NL", "NCL", eps=0.0), portable=portable
        )
        torch.testing.assert_close(y, x + 0, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_results_are_rounded_to_the_nearest_narrow_number_ties_to_even(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    exponents = torch.randint(-30, 18, (1, 1, 40_000), generator=draw).double()
    values = torch.randn(1, 1, 40_000, generator=draw).double() * 2**exponents
    x = values.to(dtype)
    weight = torch.tensor([1 + 2**-12], dtype=torch.float32)
    known = (torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    for portable in (False, True):
        y, _, _ = native.forward(
            x, None, weight, None, None, *known, Plan("NL", "NCL", eps=0.0), portable=portable
        )
        assert torch.equal(y, (x.float() * weight).to(dtype))


def test_gelu_is_within_a_millionth_of_float64() -> None:
    x = torch.linspace(-12, 12, 200_001).reshape(1, 1, -1)
    known = (torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    plan = Plan("NL", "NCL", eps=0.0, activation="gelu")
    y, mean, var = native.forward(x, None, None, None, None, *known, plan)
    exact = x.double().requires_grad_()
    F.gelu(exact).sum().backward()
    assert (y.double() - F.gelu(exact)).abs().max() < 2e-6
    grad_x, *_ = native.backward(
        torch.ones_like(x), x, mean, var, None, None, None, None, plan, True
    )
    assert exact.grad is not None
    assert (grad_x.double() - exact.grad).abs().max() < 2e-6


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("layout", ["NCL", "NLC"])
@pytest.mark.parametrize(("over", "groups"), SETS)
def test_what_is_not_finite_spoils_its_own_set_and_no_other(
    over: str, groups: int, layout: str, bad: float
) -> None:
    case = Case((3, 6, 50), Plan(over, layout, groups), affine=False)
    clean = case.run()["y"]
    case.x[1, 2, 3] = bad
    y = case.run()["y"]
    reached = y.isnan()
    expected = normalize(
        case.x.double(), over, groups=groups, layout=layout
    ).isnan()  # fmt: skip
    assert torch.equal(reached, expected)
    assert torch.equal(y[~reached], clean[~reached])


@pytest.mark.parametrize("wrong", [[-5, 3], [3, 10**12], [21, 0]])
def test_wrong_lengths_are_refused_by_the_kernels_too(wrong: list[int]) -> None:
    """Where a graph is traced nobody has looked at them before."""
    x, lengths = torch.randn(2, 3, 20), torch.tensor(wrong)
    row = int(not 0 <= wrong[1] <= 20)
    with pytest.raises(ValueError, match=rf"lengths\[{row}\] = {wrong[row]} is outside 0\.\.20"):
        native.forward(x, lengths, None, None, None, None, None, Plan("L", "NCL"))


def test_sums_over_the_samples_are_those_of_the_samples_gradients() -> None:
    for over, shape in (("CL", (5, 6, 37)), ("C", (5, 6, 37)), ("NL", (5, 6, 37))):
        plan = Plan(over, "NCL", 2 if over == "CL" else 1)
        x, grad, weight = torch.randn(shape), torch.randn(shape), torch.randn(6)
        _, mean, var = native.forward(x, None, weight, None, None, None, None, plan)
        given = (grad, x, mean, var, None, weight, None, None, plan, False)
        each, summed = native.backward(*given), native.backward(*given, summed=True)
        assert torch.equal(each[0], summed[0])
        for a, b in zip(each[2:], summed[2:], strict=True):
            assert a is not None
            assert b is not None
            assert torch.equal(a.double().sum(0).float(), b) or torch.allclose(
                a.double().sum(0), b.double(), rtol=1e-7, atol=0
            )


def _child(queue: Any) -> None:
    torch.set_num_threads(1)
    x = torch.arange(24.0).reshape(1, 2, 12)
    y, _, _ = native.forward(x, None, None, None, None, None, None, Plan("L", "NCL"))
    queue.put(y.sum().item())


def test_forked_workers_can_use_the_kernels() -> None:
    torch.set_num_threads(2)
    native.forward(torch.randn(64, 64, 100), None, None, None, None, None, None, Plan("L", "NCL"))
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert abs(queue.get()) < 1e-5


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_where_there_is_a_compiler_the_kernels_are_there() -> None:
    assert native.MISSING is None
    assert native.instructions() in ("avx2", "portable")
