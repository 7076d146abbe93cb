"""The Triton kernels against a plain formula in float64.

Triton decides when it is first imported whether to compile or to interpret. So that it does not
matter who imports it first, the tests of kernels run in a process of their own, with the
interpreter; in this one they run where there is a CUDA device.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seqnorm.backends import triton as backend
from seqnorm.backends.plan import Plan
from seqnorm.backends.triton import blocks, fold, job, launch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


def of_kernels(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that launches kernels."""
    if INTERPRETED:
        return test
    missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    return pytest.mark.gpu(missing(test))


# over, groups, center
CASES = [
    pytest.param("L", 1, True, id="instance"),
    pytest.param("C", 1, True, id="layer"),
    pytest.param("C", 2, True, id="layer-grouped"),
    pytest.param("C", 1, False, id="rms"),
    pytest.param("CL", 1, True, id="layer-seq"),
    pytest.param("CL", 3, True, id="group"),
    pytest.param("CL", 2, False, id="rms-grouped"),
    pytest.param("NL", 1, True, id="batch"),
]
NORMS = pytest.mark.parametrize(("over", "groups", "center"), CASES)
LAYOUTS = pytest.mark.parametrize("layout", ["NCL", "NLC"])
VALID = pytest.mark.parametrize("valid", [None, "lengths", "mask"])
TILES = pytest.mark.parametrize("tiles", ["whole", "cut"])
# Of the sum of absolute and relative error; half a unit in the last place, or one where the
# interpreter cuts instead of rounding.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2**-10,
    torch.bfloat16: 2**-7,
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def use_tiles(tiles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small tiles; sets of numbers lie in one of them where they can, or are always cut."""
    monkeypatch.setattr(blocks, "NUMBERS", 128)
    if tiles == "cut":
        monkeypatch.setattr(blocks, "NUMBERS", 256)
        monkeypatch.setattr(launch, "whole_sets", lambda *args, **kwargs: None)


@dataclass(frozen=True)
class Problem:
    """Everything that goes into a normalization and its backward pass."""

    plan: Plan
    x: Tensor
    grad: Tensor
    valid: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    residual: Tensor | None = None
    known: tuple[Tensor, Tensor] | None = None

    @property
    def mask(self) -> Tensor:
        """True at valid positions, of the shape of ``x``."""
        axis = self.plan.layout.index("L")
        samples, length = self.x.shape[0], self.x.shape[axis]
        mask = torch.ones(samples, length, dtype=torch.bool, device=self.x.device)
        if self.valid is not None:
            mask = self.valid
            if mask.dtype != torch.bool:
                mask = torch.arange(length, device=self.x.device) < mask[:, None]
        return mask.unsqueeze(3 - axis).expand(self.x.shape)

    def poisoned(self) -> "Problem":
        """With NaN at padded positions: whatever looks there shows it."""
        pad = ~self.mask
        x, grad = (t.masked_fill(pad, torch.nan) for t in (self.x, self.grad))
        residual = None if self.residual is None else self.residual.masked_fill(pad, torch.nan)
        return replace(self, x=x, grad=grad, residual=residual)

    def solve(self) -> dict[str, Tensor]:
        """By the backend."""
        mean, var = self.known or (None, None)
        affine = (self.weight, self.bias, self.residual)
        y, mean, var = backend.forward(self.x, self.valid, *affine, mean, var, self.plan)
        gx, gresidual, gweight, gbias = backend.backward(
            self.grad, self.x, mean, var, self.valid, *affine, self.plan, self.known is not None
        )
        found = {"y": y, "mean": mean, "var": var, "gx": gx, "gweight": gweight, "gbias": gbias}
        return found if gresidual is None else found | {"gresidual": gresidual}

    def expected(self) -> dict[str, Tensor]:
        """By the definition, in float64; per-sample gradients from parameters per sample."""
        plan, axis = self.plan, self.plan.channel_axis
        samples, channels = self.x.shape[0], self.x.shape[axis]
        shape = (samples, channels, 1) if axis == 1 else (samples, 1, channels)
        x = self.x.double().requires_grad_()
        weight = self._per_sample(self.weight, 1.0).requires_grad_()
        bias = self._per_sample(self.bias, 0.0).requires_grad_()
        residual = None if self.residual is None else self.residual.double().requires_grad_()
        mean, var = self._statistics(x)
        y = plan.join((plan.split(x) - mean) / (var + plan.eps).sqrt())
        y = y * weight.view(shape) + bias.view(shape)
        y = y if residual is None else y + residual
        y = {None: lambda t: t, "relu": F.relu, "gelu": F.gelu}[plan.activation](y)
        y = torch.where(self.mask, y, 0)
        wanted = {"gx": x, "gweight": weight, "gbias": bias}
        wanted |= {} if residual is None else {"gresidual": residual}
        grads = torch.autograd.grad(y, list(wanted.values()), self.grad.double())
        mean, var = self.known or (plan.natural(mean).detach(), plan.natural(var).detach())
        return {"y": y.detach(), "mean": mean, "var": var} | dict(zip(wanted, grads, strict=True))

    def _per_sample(self, value: Tensor | None, default: float) -> Tensor:
        channels = self.x.shape[self.plan.channel_axis]
        if value is None:
            value = torch.full((channels,), default, device=self.x.device)
        return value.double().expand(self.x.shape[0], channels).clone()

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        plan = self.plan
        if self.known is not None:
            mean, var = self.known
            return plan.per_channel(mean), plan.per_channel(var)
        mask, x = plan.split(self.mask), plan.split(x)
        count = mask.sum(plan.dims, keepdim=True).clamp_min(1)
        mean = torch.where(mask, x, 0).sum(plan.dims, keepdim=True) / count
        mean = mean if plan.center else torch.zeros_like(mean)
        return mean, torch.where(mask, x - mean, 0).square().sum(plan.dims, keepdim=True) / count


def problem(
    over: str,
    groups: int = 1,
    center: bool = True,
    layout: str = "NCL",
    shape: tuple[int, int, int] = (2, 6, 13),
    valid: str | None = None,
    dtype: torch.dtype = torch.float32,
    activation: str | None = None,
    given: str = "weight bias",
    offset: float = 0.0,
    eps: float = 1e-3,
) -> Problem:
    """Random numbers of a shape (N, C, L); ``given`` names what is optional."""
    samples, channels, length = shape
    size = shape if layout == "NCL" else (samples, length, channels)
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def numbers(*size: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(size, dtype=torch.float64).to(DEVICE, dtype)

    lengths = torch.randint(0, length + 1, (samples,), device=DEVICE)
    mask = torch.rand(samples, length, device=DEVICE) < 0.6
    known = (numbers(channels, dtype=torch.float64), numbers(channels, dtype=torch.float64).exp())
    return Problem(
        Plan(over, layout, groups, center, eps, activation),
        ((numbers(*size, dtype=torch.float64) * 2 + 1).to(wide) + offset).to(dtype),
        numbers(*size),
        {None: None, "lengths": lengths, "mask": mask}[valid],
        numbers(channels, dtype=wide) if "weight" in given else None,
        numbers(channels, dtype=wide) if "bias" in given else None,
        numbers(*size) if "residual" in given else None,
        known if "known" in given else None,
    )


def check(case: Problem) -> None:
    """Compare all results, from input that holds NaN at padded positions."""
    got, expected = case.poisoned().solve(), case.expected()
    assert got.keys() == expected.keys()
    narrow = {"y": case.x.dtype, "gx": case.x.dtype, "gresidual": case.x.dtype}
    wide = torch.float64 if case.x.dtype == torch.float64 else torch.float32
    for name, value in got.items():
        assert value.dtype == narrow.get(name, torch.float64 if name in "mean var" else wide)
        assert value.shape == expected[name].shape, name
        assert value.isfinite().all(), name
        error = (value.double() - expected[name]).abs() / (1 + expected[name].abs())
        limit = TOLERANCE[case.x.dtype if name in narrow else wide]
        assert error.numel() == 0 or error.max().item() <= limit, name
        if name in narrow:
            assert (value[~case.mask] == 0).all(), name


OUTSIDE = pytest.mark.skipif(INTERPRETED, reason="this is the process with the interpreter")


@OUTSIDE
@pytest.mark.slow
def test_all_tests_of_kernels_pass_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", __file__],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@of_kernels
@NORMS
@LAYOUTS
@pytest.mark.parametrize(
    ("tiles", "valid"),
    [("whole", None), ("whole", "lengths"), ("whole", "mask"), ("cut", None), ("cut", "lengths")],
)
def test_results_and_gradients_are_those_of_the_definition(
    over: str, groups: int, center: bool, layout: str, tiles: str, valid: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    use_tiles(tiles, monkeypatch)
    kw: dict[str, Any] = {"layout": layout, "valid": valid, "dtype": torch.float64}
    check(problem(over, groups, center, **kw, activation="gelu", given="weight bias residual"))


@of_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@NORMS
@LAYOUTS
def test_every_type_is_computed_in_float32_and_kept(
    over: str, groups: int, center: bool, layout: str, dtype: torch.dtype
) -> None:
    check(problem(over, groups, center, layout, (2, 6, 40), "lengths", dtype))


@of_kernels
@pytest.mark.parametrize("seed", range(40))
def test_any_shape_and_any_choice_of_options(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(seed)
    choose = random.Random(seed)
    over, center = choose.choice(["L", "C", "CL", "NL"]), choose.random() < 0.7
    groups = choose.choice([1, 2, 3]) if "C" in over else 1
    channels = groups * choose.choice([1, 2, 3, 4, 11])
    samples, length = choose.choice([1, 2, 3]), choose.choice([1, 2, 7, 13, 33, 64, 80])
    use_tiles(choose.choice(["whole", "cut"]), monkeypatch)
    optional = [name for name in ("weight", "bias", "residual") if choose.random() < 0.5]
    check(
        problem(
            over, groups, center, choose.choice(["NCL", "NLC"]), (samples, channels, length),
            choose.choice([None, "lengths", "mask"]), choose.choice(list(TOLERANCE)),
            choose.choice([None, "relu", "gelu"]), " ".join(optional),
        )
    )  # fmt: skip


@of_kernels
@NORMS
@LAYOUTS
@TILES
def test_the_error_does_not_grow_with_the_offset(
    over: str, groups: int, center: bool, layout: str, tiles: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    use_tiles(tiles, monkeypatch)
    # Without centering the gradient of the input is a difference of equals at a large offset.
    errors: dict[str, list[float]] = {name: [] for name in ("y", "gweight", "gx")[: 2 + center]}
    for offset in (0.0, 1e2, 1e4, 1e5):
        torch.manual_seed(0)
        case = problem(over, groups, center, layout, (1, 6, 40), offset=offset)
        got, expected = case.solve(), case.expected()
        for name, found in errors.items():
            error = (got[name].double() - expected[name]).abs().max() / expected[name].abs().max()
            found.append(error.item())
    for name, found in errors.items():
        assert max(found) <= max(4 * found[0], 2**-21), (name, found)


@of_kernels
@NORMS
@TILES
def test_float16_of_a_thousand_gives_finite_statistics(
    over: str, groups: int, center: bool, tiles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiles(tiles, monkeypatch)
    check(problem(over, groups, center, shape=(1, 6, 40), dtype=torch.float16, offset=1e3))


@of_kernels
@pytest.mark.parametrize(("over", "groups", "center"), [c for c in CASES if "NL" not in c.values])
@LAYOUTS
@TILES
def test_a_sample_gets_the_same_bits_in_any_batch(
    over: str, groups: int, center: bool, layout: str, tiles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiles(tiles, monkeypatch)
    together = problem(over, groups, center, layout, (3, 6, 13), "mask", given="weight residual")
    found = together.solve()
    # Views: what is inside a batch does not start where memory is aligned.
    names = ("x", "grad", "residual", "valid")
    alone = replace(together, **{name: getattr(together, name)[1:2] for name in names}).solve()
    for name, value in alone.items():
        assert torch.equal(value[0], found[name][1]), name


@of_kernels
@NORMS
@LAYOUTS
def test_two_runs_give_the_same_bits(over: str, groups: int, center: bool, layout: str) -> None:
    case = problem(over, groups, center, layout, (3, 6, 70), "lengths")
    first, second = case.solve(), case.solve()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@of_kernels
@NORMS
@LAYOUTS
@pytest.mark.parametrize("shape", [(0, 6, 5), (2, 6, 0), (1, 6, 1)])
def test_empty_and_single_position_inputs(
    over: str, groups: int, center: bool, layout: str, shape: tuple[int, int, int]
) -> None:
    check(problem(over, groups, center, layout, shape, given="weight bias residual"))


@of_kernels
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@NORMS
@LAYOUTS
def test_sets_without_a_valid_position_have_zero_moments(
    over: str, groups: int, center: bool, layout: str
) -> None:
    case = problem(over, groups, center, layout, eps=0.0)
    found = replace(case, valid=torch.zeros(2, dtype=torch.int64, device=DEVICE)).solve()
    for name, value in found.items():
        assert (value == 0).all(), name


@of_kernels
@pytest.mark.parametrize("over", ["L", "NL"])
@LAYOUTS
@VALID
def test_given_statistics_are_used_returned_and_constant(
    over: str, layout: str, valid: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiles("cut", monkeypatch)
    check(problem(over, layout=layout, valid=valid, activation="gelu", given="known bias residual"))


@of_kernels
@pytest.mark.parametrize("over", ["L", "C", "NL"])
def test_nan_among_valid_numbers_is_not_hidden(over: str) -> None:
    case = problem(over, activation="relu", given="")
    case.x[1, 2, 3] = torch.nan
    found = case.solve()
    for name in ("y", "mean", "var", "gx"):
        assert found[name].isnan().any(), name


@of_kernels
def test_many_parts_are_brought_together_in_several_launches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_tiles("cut", monkeypatch)
    monkeypatch.setattr(fold, "FOLD", 8)
    kw: dict[str, Any] = {"valid": "lengths", "dtype": torch.float64}
    check(problem("NL", shape=(3, 2, 150), **kw))
    check(problem("NL", shape=(3, 2, 150), layout="NLC", **kw))
    check(problem("CL", shape=(1, 3, 150), **kw))


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("over", ["L", "C", "CL", "NL"])
def test_more_numbers_than_32_bits_count(over: str) -> None:
    need = 2**31 + 2**16
    if torch.cuda.get_device_properties(0).total_memory < 16 * need:
        pytest.skip("needs 32 GiB of GPU memory")
    x = torch.randn(1, 8, need // 8, dtype=torch.bfloat16, device="cuda")
    plan = Plan(over, "NCL")
    y, _, _ = backend.forward(x, None, None, None, None, None, None, plan)
    if over == "C":
        tail = x[..., -1000:].contiguous()
        expected, _, _ = backend.forward(tail, None, None, None, None, None, None, plan)
    else:
        row = x[:, -1].float() if over != "CL" else x.float()
        expected = ((x[:, -1:, -1000:] - row.mean()) / row.std()).bfloat16()
    torch.testing.assert_close(y[:, -1:, -1000:], expected[:, -1:], rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("ncl", [True, False])
def test_tiles_depend_on_channels_length_and_type_and_hold_what_they_should(
    ncl: bool, itemsize: int, backward: bool
) -> None:
    for channels in (1, 3, 4, 64, 100, 768, 5000, 100_000):
        for length in (1, 7, 200, 1000, 20_000, 1_000_000):
            shape = blocks.Shape(1, 1, channels, length, ncl, itemsize)
            many = replace(shape, samples=1000)
            for over in ("L", "C", "CL", "NL"):
                part = blocks.part_of_sets(over, shape, backward)
                whole = blocks.whole_sets(over, shape, backward)
                assert part == blocks.part_of_sets(over, many, backward)
                assert whole == blocks.whole_sets(over, many, backward)
                if whole is not None:
                    assert whole.positions >= length or over == "C"
                    assert whole.channels >= channels or over == "L"
                for block in filter(None, (part, whole)):
                    numbers = block.channels * block.positions
                    assert numbers & (numbers - 1) == 0
                    assert 0 < numbers <= 16384
                    assert 1 <= block.warps <= 16


def test_the_vector_is_what_divides_the_contiguous_axis() -> None:
    expected = {(1000, 4): 4, (1000, 2): 8, (1004, 2): 4, (998, 4): 2, (33, 4): 1, (48, 8): 2}
    for (length, itemsize), vector in expected.items():
        assert blocks.Shape(1, 1, 5, length, True, itemsize).vector == vector
        assert blocks.Shape(1, 1, length, 5, False, itemsize).vector == vector


def test_what_kernels_get_is_contiguous_and_starts_at_a_multiple_of_16_bytes() -> None:
    batch = torch.arange(45.0).view(3, 3, 5)
    for view in (batch, batch[1:], batch[1:2], batch.transpose(1, 2), batch[0].expand(2, 3, 5)):
        got = job.aligned(view)
        assert got is not None
        assert got.is_contiguous()
        assert got.data_ptr() % 16 == 0
        assert torch.equal(got, view)
    # Nothing is copied without need.
    assert job.aligned(batch) is batch


def python(code: str, **environment: str) -> str:
    """Output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@OUTSIDE
def test_triton_is_imported_when_a_kernel_is_used_and_not_before() -> None:
    code = """
import sys, seqnorm
from seqnorm.backends import triton
triton.available()
print("triton" in sys.modules)
"""
    assert python(code) == "False"


@OUTSIDE
def test_without_triton_the_backend_is_not_available_and_can_still_be_imported() -> None:
    code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "triton" else find(name)
sys.modules["triton"] = None
from seqnorm.backends import triton
import seqnorm.backends.triton.launch
print(triton.available())
"""
    assert python(code, TRITON_INTERPRET="1") == "False"


@OUTSIDE
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_is_available_only_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    code = "from seqnorm.backends import triton; print(triton.available())"
    assert python(code, TRITON_INTERPRET="0") == "False"
    assert python(code, TRITON_INTERPRET="1") == "True"
