from typing import Any

import pytest
import torch
from torch import Tensor

from seqnorm.models import ReverseComplementAverage, build_model

SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"channels": 8, "kernel_size": 5, "blocks": 2, "pool": 2},
    "residual": {"channels": 8, "kernel_size": 5, "blocks": 2},
    "transformer": {"width": 8, "heads": 2, "kernel_size": 5, "pool": 3, "depth": 1},
}
EACH = pytest.mark.parametrize(
    ("name", "norm", "pooling"),
    [
        ("cnn", "background@first", "attention"),
        ("residual", "instance@input", "mean"),
        ("transformer", "group:8@head", "max"),
    ],
)


def small(name: str, norm: str, pooling: str) -> ReverseComplementAverage:
    return build_model(name, norm, 1, **SMALL[name], pooling=pooling, dropout=0.0)


def batch(lengths: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    bases = torch.randint(0, 4, (len(lengths), int(lengths.max())), generator=generator)
    return torch.eye(4)[bases].transpose(1, 2)


@EACH
def test_compiled_whole_a_model_gives_the_same_values_and_gradients(
    name: str, norm: str, pooling: str
) -> None:
    model = small(name, norm, pooling).train()
    lengths = torch.tensor([40, 13, 27])
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    gradients = []
    for run in (model, compiled):
        y = run(batch(lengths), lengths)
        gradients.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@EACH
def test_exported_a_model_gives_the_same_for_other_sequences(
    name: str, norm: str, pooling: str
) -> None:
    model = small(name, norm, pooling).eval()
    # Torch's max_pool1d fixes the width of the windows.
    width = 57 if name == "residual" else 40
    free: dict[int, Any] = {0: torch.export.Dim("n", min=2, max=64)}
    if name == "residual":
        free[2] = torch.export.Dim("l", min=24, max=500)
    first = torch.tensor([40, 13, 27])
    exported = torch.export.export(
        model, (batch(first), first), dynamic_shapes=(free, {0: free[0]})
    )
    lengths = torch.tensor([30, width, 24, 25])
    x = batch(lengths)
    torch.testing.assert_close(exported.module()(x, lengths), model(x, lengths))
