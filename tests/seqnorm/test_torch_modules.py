"""Our layers in the place of their twins in the cases that torch ships for its own modules.

torch's checks of modules (its test_modules.py) are not in the wheel, the cases that they run on
are: constructor arguments, inputs and independent reference functions. Each check below is one of
those, on ours. Cases of images (four axes and more) and LayerNorm or RMSNorm over several axes do
not apply: our layers are for sequences, (N, C, L) or (N, L, C), and share statistics over
channels, positions or both. SyncBatchNorm has no case of its own there.
"""

import functools
import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.common_modules import module_db

from seqnorm.layers import BatchNorm1d, GroupNorm, InstanceNorm1d, LayerNorm, RMSNorm

TWINS: dict[Any, Any] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.GroupNorm: GroupNorm,
    nn.InstanceNorm1d: InstanceNorm1d,
    # torch's home of these two is (N, L, C).
    nn.LayerNorm: functools.partial(LayerNorm, layout="NLC"),
    nn.RMSNorm: functools.partial(RMSNorm, layout="NLC"),
}


def cases() -> Iterator[Any]:
    for info in module_db:
        if info.module_cls not in TWINS:
            continue
        for training in (True, False):
            inputs = info.module_inputs_func(
                info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
            )
            for number, case in enumerate(inputs):
                name = f"{info.module_cls.__name__}-{training}-{number}-{case.desc}"
                yield pytest.param(info.module_cls, training, case, id=name)


def applies(case: Any) -> bool:
    sizes = case.constructor_input.args[0]
    return case.forward_input.args[0].dim() <= 3 and (isinstance(sizes, int) or len(sizes) == 1)


ALL = list(cases())
APPLICABLE = [param for param in ALL if applies(param.values[2])]
EACH = pytest.mark.parametrize(("twin", "training", "case"), APPLICABLE)


def build(cls: Any, case: Any, training: bool, **kw: Any) -> nn.Module:
    made = cls(*case.constructor_input.args, **case.constructor_input.kwargs, **kw)
    module: nn.Module = made.to(kw.get("dtype", torch.float64)).train(training)
    draw = torch.Generator().manual_seed(0)
    for p in module.parameters():
        p.data.copy_(torch.rand(p.shape, generator=draw))
    return module


def pair(twin: Any, case: Any, training: bool) -> tuple[nn.Module, nn.Module]:
    return build(TWINS[twin], case, training), build(twin, case, training)


def call(module: nn.Module, case: Any, x: Tensor | None = None) -> Tensor:
    x = case.forward_input.args[0] if x is None else x
    y: Tensor = module(x, *case.forward_input.args[1:], **case.forward_input.kwargs)
    return y


def test_the_cases_that_do_not_apply_are_images_and_several_axes() -> None:
    left_out = [param for param in ALL if not applies(param.values[2])]
    assert len(APPLICABLE) >= 50
    names = {str(param.id).split("-")[0] for param in APPLICABLE}
    assert names == {cls.__name__ for cls in TWINS}
    for param in left_out:
        cls, training, case = param.values
        with pytest.raises(ValueError, match=r"normalized_shape must be|expected an input of axes"):
            call(build(TWINS[cls], case, training), case)


@EACH
def test_forward_equals_the_twin_and_its_reference(twin: Any, training: bool, case: Any) -> None:
    ours, theirs = pair(twin, case, training)
    y = call(ours, case)
    torch.testing.assert_close(y, call(theirs, case))
    assert y.dtype == torch.float64
    for name, value in theirs.state_dict().items():
        # Ours does not count a batch that said nothing: it would weigh in a cumulative average.
        if case.desc != "zero_batch" or name != "num_batches_tracked":
            torch.testing.assert_close(ours.state_dict()[name], value)
    if case.reference_fn is not None:
        x = case.forward_input.args[0]
        # The reference of RMSNorm computes in float32 whatever it is given.
        wanted = case.reference_fn(build(twin, case, training), x)
        torch.testing.assert_close(y.float(), wanted.float())


@EACH
def test_gradients_equal_the_twins(twin: Any, training: bool, case: Any) -> None:
    found = []
    for module in pair(twin, case, training):
        x = case.forward_input.args[0].detach().clone().requires_grad_()
        leaves = [x, *module.parameters()]
        first = torch.autograd.grad(call(module, case, x).pow(3).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), [x], allow_unused=True)
        found.append([*first, *(torch.zeros_like(x) if g is None else g for g in second)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@EACH
def test_gradcheck_and_gradgradcheck_pass(twin: Any, training: bool, case: Any) -> None:
    ours, _ = pair(twin, case, training)
    x = case.forward_input.args[0].detach().clone().requires_grad_()
    names, values = zip(*ours.named_parameters(), strict=True) if list(ours.parameters()) else (
        (), ()
    )  # fmt: skip
    buffers = {name: b.clone() for name, b in ours.named_buffers()}

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        state = {**dict(zip(names, parameters, strict=True))}
        fresh = {name: b.clone() for name, b in buffers.items()}
        y: Tensor = torch.func.functional_call(ours, (state, fresh), (x,))
        return y

    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, *values), fast_mode=True)


@EACH
def test_non_contiguous_inputs_and_gradients_change_nothing(
    twin: Any, training: bool, case: Any
) -> None:
    ours, _ = pair(twin, case, training)
    plain, _ = pair(twin, case, training)
    x = case.forward_input.args[0].detach()
    spread = torch.repeat_interleave(x, 2, dim=-1)[..., ::2].requires_grad_()
    x = x.clone().requires_grad_()
    a, b = call(ours, case, spread), call(plain, case, x)
    torch.testing.assert_close(a, b)
    slopes = torch.randn_like(b)
    a.backward(torch.repeat_interleave(slopes, 2, dim=-1)[..., ::2])
    b.backward(slopes)
    torch.testing.assert_close(spread.grad, x.grad)
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@EACH
def test_factory_arguments_place_parameters_and_buffers(
    twin: Any, training: bool, case: Any
) -> None:
    made = [
        cls(*case.constructor_input.args, **case.constructor_input.kwargs, device="meta",
            dtype=torch.float16)
        for cls in (TWINS[twin], twin)
    ]  # fmt: skip
    ours, theirs = (
        {name: (t.dtype, t.device.type, t.shape) for name, t in module.state_dict().items()}
        for module in made
    )
    assert ours == theirs
    made[0].to_empty(device="cpu")
    made[0].reset_parameters()


@EACH
def test_saving_and_pickling_keep_everything(twin: Any, training: bool, case: Any) -> None:
    ours, theirs = pair(twin, case, training)
    call(ours, case)
    copies = [pickle.loads(pickle.dumps(ours))]
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    loaded = build(TWINS[twin], case, training)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    copies.append(loaded)
    expected = call(ours, case)
    for other in copies:
        torch.testing.assert_close(call(other, case), expected, rtol=0, atol=0)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@EACH
def test_the_representation_names_what_the_twin_names(twin: Any, training: bool, case: Any) -> None:
    ours, theirs = pair(twin, case, training)
    shown = theirs.extra_repr()
    assert ours.extra_repr().startswith(shown)


@EACH
def test_narrow_types_and_float32_stay_what_they_are(twin: Any, training: bool, case: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        ours = build(TWINS[twin], case, training, dtype=dtype)
        y = call(ours, case, case.forward_input.args[0].detach().to(dtype))
        assert y.dtype == dtype
        assert y.isfinite().all()
