"""BatchNorm between the conventions of Keras and of torch.

=================  ==============================  =====================================
what               Keras                           torch and this package
=================  ==============================  =====================================
momentum           of the old value, .99           of the new value, .1
epsilon            1e-3                            1e-5
names              gamma, beta, moving_mean,       weight, bias, running_mean,
                   moving_variance                 running_var
variance kept      biased (divided by n) in        unbiased (divided by n - 1)
                   Keras 3 and ``fused=False``;
                   unbiased in the fused kernel
                   of TensorFlow
channels           last                            first
=================  ==============================  =====================================

Evaluation divides by the variance kept, in both, so it is passed on as it is and the function
stays the same. Only training goes on in another way: its estimate is larger by ``n / (n - 1)``.

Sources: ``keras/src/layers/normalization/batch_normalization.py`` (Keras 3); for the fused kernel
https://github.com/tensorflow/tensorflow/issues/55545.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnorm.layers import BatchNorm1d
from seqnorm.surgery.norms import Norm, read

__all__ = ["from_keras", "to_keras"]


def from_keras(
    gamma: Any,
    beta: Any,
    moving_mean: Any,
    moving_variance: Any,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    *,
    layout: str = "NCL",
) -> BatchNorm1d:
    """Build a BatchNorm from the numbers of a Keras layer.

    Parameters
    ----------
    gamma, beta : array or None
        ``(C,)``; None for ``scale=False`` and ``center=False``.
    moving_mean, moving_variance : array
        ``(C,)``; together with gamma and beta in the order of ``layer.get_weights()``.
    momentum, epsilon : float
        As in Keras, with its defaults.
    layout : {"NCL", "NLC"}
        Order of the axes where the new layer will stand; Keras is ``"NLC"``.

    Returns
    -------
    BatchNorm1d
        In evaluation mode, as loaded layers are. A missing gamma is a weight of 1 that does not
        learn.

    Raises
    ------
    ValueError
        For moments that are None, shapes that differ, or a momentum outside 0..1.

    Examples
    --------
    >>> norm = from_keras([2.0], [1.0], [3.0], [4.0], epsilon=0.0)
    >>> norm(torch.tensor([[[5.0]]])).item(), round(norm.momentum, 6)
    (3.0, 0.01)
    """
    values = {
        "weight": gamma,
        "bias": beta,
        "running_mean": moving_mean,
        "running_var": moving_variance,
    }
    if moving_mean is None or moving_variance is None:
        raise ValueError("a BatchNorm needs moving_mean and moving_variance, got None")
    given = {key: torch.as_tensor(v).float() for key, v in values.items() if v is not None}
    shapes = {key: tuple(v.shape) for key, v in given.items()}
    if len(given["running_mean"].shape) != 1 or len(set(shapes.values())) > 1:
        raise ValueError(f"gamma, beta and moments must all have shape (C,), got {shapes}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be between 0 and 1, got {momentum}")
    norm = BatchNorm1d(
        len(given["running_mean"]), epsilon, 1 - momentum, gamma is not None or beta is not None,
        bias=beta is not None, layout=layout,
    )  # fmt: skip
    with torch.no_grad():
        for key, value in given.items():
            getattr(norm, key).copy_(value)
    if gamma is None and norm.weight is not None:
        norm.weight.requires_grad_(False)
    return norm.eval()


def to_keras(norm: torch.nn.Module) -> dict[str, Any]:
    """Numbers of a BatchNorm by the names of Keras.

    Parameters
    ----------
    norm : torch.nn.Module
        BatchNorm1d of torch or of this package, with running statistics.

    Returns
    -------
    dict
        ``gamma``, ``beta`` (None where the layer has none), ``moving_mean``, ``moving_variance``,
        tensors ``(C,)`` on the CPU; ``momentum``, ``epsilon``. The first four that are not None,
        each with ``.numpy()``, are what ``layer.set_weights`` takes; :func:`from_keras` takes them
        all.

    Raises
    ------
    ValueError
        For another layer, one without running statistics, or ``momentum=None`` (a plain average),
        which Keras does not have.

    Examples
    --------
    >>> numbers = to_keras(BatchNorm1d(2, momentum=0.1))
    >>> numbers["momentum"], numbers["moving_variance"].tolist()
    (0.9, [1.0, 1.0])
    """
    numbers = read(norm) if isinstance(norm, torch.nn.BatchNorm1d) else "not a BatchNorm1d"
    if isinstance(numbers, str):
        raise ValueError(f"{type(norm).__name__}: {numbers}")
    assert isinstance(numbers, Norm)
    if numbers.mean is None or numbers.var is None:
        raise ValueError(f"{type(norm).__name__} has no running statistics")
    momentum = norm.momentum
    if momentum is None:
        raise ValueError("momentum=None, a plain average of all batches, is unknown to Keras")

    def copied(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.detach().cpu().clone()

    return {
        "gamma": copied(numbers.weight),
        "beta": copied(numbers.bias),
        "moving_mean": copied(numbers.mean),
        "moving_variance": copied(numbers.var),
        "momentum": 1 - float(momentum),  # type: ignore[arg-type]
        "epsilon": numbers.eps,
    }
