"""The clients' half of FedProx and SCAFFOLD: what keeps local steps from drifting apart.

- FedProx (Li et al. 2020, arXiv:1812.06127): ``mu (w - w_server)`` is added to the gradient.
- SCAFFOLD (Karimireddy et al. 2020, arXiv:1910.06378): every step goes along ``g - c_i + c``, and
  the client's control becomes ``c_i - c + (w_server - w) / (K lr)`` after K steps (option II).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_tools.errors import InputError
from federated.policy.manifest import State
from federated.strategies.names import DOWN, KEPT, UP
from federated.strategies.strategy import Terms

__all__ = ["Drift"]


@dataclass
class Drift:
    """What strategies do against clients that drift apart: FedProx's term, SCAFFOLD's controls.

    Attributes
    ----------
    mu : float
    held : dict of str to Parameter
        What FedProx holds near the server's value.
    corrected : dict of str to Parameter
        What SCAFFOLD's controls are of.
    start : dict of str to Tensor
        Values before training, of all that is held or corrected.
    server, own : dict of str to Tensor
        SCAFFOLD's c and c_i.
    """

    mu: float
    held: dict[str, nn.Parameter]
    corrected: dict[str, nn.Parameter]
    start: State
    server: State
    own: State

    @classmethod
    def of(
        cls,
        model: nn.Module,
        extras: Mapping[str, Tensor],
        terms: Terms,
        shared: Collection[str] | None,
    ) -> Drift:
        """Take the starting point of a round."""
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        mu = float(terms.get("mu", 0.0))
        held = {n: p for n, p in parameters.items() if mu and (shared is None or n in shared)}
        controls = {n.removeprefix(DOWN): c for n, c in extras.items() if n.startswith(DOWN)}
        corrected = {n: p for n, p in parameters.items() if n in controls and terms.get("scaffold")}
        server, own = {}, {}
        for name, p in corrected.items():
            # A client that has not trained before begins with no control of its own.
            mine = extras.get(f"{KEPT}{name}", torch.zeros_like(controls[name]))
            for control in (controls[name], mine):
                if control.shape != p.shape:
                    raise InputError(
                        f"control of {name} has shape {tuple(control.shape)}, the weight "
                        f"{tuple(p.shape)}; it is of another model"
                    )
            server[name], own[name] = (c.to(p.device, p.dtype) for c in (controls[name], mine))
        start = {n: p.detach().clone() for n, p in (held | corrected).items()}
        return cls(mu, held, corrected, start, server, own)

    @torch.no_grad()
    def hold(self) -> None:
        """Add the gradient of FedProx's term."""
        for name, p in self.held.items():
            term = p - self.start[name]
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            p.grad.add_(term, alpha=self.mu)

    @torch.no_grad()
    def correct(self) -> None:
        """Turn the gradient by SCAFFOLD's ``c - c_i``."""
        for name, p in self.corrected.items():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            p.grad.add_(self.server[name]).sub_(self.own[name])

    @torch.no_grad()
    def controls(self, steps: int, learning_rate: float) -> tuple[State, State]:
        """Change of the client's control, for the server, and the new control, for the client."""
        sent, kept = {}, {}
        for name, p in self.corrected.items():
            change = torch.zeros_like(p)
            if steps:
                change = (self.start[name] - p) / (steps * learning_rate) - self.server[name]
            sent[f"{UP}{name}"] = change.detach().cpu()
            kept[f"{KEPT}{name}"] = (self.own[name] + change).detach().cpu()
        return sent, kept
