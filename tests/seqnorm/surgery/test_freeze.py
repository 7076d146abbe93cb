import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from seqnorm import BatchNorm1d, GhostBatchNorm1d, GroupNorm, freeze, recalibrate, unfreeze

C, L = 4, 9
KINDS = [nn.BatchNorm1d, BatchNorm1d, GhostBatchNorm1d]
EACH = pytest.mark.parametrize("kind", KINDS, ids=["torch", "ours", "ghost"])


def model(kind: Any) -> nn.Sequential:
    torch.manual_seed(0)
    norm = kind(C, ghost_size=2) if kind is GhostBatchNorm1d else kind(C)
    net = nn.Sequential(nn.Conv1d(C, C, 3), norm, nn.ReLU(), nn.Dropout())
    recalibrate(net, [torch.randn(8, C, L) * 3 + 1], inplace=True)
    return net


@EACH
def test_a_frozen_norm_keeps_its_statistics_in_training(kind: Any) -> None:
    net, x = model(kind), torch.randn(2, C, L)
    state = copy.deepcopy(net.state_dict())
    expected = net.eval()[:3](x)
    assert freeze(net) is net
    for _ in range(2):
        net.train()
        net[1].train(True)
        torch.testing.assert_close(net[:3](x), expected)
    assert net.training
    assert net[3].training
    assert list(net.state_dict()) == list(state)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    net[:3](x).sum().backward()
    assert net[1].weight.grad is not None


@EACH
def test_a_norm_is_frozen_from_the_start_without_a_call_of_train(kind: Any) -> None:
    net, x = model(kind).train(), torch.randn(2, C, L)
    expected = copy.deepcopy(net).eval()[:3](x)
    torch.testing.assert_close(freeze(net)[:3](x), expected)


@EACH
def test_copies_and_pickles_stay_frozen(kind: Any) -> None:
    net, x = freeze(model(kind)).train(), torch.randn(2, C, L)
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), loaded):
        twin.train()
        twin[:3](x)
        for name, value in net.state_dict().items():
            assert torch.equal(twin.state_dict()[name], value)
        unfreeze(twin)[:3](x)
        assert not torch.equal(twin[1].running_mean, net[1].running_mean)
    plain = model(kind)
    plain.load_state_dict(net.state_dict())
    net.load_state_dict(plain.state_dict())


@EACH
def test_unfreezing_undoes_it(kind: Any) -> None:
    net, x = model(kind), torch.randn(4, C, L)
    twin = copy.deepcopy(net).train()
    cls, text = type(net[1]), repr(net)
    net[1].bias.requires_grad_(False)
    freeze(freeze(net, affine=True), affine=True)
    assert not any(p.requires_grad for p in net[1].parameters())
    assert net[0].weight.requires_grad
    assert isinstance(net[1], cls)
    unfreeze(net)
    assert type(net[1]) is cls
    assert repr(net) == text
    assert (net[1].weight.requires_grad, net[1].bias.requires_grad) == (True, False)
    assert net[1].training is net.training
    torch.testing.assert_close(net.train()[:3](x), twin[:3](x))
    assert torch.equal(net[1].running_var, twin[1].running_var)
    assert vars(net[1]).keys() == vars(twin[1]).keys()
    unfreeze(net)


def test_an_optimizer_keeps_its_hold_on_the_parameters() -> None:
    net = model(nn.BatchNorm1d)
    before = list(net.parameters())
    freeze(net, affine=True)
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))
    unfreeze(net)
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))


def test_unfrozen_layers_take_the_mode_of_what_they_are_in() -> None:
    net = freeze(model(nn.BatchNorm1d)).eval()
    assert not unfreeze(net)[1].training
    alone = freeze(nn.BatchNorm1d(C))
    assert not alone.train().training
    assert unfreeze(alone).training


def test_norms_for_images_are_frozen_too() -> None:
    net = freeze(nn.Sequential(nn.BatchNorm2d(C), nn.Flatten(2), nn.BatchNorm1d(C)))
    x = torch.randn(3, C, 5, 5)
    torch.testing.assert_close(net.train()(x), x.flatten(2), rtol=1e-4, atol=1e-4)
    assert type(unfreeze(net)[0]) is nn.BatchNorm2d


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (nn.BatchNorm1d(C, track_running_stats=False), "^1: BatchNorm1d has no running statistics"),
        (BatchNorm1d(C, track_running_stats=False), "^1: BatchNorm1d has no running statistics"),
        (nn.SyncBatchNorm(C), "^1: SyncBatchNorm cannot be frozen; make it a BatchNorm1d first"),
    ],
    ids=["torch", "ours", "sync"],
)
def test_what_cannot_be_frozen_is_named_and_nothing_is_changed(norm: Any, message: str) -> None:
    net = nn.Sequential(nn.BatchNorm1d(C), norm)
    with pytest.raises(ValueError, match=message):
        freeze(net)
    assert type(net[0]) is nn.BatchNorm1d


def test_a_model_without_batch_norm_stays_as_it_is() -> None:
    net = GroupNorm(2, C)
    assert freeze(net, affine=True) is net
    assert net.weight is not None
    assert net.weight.requires_grad
