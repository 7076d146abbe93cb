"""Which layer stands directly before and after a norm.

Inside ``nn.Sequential`` the order of layers tells. Elsewhere an example input is followed through
the model: every tensor that a convolution, linear layer or norm gives is watched, and all that
takes it is written down, be it a module, an operation of torch or the model's output.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from seqnorm.surgery.change import evaluating
from seqnorm.surgery.norms import is_norm

__all__ = ["LINEAR", "Neighbour", "by_order", "by_sample"]

LINEAR = (nn.Conv1d, nn.ConvTranspose1d, nn.Linear)
_VIEWS = {"T", "mT", "H", "mH", "data", "real", "imag"}  # properties that give the values away
_LOOKS = {
    "__len__", "size", "dim", "ndimension", "numel", "stride", "is_floating_point",
    "is_complex", "is_contiguous", "__repr__", "__format__", "element_size", "__hash__",
}  # fmt: skip


@dataclass(frozen=True)
class Neighbour:
    """A layer next to a norm; or the reason why nothing can be folded there.

    Attributes
    ----------
    layer : torch.nn.Module or None
        A convolution or linear layer.
    reason : str
        Why there is none, or empty.
    dims : int or None
        Axes of the tensor between the two, if seen.
    """

    layer: nn.Module | None
    reason: str = ""
    dims: int | None = None


Both = tuple[Neighbour, Neighbour]


def by_order(model: nn.Module) -> dict[nn.Module, Both]:
    """Neighbours of the norms that are in ``nn.Sequential``."""
    runs = list(_runs(model))
    times = Counter(module for run in runs for module in run)

    def next_to(module: nn.Module | None, side: str) -> Neighbour:
        if module is not None and times[module] > 1:
            return Neighbour(None, f"{type(module).__name__} {side} it comes {times[module]} times")
        return _next_to(module, side)

    found: dict[nn.Module, Both] = {}
    for run in runs:
        for i, module in enumerate(run):
            if is_norm(module):
                before = next_to(run[i - 1] if i else None, "before")
                after = next_to(run[i + 1] if i + 1 < len(run) else None, "after")
                several = Neighbour(None, f"it comes {times[module]} times")
                found[module] = (several, several) if times[module] > 1 else (before, after)
    return found


def _next_to(module: nn.Module | None, side: str) -> Neighbour:
    if isinstance(module, LINEAR):
        return Neighbour(module)
    what = "nothing" if module is None else type(module).__name__
    return Neighbour(None, f"{what} stands directly {side} it")


def _runs(model: nn.Module) -> Iterator[list[nn.Module]]:
    """Outermost Sequentials, taken apart."""
    if type(model).forward is nn.Sequential.forward:
        run = [module for child in model._modules.values() if child for module in _flat(child)]
        yield run
        for module in run:
            yield from _runs(module)
    else:
        for child in model.children():
            yield from _runs(child)


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    forward = type(module).forward
    if module._forward_hooks or module._forward_pre_hooks:
        yield module  # hooks may change what goes in or comes out
    elif forward is nn.Sequential.forward:
        for child in module._modules.values():
            if child is not None:
                yield from _flat(child)
    elif forward is not nn.Identity.forward:
        yield module


def by_sample(model: nn.Module, sample: Tensor | Sequence[Any]) -> dict[nn.Module, Both]:
    """Neighbours of the norms that are called on an example input, in evaluation mode."""
    trace = _Trace(model)
    hooks = []
    for module in model.modules():
        if is_norm(module) or isinstance(module, LINEAR):
            hooks.append(module.register_forward_pre_hook(trace.enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(trace.leave))
    try:
        with evaluating(model), trace:
            output = model(sample) if isinstance(sample, Tensor) else model(*sample)
    finally:
        for hook in hooks:
            hook.remove()
    for leaf in tree_leaves(output):
        trace.use(leaf, "the model returns it")
    return {norm: trace.around(norm) for norm in trace.calls if is_norm(norm)}


class _Trace(TorchFunctionMode):
    """Tensors that layers give, and who takes them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.own: dict[int, tuple[nn.Module, str]] = {
            id(value): (module, name)
            for module in model.modules()
            if is_norm(module) or isinstance(module, LINEAR)
            for name, value in (*module.named_parameters(), *module.named_buffers())
        }
        self.lent: dict[nn.Module, str] = {}  # whose numbers are used outside, by name
        self.given: dict[int, tuple[Tensor, nn.Module]] = {}  # holds tensors: an id stays theirs
        self.taken: dict[int, list[nn.Module | str]] = defaultdict(list)
        self.calls: dict[nn.Module, list[tuple[list[Any], Any]]] = defaultdict(list)
        self.inside = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", name)
            looks = name not in _VIEWS
        else:
            looks = name in _LOOKS
        if not self.inside and not looks:
            for leaf in tree_leaves((args, kwargs or {})):
                self.use(leaf, f"{name} uses it")
        return func(*args, **(kwargs or {}))

    def use(self, value: Any, user: nn.Module | str) -> None:
        """Note who takes a tensor, if a layer gave it."""
        module, name = self.own.get(id(value), (None, ""))
        if module is not None:
            self.lent[module] = name
        known = self.given.get(id(value))
        if known is not None and known[0] is value:
            self.taken[id(value)].append(user)

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A layer is called."""
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not self.inside:
            for x in inputs:
                self.use(x, module)
            self.calls[module].append((inputs, None))
        self.inside += 1

    def leave(self, module: nn.Module, args: Any, y: Any) -> None:
        """A layer returns."""
        self.inside -= 1
        if not self.inside:
            self.calls[module][-1] = (self.calls[module][-1][0], y)
            if isinstance(y, Tensor):
                self.given[id(y)] = (y, module)

    def around(self, norm: nn.Module) -> Both:
        """The neighbours of a norm."""
        if len(self.calls[norm]) != 1:
            several = Neighbour(None, f"it is called {len(self.calls[norm])} times")
            return several, several
        if norm in self.lent:
            lent = Neighbour(None, f"its {self.lent[norm]} is used elsewhere too")
            return lent, lent
        inputs, y = self.calls[norm][0]
        x = inputs[0] if inputs else None
        giver = self.given.get(id(x))
        if giver is None or giver[0] is not x or not isinstance(giver[1], LINEAR):
            before = Neighbour(None, "no convolution or linear layer stands directly before it")
        else:
            before = self._joined(x, giver[1], norm)
        after = Neighbour(None, "no convolution or linear layer stands directly after it")
        takers = self.taken.get(id(y), [])
        if len(inputs) > 1:
            after = Neighbour(None, "it takes more than one tensor")
        elif len(takers) == 1 and isinstance(takers[0], LINEAR):
            after = self._joined(y, takers[0], takers[0])
        elif len(takers) > 1 and any(isinstance(taker, LINEAR) for taker in takers):
            after = Neighbour(None, "its output is used elsewhere too")
        return before, after

    def _joined(self, x: Any, layer: nn.Module, taker: nn.Module) -> Neighbour:
        others = [user for user in self.taken[id(x)] if user is not taker]
        if others or len(self.taken[id(x)]) > 1:
            user = next((other for other in others if isinstance(other, str)), "another layer")
            how = user if user.endswith(" it") else f"{user} uses it"
            return Neighbour(
                None, f"the output of {type(layer).__name__} goes elsewhere too: {how}"
            )
        if len(self.calls[layer]) != 1:
            times = len(self.calls[layer])
            return Neighbour(None, f"{type(layer).__name__} next to it is called {times} times")
        if layer in self.lent:
            lent = f"{type(layer).__name__}'s {self.lent[layer]}"
            return Neighbour(None, f"{lent} is used elsewhere too")
        return Neighbour(layer, dims=x.dim())
