"""A look-out for operations in a forward that mix positions without a module.

A mean over positions written as ``x.mean(-1)`` runs no module that could be told of lengths, and
would take the padding in without a word. While a model runs, its torch operations are looked at,
and those of the tables below are refused if they work along an axis of padded positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from seqnorm.carry.known import Known, Positions, same, two_ways
from seqnorm.carry.refuse import position_axes

__all__ = ["Watch"]

# name: place of its axis argument, and the axis where none is given (None: not along an axis)
_ALONG: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(
        ("mean", "nanmean", "sum", "nansum", "amax", "amin", "aminmax", "max", "min", "median",
         "prod", "std", "var", "std_mean", "var_mean", "logsumexp", "softmax", "log_softmax",
         "softmin", "argmax", "argmin", "flip", "nanmedian", "count_nonzero"),
        (1, None),
    ),
    **dict.fromkeys(("sort", "argsort", "mode", "glu"), (1, -1)),
    **dict.fromkeys(("topk", "kthvalue"), (2, -1)),
    **dict.fromkeys(
        ("norm", "linalg_norm", "linalg_vector_norm", "quantile", "roll"), (2, None)
    ),
    **dict.fromkeys(("normalize", "cosine_similarity"), (2, 1)),
    "gumbel_softmax": (4, -1),
}  # fmt: skip
_LAST = {
    "conv1d", "conv_transpose1d", "max_pool1d", "avg_pool1d", "lp_pool1d", "adaptive_max_pool1d",
    "adaptive_avg_pool1d", "interpolate", "upsample", "instance_norm", "group_norm",
}  # fmt: skip
_ALIKE = {
    "relu", "relu_", "gelu", "silu", "elu", "selu", "leaky_relu", "sigmoid", "tanh", "softplus",
    "mish", "hardtanh", "hardswish", "prelu", "dropout", "dropout1d", "feature_dropout", "exp",
    "log", "sqrt", "square", "pow", "clamp", "abs", "neg", "add", "sub", "mul", "div", "__add__",
    "__radd__", "__iadd__", "__mul__", "__rmul__", "__imul__", "__sub__", "__rsub__",
    "__truediv__", "add_", "mul_", "to", "float", "double", "half", "bfloat16", "contiguous",
    "clone", "detach", "cat", "transpose", "swapaxes", "permute",
}  # fmt: skip


class Watch(TorchFunctionMode):
    """Refuse operations over padded positions, and keep track of tensors through simple ones.

    Parameters
    ----------
    known : callable
        Gives what is known at present; None while no model runs or the module that runs is
        looked after in another way.
    where : callable
        Names the module that runs.
    """

    def __init__(self, known: Callable[[], Known | None], where: Callable[[], str]) -> None:
        super().__init__()
        self._known = known
        self._where = where

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Look at a call, make it, look at its result."""
        kwargs = kwargs or {}
        known, name = self._known(), getattr(func, "__name__", "")
        if known is None or name == "__get__":
            return func(*args, **kwargs)
        x = args[0] if args else kwargs.get("input")
        if isinstance(x, Tensor) and _worked_along(name, x, args, kwargs, known):
            raise ValueError(
                f"{self._where()}: its forward calls {name} on a tensor of shape "
                f"{tuple(x.shape)} along padded positions, which would mix padding into the "
                "result; use a module that carry_lengths follows (nn.AdaptiveAvgPool1d(1) for a "
                "mean), give the module a `lengths` argument, or, if that axis is not the "
                "positions, leave the module alone by rules={name: None}"
            )
        y = func(*args, **kwargs)
        if name in _ALIKE and isinstance(y, Tensor):
            self._hand_on(known, name, args, kwargs, y)
        return y

    def _hand_on(
        self, known: Known, name: str, args: Sequence[Any], kwargs: Any, y: Tensor
    ) -> None:
        """Note the lengths of a result, where operands agree."""
        first = args[0] if args else None
        operands = list(first) if isinstance(first, (list, tuple)) else list(args)
        found: list[Positions] = []
        for x in operands:
            noted = known.of(x) if isinstance(x, Tensor) else None
            moved = None if noted is None else _moved(name, x, noted, args, kwargs, y)
            if moved is not None:
                found.append(moved)
        for other in found[1:]:
            if not same(found[0].lengths, other.lengths):
                raise ValueError(
                    f"{self._where()}: its forward joins tensors by {name} whose positions were "
                    + two_ways(found[0].lengths, other.lengths)
                )
        if found and known.of(y) is None:
            known.note(y, found[0].axis, found[0].lengths)


