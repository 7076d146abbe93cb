"""The optimizer of a client has the bits of torch's."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from data_tools.errors import InputError
from federated.local_optimizer import LocalOptimizer


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.Conv1d(6, 1, 1))


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "momentum"), [("adamw", 0.0), ("sgd", 0.0), ("sgd", 0.9)])
def test_every_step_has_the_bits_of_torch(name, momentum, decay):
    ours, theirs = model(), model()
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "adamw":
        reference = torch.optim.AdamW(groups, lr=0.01)
    else:
        reference = torch.optim.SGD(groups, lr=0.01, momentum=momentum)
    optimizer = LocalOptimizer(
        [*ours.parameters()], name, learning_rate=0.01, weight_decay=decay, momentum=momentum
    )
    for step in range(6):
        x = torch.randn(5, 4, 12)
        for net, one in ((ours, optimizer), (theirs, reference)):
            one.zero_grad()
            net(x).square().mean().backward()
            if step == 2:
                net[0].bias.grad = None  # stays as it is
            one.step()
        assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_training_does_not_import_the_compiler_of_torch():
    code = (
        "import sys, torch; from federated.local_optimizer import LocalOptimizer as O;"
        "w = torch.nn.Parameter(torch.ones(3, 2));"
        "[(w.sum().backward(), O([w], n, learning_rate=0.1).step()) for n in ('adamw', 'sgd')];"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InputError, match="optimizer must be 'adamw' or 'sgd', got 'lion'"):
        LocalOptimizer([], "lion", learning_rate=0.1)
