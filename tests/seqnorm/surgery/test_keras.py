from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seqnorm import BatchNorm1d, GroupNorm, from_keras, to_keras


def keras_evaluation(x: Any, gamma: Any, beta: Any, mean: Any, var: Any, epsilon: float) -> Any:
    """What Keras computes, channels last."""
    return gamma * (x - mean) / np.sqrt(var + epsilon) + beta


def keras_training(x: Any, mean: Any, var: Any, momentum: float) -> tuple[Any, Any]:
    """Moving statistics after one batch ``(N, L, C)``, as Keras 3 computes them."""
    batch_mean, batch_var = x.mean((0, 1)), x.var((0, 1))
    return (
        mean * momentum + batch_mean * (1 - momentum),
        var * momentum + batch_var * (1 - momentum),
    )


def numbers(seed: int = 0) -> tuple[Any, Any, Any, Any]:
    draw = np.random.default_rng(seed)
    return (draw.normal(size=3), draw.normal(size=3), draw.normal(size=3), draw.uniform(1, 4, 3))


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
def test_evaluation_is_that_of_keras_with_its_epsilon(layout: str) -> None:
    x = np.random.default_rng(1).normal(size=(2, 5, 3)) * 0.03
    gamma, beta, mean, var = numbers()
    norm = from_keras(gamma, beta, mean, var * 1e-3, layout=layout)
    assert not norm.training
    given = torch.as_tensor(x).float()
    y = norm(given if layout == "NLC" else given.transpose(1, 2))
    y = y if layout == "NLC" else y.transpose(1, 2)
    expected = keras_evaluation(x, gamma, beta, mean, var * 1e-3, 1e-3)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_momentum_is_the_share_of_the_new_and_the_variance_kept_is_unbiased() -> None:
    x = np.random.default_rng(1).normal(size=(2, 5, 3)) + 4
    gamma, beta, mean, var = numbers()
    norm = from_keras(gamma, beta, mean, var, momentum=0.9, layout="NLC").train()
    norm(torch.as_tensor(x).float())
    assert norm.running_mean is not None
    assert norm.running_var is not None
    new_mean, new_var = keras_training(x, mean, var, 0.9)
    np.testing.assert_allclose(norm.running_mean.numpy(), new_mean, rtol=1e-5)
    # Torch keeps n / (n - 1) times the variance of the batch.
    np.testing.assert_allclose(
        norm.running_var.numpy(), new_var + 0.1 * x.var((0, 1)) / (10 - 1), rtol=1e-5
    )


def test_what_goes_to_keras_and_back_is_the_same() -> None:
    norm = BatchNorm1d(3, eps=1e-4, momentum=0.3)
    norm(torch.randn(4, 3, 7))
    again = from_keras(**to_keras(norm))
    assert again.eps == norm.eps
    assert again.momentum == pytest.approx(norm.momentum)
    for name, value in norm.state_dict().items():
        if name != "num_batches_tracked":
            assert torch.equal(again.state_dict()[name], value)
    kept = to_keras(norm)["gamma"]
    with torch.no_grad():
        norm.weight.fill_(9)
    assert (kept != 9).all()


@pytest.mark.parametrize(("scale", "center"), [(True, False), (False, True), (False, False)])
def test_layers_without_scale_or_center(scale: bool, center: bool) -> None:
    gamma, beta, mean, var = numbers()
    given = (gamma if scale else None, beta if center else None)
    norm = from_keras(*given, mean, var)
    assert (norm.bias is None) == (not center)
    assert [name for name, p in norm.named_parameters() if p.requires_grad] == (
        ["weight"] if scale else ["bias"] if center else []
    )
    x = np.random.default_rng(1).normal(size=(2, 5, 3))
    y = norm(torch.as_tensor(x).float().transpose(1, 2)).transpose(1, 2)
    one, zero = np.ones(3), np.zeros(3)
    expected = keras_evaluation(
        x, gamma if scale else one, beta if center else zero, mean, var, 1e-3
    )
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    back = to_keras(norm)
    assert (back["beta"] is None) == (not center)
    if scale == center:
        assert back["gamma"] is None


def test_layers_of_torch_go_to_keras_too() -> None:
    norm = nn.BatchNorm1d(2, momentum=0.01, eps=1e-3)
    norm(torch.randn(5, 2))
    sent = to_keras(norm)
    assert (sent["momentum"], sent["epsilon"]) == (pytest.approx(0.99), 1e-3)
    for key, value in zip(
        ("gamma", "beta", "moving_mean", "moving_variance"),
        (norm.weight, norm.bias, norm.running_mean, norm.running_var),
        strict=True,
    ):
        assert torch.equal(sent[key], value)
    norm(torch.randn(5, 2))
    assert not torch.equal(sent["moving_mean"], norm.running_mean)


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (GroupNorm(1, 2), "GroupNorm: not a BatchNorm1d"),
        (nn.BatchNorm1d(2, track_running_stats=False), "no running statistics"),
        (BatchNorm1d(2, momentum=None), "momentum=None, a plain average"),
    ],
    ids=["group", "bare", "average"],
)
def test_what_keras_does_not_have_is_named(norm: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_keras(norm)


def test_wrong_numbers_are_named() -> None:
    gamma, beta, mean, var = numbers()
    with pytest.raises(ValueError, match=r"must all have shape \(C,\), got .*'bias': \(2,\)"):
        from_keras(gamma, beta[:2], mean, var)
    with pytest.raises(ValueError, match=r"must all have shape \(C,\)"):
        from_keras(gamma[None], beta[None], mean[None], var[None])
    with pytest.raises(ValueError, match="needs moving_mean and moving_variance"):
        from_keras(gamma, beta, None, var)
    for momentum in (1.5, -0.1):
        with pytest.raises(ValueError, match="momentum must be between 0 and 1, got"):
            from_keras(gamma, beta, mean, var, momentum=momentum)
