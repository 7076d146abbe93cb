"""NormPolicy: what becomes of the tensors of norm layers in federated training. No torch.

A policy says for each role of a tensor (scale, offset, mean, variance, counter) which of the fates
of :mod:`federated.policy.fates` it meets, and for which norm layers. Tensors of no norm, and of
norms that the policy does not concern, are treated as by ``fedavg``.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from data_tools.errors import InputError
from federated.policy.fates import PLAIN, ROLE_FATES, Fate, Phase

if TYPE_CHECKING:
    from torch import nn

    from federated.policy.manifest import Manifest

__all__ = ["POLICIES", "POLICY_HELP", "NormPolicy", "parse_policy"]

POLICY_HELP = {
    "fedavg": "scale, offset and statistics averaged",
    "fedbn": "everything of BatchNorm local",
    "silobn": "BatchNorm's scale and offset averaged, its statistics local",
    "fixbn:10": "fedavg, then (from round 10 on, any number) BatchNorm's statistics frozen",
    "moment_merge": "fedavg, but BatchNorm's statistics merged as moments",
    "all_local": "everything of every norm layer local",
    "none": "everything of every norm layer frozen as it was built",
}
"""What each preset does."""

POLICIES = tuple(POLICY_HELP)
"""One valid example of every policy that `parse_policy` knows."""


@dataclass(frozen=True)
class NormPolicy:
    """A fate for each role of the tensors of norm layers, in one or several phases.

    Parameters
    ----------
    name : str
        For tables and reports.
    phases : tuple of Phase
        In order; the first starts at round 1.
    layers : {"batch", "all"}
        Which norms are concerned: those of the BatchNorm family, or all. The others, like all
        that is no norm, are treated as by ``fedavg``.
    buffers : {"left out", "local", "averaged"}
        Fate of buffers that belong to no known norm, e.g. tables of positions or statistics of
        layers that nobody has registered. They are never averaged unless asked for.

    Raises
    ------
    InputError
        For fates that make no sense for a role, phases out of order, a tensor that is frozen
        after it was local or left out (the server has no value of it), or moments to be merged of
        layers that are no BatchNorm.

    Examples
    --------
    >>> policy = parse_policy("silobn")
    >>> policy.phase(1).gamma, policy.phase(1).mean
    ('averaged', 'local')
    >>> parse_policy("fixbn:10").phase(10).mean
    'frozen'
    >>> NormPolicy("mine", (Phase(counter="averaged"),))
    Traceback (most recent call last):
    ...
    data_tools.errors.InputError: counter cannot be 'averaged'; it can be local, frozen, left out
    """

    name: str
    phases: tuple[Phase, ...] = (PLAIN,)
    layers: Literal["batch", "all"] = "all"
    buffers: Fate = "left out"

    def __post_init__(self) -> None:
        starts = [phase.start for phase in self.phases]
        if not starts or starts[0] != 1 or sorted(set(starts)) != starts:
            raise InputError(
                f"policy {self.name!r}: phases start at rounds {starts}; they must begin at 1 and "
                "increase"
            )
        if self.layers not in ("batch", "all"):
            raise InputError(f"layers must be 'batch' or 'all', got {self.layers!r}")
        if self.buffers not in ROLE_FATES["buffer"]:
            valid = ", ".join(ROLE_FATES["buffer"])
            raise InputError(f"buffers cannot be {self.buffers!r}; they can be {valid}")
        if self.layers != "batch" and any(phase.mean == "merged" for phase in self.phases):
            raise InputError(
                f"policy {self.name!r}: only statistics of BatchNorm are moments of all data and "
                "can be merged; set layers='batch'"
            )
        for earlier, later in zip(self.phases, self.phases[1:], strict=False):
            for role in ("gamma", "beta", "mean", "variance"):
                before = earlier.of(role)
                if later.of(role) == "frozen" and before in ("local", "left out"):
                    raise InputError(
                        f"policy {self.name!r}: {role} is {before!r} before it is frozen in round "
                        f"{later.start}; the server has no value to freeze it at"
                    )

    def phase_number(self, round: int) -> int:  # noqa: A002
        """Which phase a round is in, from 0; rounds are counted from 1."""
        if isinstance(round, bool) or not isinstance(round, int) or round < 1:
            raise InputError(f"rounds are counted from 1, got {round!r}")
        return sum(phase.start <= round for phase in self.phases) - 1

    def phase(self, round: int) -> Phase:  # noqa: A002
        """Fates in a round."""
        return self.phases[self.phase_number(round)]

    def manifest(self, model: nn.Module) -> Manifest:
        """Say of every tensor of a model what becomes of it.

        Parameters
        ----------
        model : torch.nn.Module
            Left as it is.

        Returns
        -------
        Manifest

        Raises
        ------
        InputError
            For a norm that cannot be treated so; names it.
        """
        # Here, so that names of policies cost no torch.
        from federated.policy.manifest import Manifest

        return Manifest.of(self, model)


def _presets(switch: int) -> dict[str, NormPolicy]:
    local, still = Phase(1, *["local"] * 5), Phase(1, *["frozen"] * 5)  # type: ignore[arg-type]
    apart = Phase(mean="local", variance="local", counter="local")
    merged = Phase(mean="merged", variance="merged")
    fixed = Phase(switch, mean="frozen", variance="frozen")
    return {
        "fedavg": NormPolicy("fedavg"),
        "fedbn": NormPolicy("fedbn", (local,), "batch"),
        "silobn": NormPolicy("silobn", (apart,), "batch"),
        "fixbn": NormPolicy(f"fixbn:{switch}", (PLAIN, fixed), "batch"),
        "moment_merge": NormPolicy("moment_merge", (merged,), "batch"),
        "all_local": NormPolicy("all_local", (local,)),
        "none": NormPolicy("none", (still,)),
    }


def parse_policy(name: str) -> NormPolicy:
    """Make a policy from its name.

    Parameters
    ----------
    name : str
        ``"fedavg"`` (McMahan et al. 2017): all that is learned, and running statistics, are
        averaged, weighted by examples. The counter of batches, which is no weight, is left out.

        ``"fedbn"`` (Li et al. 2021): scale, offset, statistics and counter of BatchNorm are local.

        ``"silobn"`` (Andreux et al. 2020): scale and offset of BatchNorm are averaged; statistics
        and counter are local.

        ``"fixbn:R"`` (Zhong et al. 2023): rounds before R as ``"fedavg"``; from round R on the
        statistics of BatchNorm are frozen at the server's value and normalize in training too,
        while scale and offset go on being trained and averaged. The paper's second part, momentum
        that is kept between rounds, is a matter of the optimizer and not in here.

        ``"moment_merge"``: as ``"fedavg"``, but each client sends the exact moments of its data,
        and the server merges them (Chan et al. 1979), so that the variance between clients counts.

        ``"all_local"``: everything of all norm layers is local.

        ``"none"``: everything of all norm layers is frozen as it was built. A new BatchNorm, with
        mean 0 and variance 1, then does nothing; that of a pretrained model is what it was.

    Returns
    -------
    NormPolicy

    Raises
    ------
    InputError
        In one line: what is wrong, the valid names, and a close match if there is one.

    References
    ----------
    McMahan et al. (2017), Communication-efficient learning of deep networks from decentralized
    data, AISTATS, arXiv:1602.05629. Li et al. (2021), FedBN, ICLR, arXiv:2102.07623. Andreux et
    al. (2020), Siloed federated learning for multi-centric histopathology datasets,
    arXiv:2008.07424. Zhong et al. (2023), Making batch normalization great in federated deep
    learning, arXiv:2303.06530. Chan, Golub & LeVeque (1979), Stanford STAN-CS-79-773.

    Examples
    --------
    >>> parse_policy("fedbn").layers
    'batch'
    >>> parse_policy("fedbm")
    Traceback (most recent call last):
    ...
    data_tools.errors.InputError: unknown policy 'fedbm'; did you mean 'fedbn'? Valid: fedavg, \
fedbn, silobn, fixbn:R (e.g. fixbn:10), moment_merge, all_local, none
    """
    names = [known.partition(":")[0] for known in POLICIES]
    valid = ", ".join("fixbn:R (e.g. fixbn:10)" if known == "fixbn" else known for known in names)
    base, colon, number = str(name).partition(":")
    if base not in names or (colon and base != "fixbn"):
        close = difflib.get_close_matches(base.lower(), names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(f"unknown policy {name!r}; {hint}Valid: {valid}")
    whole = number.isascii() and number.isdigit()
    if base == "fixbn" and not (whole and int(number) > 1):
        raise InputError(
            f"policy {name!r} must name the round, 2 or later, from which on statistics are "
            f"frozen, as fixbn:10. Valid: {valid}"
        )
    return _presets(int(number) if whole else 2)[base]
