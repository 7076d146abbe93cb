"""What convolutions, pools and the like do to the lengths of sequences.

Before such a module runs, the padded positions of its input are given the value that the module
would itself put beyond the end of the single sequence. What it computes at the valid positions of
its output is then what it computes of the sequence alone, borders included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Follow", "follow"]


class Follow(NamedTuple):
    """How a module is followed.

    Attributes
    ----------
    fill : float or None
        What stands beyond the end of a sequence; None: its last value.
    after : callable
        Lengths ``(N,)`` of the input to those of the output; None: all positions of the output
        are valid.
    correct : callable, optional
        ``(input, output, lengths) -> output``, where the module itself cannot give the numbers of
        the single sequences.
    """

    fill: float | None
    after: Callable[[Tensor], Tensor] | None
    correct: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None


def follow(module: nn.Module) -> Follow | str | None:
    """How to follow a module; a reason if it is of a kind that could be, but not as it is set.

    Returns
    -------
    Follow, str or None
        None for a module of another kind.

    Examples
    --------
    >>> rule = follow(nn.Conv1d(4, 8, 5, stride=2))
    >>> rule.fill, rule.after(torch.tensor([20, 9])).tolist()
    (0.0, [8, 3])
    >>> follow(nn.Conv1d(4, 8, 5, padding=2, padding_mode="reflect"))
    "padding_mode='reflect' continues each sequence beyond its end; use padding_mode='zeros'"
    """
    for kind, rule in _RULES:
        if isinstance(module, kind):
            return rule(module)
    return None


def _one(value: Any) -> int:
    return int(value[0]) if isinstance(value, tuple) else int(value)


def windows(
    n: Tensor, size: int, stride: int, padding: int = 0, dilation: int = 1, ceil: bool = False
) -> Tensor:
    """How many windows fit into ``n`` positions, by the formula of torch's pools.

    With ``ceil`` a last window may reach beyond the end, if it starts before it.
    """
    room = n + 2 * padding - dilation * (size - 1) - 1
    count = torch.div(room + (stride - 1) * ceil, stride, rounding_mode="floor") + 1
    if ceil:
        count = count - ((count - 1) * stride >= n + padding).to(count.dtype)
    return count


def _conv(m: Any) -> Follow | str:
    size, stride, dilation = _one(m.kernel_size), _one(m.stride), _one(m.dilation)
    same = m.padding == "same"
    padding = dilation * (size - 1) if same else 0 if m.padding == "valid" else _one(m.padding)
    if padding and m.padding_mode != "zeros":
        return (
            f"padding_mode={m.padding_mode!r} continues each sequence beyond its end; "
            "use padding_mode='zeros'"
        )
    if same:
        return Follow(0.0, lambda n: n)
    return Follow(0.0, lambda n: windows(n, size, stride, padding, dilation))


def _conv_transpose(m: Any) -> Follow:
    grow = _one(m.dilation) * (_one(m.kernel_size) - 1) + _one(m.output_padding) + 1
    shrink = 2 * _one(m.padding)
    return Follow(0.0, lambda n: (n - 1) * _one(m.stride) + grow - shrink)


def _max_pool(m: Any) -> Follow:
    rule = (_one(m.kernel_size), _one(m.stride), _one(m.padding), _one(m.dilation), m.ceil_mode)
    return Follow(-torch.inf, lambda n: windows(n, *rule))


def _average_pool(m: Any) -> Follow:
    size, stride, padding = _one(m.kernel_size), _one(m.stride), _one(m.padding)
    rule = (size, stride, padding, m.count_include_pad)
    correct = None
    if m.ceil_mode or (padding and not m.count_include_pad):
        correct = _divide_again(*rule)
    return Follow(0.0, lambda n: windows(n, size, stride, padding, 1, m.ceil_mode), correct)


def _power_pool(m: Any) -> Follow:
    size = _one(m.kernel_size)
    stride = size if m.stride is None else _one(m.stride)
    after = lambda n: windows(n, size, stride, 0, 1, m.ceil_mode)  # noqa: E731
    if abs(m.norm_type) == torch.inf:
        return Follow(0.0 if m.norm_type > 0 else torch.inf, after)
    correct = _divide_again(size, stride, 0, True, 1 / m.norm_type) if m.ceil_mode else None
    return Follow(0.0, after, correct)


def _divide_again(
    size: int, stride: int, padding: int, include_padding: bool, power: float = 1.0
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Divide sums by the number of positions that the single sequence would divide by."""

    def divisor(start: Tensor, n: Tensor) -> Tensor:
        end = torch.minimum(start + size, n + padding)
        if not include_padding:
            start, end = start.clamp_min(0), torch.minimum(end, n)
        return (end - start).clamp_min(1)

    def correct(x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        start = torch.arange(y.shape[2], device=y.device) * stride - padding
        batch = divisor(start, torch.full_like(start[:1], x.shape[2]))
        alone = divisor(start, lengths.to(y.device)[:, None])
        ratio = (batch / alone.to(torch.float64)) ** power
        return y * ratio.to(y.dtype)[:, None, :]

    return correct


def _bins(n: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """First and last position (exclusive) of each bin of torch's adaptive pools: ``(N, count)``."""
    i = torch.arange(count, device=n.device)
    start = torch.div(i * n[:, None], count, rounding_mode="floor")
    end = torch.div((i + 1) * n[:, None] + count - 1, count, rounding_mode="floor")
    return start, end


def _adaptive(m: Any) -> Follow | str:
    """Pool over valid positions only; an empty sequence gives zeros."""
    if m.output_size is None or m.output_size == (None,):
        return "output_size=None keeps the padded size; name a number of bins"
    if getattr(m, "return_indices", False):
        return "return_indices=True cannot be followed; set it to False"
    count = _one(m.output_size)
    largest = isinstance(m, nn.AdaptiveMaxPool1d)

    def correct(x: Tensor, y: Tensor, lengths: Tensor) -> Tensor:
        start, end = _bins(lengths.to(x.device), count)
        at = torch.arange(x.shape[2], device=x.device)
        parts = []
        for i in range(count):
            inside = ((at >= start[:, i, None]) & (at < end[:, i, None]))[:, None]
            if largest:
                part = torch.where(inside, x, -torch.inf).max(2).values
                parts.append(torch.where(inside.any(2), part, 0))
            else:
                wide = torch.promote_types(x.dtype, torch.float32)
                part = torch.where(inside, x, 0).sum(2, dtype=wide)
                parts.append((part / inside.sum(2).clamp_min(1)).to(x.dtype))
        return torch.stack(parts, 2)

    return Follow(0.0, None, correct)


def _upsample(m: Any) -> Follow | str:
    if m.size is not None or m.scale_factor is None:
        return f"size={m.size} makes the scale depend on the padding; set scale_factor instead"
    if m.align_corners:
        return "align_corners=True makes the scale depend on the padding; set it to False"
    factor = float(m.scale_factor[0] if isinstance(m.scale_factor, tuple) else m.scale_factor)
    if m.recompute_scale_factor and not factor.is_integer():
        return "recompute_scale_factor=True makes the scale depend on the padding"
    return Follow(None, lambda n: (n.double() * factor).floor().long())


def _constant_pad(m: Any) -> Follow | str:
    left, right = m.padding
    if min(left, right) < 0:
        return f"padding={m.padding} crops sequences at the padded end; crop them before"
    return Follow(float(m.value), lambda n: n + left + right)


_RULES: tuple[tuple[type[nn.Module], Callable[[Any], Follow | str]], ...] = (
    (nn.Conv1d, _conv),
    (nn.ConvTranspose1d, _conv_transpose),
    (nn.MaxPool1d, _max_pool),
    (nn.AvgPool1d, _average_pool),
    (nn.LPPool1d, _power_pool),
    (nn.AdaptiveAvgPool1d, _adaptive),
    (nn.AdaptiveMaxPool1d, _adaptive),
    (nn.Upsample, _upsample),
    (nn.ConstantPad1d, _constant_pad),
)