def _worked_along(name: str, x: Tensor, args: Sequence[Any], kwargs: Any, known: Known) -> bool:
    """Whether a call works along an axis of padded positions."""
    axes = _axes(name, x, args, kwargs)
    if name in ("linear", "__getitem__"):
        # Much used on other axes: only where the tensor itself is known.
        return known.of(x) is not None and bool(axes & position_axes(x, known))
    return bool(axes & position_axes(x, known))


def _moved(
    name: str, x: Tensor, noted: Positions, args: Sequence[Any], kwargs: Any, y: Tensor
) -> Positions | None:
    """Where the positions of an operand are in the result; None if they are not in it."""
    dims, axis = x.dim(), noted.axis
    if name in ("transpose", "swapaxes", "permute"):
        named = [kwargs[word] for word in ("dim0", "axis0", "dim1", "axis1") if word in kwargs]
        given = (*args[1:], *kwargs.get("dims", ()), *named)
        given = tuple(given[0]) if isinstance(given[0], (tuple, list)) else tuple(given)
        order = [a % dims for a in given]
        if name != "permute":
            a, b = order
            order = list(range(dims))
            order[a], order[b] = b, a
        return Positions(order.index(axis), noted.lengths)
    if name == "cat":
        along = kwargs.get("dim", args[1] if len(args) > 1 else 0) % dims
        return None if along in (0, axis) else noted
    # Of operands that broadcast, the one with the positions counts.
    return noted if x.shape == y.shape else None


def _axes(name: str, x: Tensor, args: Sequence[Any], kwargs: Any) -> set[int]:
    """Axes that a call works along; empty if it does not, or along all of them alike."""
    dims = x.dim()
    if name in _LAST:
        return {dims - 1} if dims > 2 else set()
    if name == "batch_norm":
        mixes = kwargs.get("training", args[5] if len(args) > 5 else False)
        return set(range(2, dims)) if mixes else set()
    if name in ("layer_norm", "rms_norm"):
        shape = kwargs.get("normalized_shape", args[1] if len(args) > 1 else ())
        return set(range(dims - len(shape), dims))
    if name == "scaled_dot_product_attention":
        key = kwargs.get("key", args[1] if len(args) > 1 else x)
        masked = kwargs.get("attn_mask", args[3] if len(args) > 3 else None) is not None
        return {dims - 2} if not masked and key.shape == x.shape else set()
    if name == "linear":
        return {dims - 1} if dims > 2 else set()
    if name == "__getitem__":
        return _from_the_end(args[1], dims)
    if name in ("view", "reshape", "flatten"):
        return _merged(name, x, args, kwargs)
    return _given(*_ALONG[name], args, kwargs, dims) if name in _ALONG and dims else set()


def _given(
    place: int, default: int | None, args: Sequence[Any], kwargs: Any, dims: int
) -> set[int]:
    """The axes that the arguments of a call name."""
    named = [kwargs[word] for word in ("dim", "dims", "axis") if word in kwargs]
    value = named[0] if named else args[place] if len(args) > place else default
    if place == 1 and len(args) > 2 and all(type(axis) is int for axis in args[1:]):
        value = args[1:]  # flip(1, 2)
    axes = value if isinstance(value, (tuple, list)) else (value,)
    return {axis % dims for axis in axes if type(axis) is int}


def _from_the_end(index: Any, dims: int) -> set[int]:
    """Axes at which an index counts from the end of the batch, as ``x[:, -1]`` does."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(not (part is None or part is ... or isinstance(part, (int, slice))) for part in parts):
        return set()
    used = sum(part is not None and part is not ... for part in parts)
    axes: set[int] = set()
    axis = 0
    for part in parts:
        start = part.start if isinstance(part, slice) else part
        if type(start) is int and start < 0:
            axes.add(axis)
        axis += dims - used if part is ... else part is not None
    return axes


def _merged(name: str, x: Tensor, args: Sequence[Any], kwargs: Any) -> set[int]:
    """Axes that are turned into one axis of features."""
    dims = x.dim()
    if name == "flatten":
        first = kwargs.get("start_dim", args[1] if len(args) > 1 else 0)
        last = kwargs.get("end_dim", args[2] if len(args) > 2 else -1)
        merged = set(range(first % dims, last % dims + 1)) if dims else set()
        return merged if len(merged) > 1 and 0 not in merged else set()
    shape = args[1] if len(args) > 1 and isinstance(args[1], (tuple, list)) else args[1:]
    flat = dims > 2 and len(shape) == 2 and shape[0] in (x.shape[0], -1)
    return set(range(1, dims)) if flat else set()
