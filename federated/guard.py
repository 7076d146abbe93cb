"""Guard: look at every reply before it is aggregated, and refuse what cannot be right.

One broken client must not break the model of all. What is refused is named with its reason, and
the round goes on with the rest, down to a stated minimum. This is a guard against faults and clumsy
attacks: a reply that is wrong within the bounds passes, and where most clients send nonsense the
median, with which updates are compared, is nonsense too. Nothing here allocates more than a few
megabytes, however large a reply is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from data_tools.errors import InputError
from federated.policy.manifest import Expected, State
from federated.policy.moments import COUNT_PREFIX
from federated.policy.sizes import Limits, out_of_range, tensor_fault

__all__ = ["Guard", "Limits", "Refusal", "Reply", "TooFewRepliesError", "check_measures"]


@dataclass(frozen=True)
class Reply:
    """What a client sends after a round.

    Attributes
    ----------
    client : str
        Its name.
    round : int
        The round that it answers.
    arrays : dict of str to Tensor
        What the manifest says that clients send, on the CPU.
    metrics : dict of str to float
        Losses and the like, and the counts of merged statistics.
    examples : int
        Its weight in the mean.
    """

    client: str
    round: int
    arrays: State
    metrics: dict[str, float]
    examples: int


class Refusal(NamedTuple):
    """A reply that is left out, and why.

    Attributes
    ----------
    client, reason : str
    """

    client: str
    reason: str

    def __str__(self) -> str:
        return f"client {self.client}: {self.reason}"


class TooFewRepliesError(InputError):
    """Fewer replies can be used than a round needs.

    Attributes
    ----------
    accepted : tuple of Reply
    refused : tuple of Refusal
    """

    def __init__(
        self, message: str, accepted: tuple[Reply, ...], refused: tuple[Refusal, ...]
    ) -> None:
        super().__init__(message)
        self.accepted = accepted
        self.refused = refused


@dataclass(frozen=True)
class Guard:
    """Check the replies of one round.

    Parameters
    ----------
    expected : mapping of str to Expected
        Of :meth:`federated.policy.Manifest.expected`.
    round : int
        The round that is being aggregated.
    reference : mapping of str to Tensor, optional
        The server's values at the start of the round, from which clients went off; more names than
        are expected may be in it. None: zeros.
    minimum : int
        How many replies must remain.
    limits : Limits

    Examples
    --------
    >>> expected = {"w": Expected((2,), torch.float32, "parameter", None)}
    >>> good = Reply("a", 1, {"w": torch.ones(2)}, {}, 10)
    >>> bad = Reply("b", 1, {"w": torch.tensor([1.0, torch.nan])}, {}, 10)
    >>> accepted, refused = Guard(expected, round=1).check([bad, good])
    >>> [reply.client for reply in accepted], str(refused[0])
    (['a'], 'client b: w holds NaN or infinity')
    """

    expected: Mapping[str, Expected]
    round: int
    reference: Mapping[str, Tensor] | None = None
    minimum: int = 1
    limits: Limits = field(default_factory=Limits)

    def check(self, replies: Sequence[Reply]) -> tuple[list[Reply], list[Refusal]]:
        """Part the replies that can be aggregated from those that cannot.

        Parameters
        ----------
        replies : sequence of Reply
            In any order: the result does not depend on it.

        Returns
        -------
        accepted : list of Reply
            Sorted by client.
        refused : list of Refusal
            Sorted by client.

        Raises
        ------
        TooFewRepliesError
            If fewer than ``minimum`` remain; names who was refused, and why.

        Notes
        -----
        Of a reply that came several times, bit for bit, one is taken; if a client sends different
        replies to one round, none is, since nobody knows which is meant.
        """
        refused: list[Refusal] = []
        answers: dict[str, list[Reply]] = defaultdict(list)
        for reply in replies:
            fault = self._fault(reply)
            if fault:
                refused.append(Refusal(_name(reply.client), fault))
            else:
                answers[reply.client].append(reply)
        sound, twice = _once(answers)
        refused += twice
        arrays = {reply.client: reply.arrays for reply in sound}
        wild = out_of_range(arrays, self.expected, self.reference or {}, self.limits)
        refused += [Refusal(client, reason) for client, reason in wild.items()]
        accepted = [reply for reply in sound if reply.client not in wild]
        refused.sort()
        if len(accepted) < self.minimum:
            told = "; ".join(map(str, refused[:5])) or "none was refused"
            more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
            raise TooFewRepliesError(
                f"round {self.round}: {len(accepted)} of {len(replies)} replies can be used, "
                f"{self.minimum} are needed ({told}{more})",
                tuple(accepted),
                tuple(refused),
            )
        return accepted, refused

    def _fault(self, reply: Reply) -> str:
        """Why a reply by itself cannot be used; empty if it can."""
        if not isinstance(reply.client, str) or not reply.client:
            return "its name is no text"
        if type(reply.round) is not int or reply.round != self.round:
            return f"stale: it answers round {_short(reply.round)}, this is round {self.round}"
        if type(reply.examples) is not int:
            return f"examples are {type(reply.examples).__name__}, not int"
        if not 0 < reply.examples <= self.limits.examples:
            return f"{_short(reply.examples)} examples; 1 to {self.limits.examples} can be"
        if not isinstance(reply.arrays, dict) or not isinstance(reply.metrics, dict):
            return "its arrays or metrics are no dict"
        for name in self.expected:
            if name not in reply.arrays:
                return f"{name} is missing"
        for name in reply.arrays:
            if name not in self.expected:
                return f"{_name(name)} is not expected"
        faults = (
            tensor_fault(name, reply.arrays[name], want) for name, want in self.expected.items()
        )
        return next(filter(None, faults), "") or self._count_fault(reply)

    def _count_fault(self, reply: Reply) -> str:
        layers = {want.layer for want in self.expected.values() if want.layer is not None}
        for layer in sorted(layers):
            count = reply.metrics.get(f"{COUNT_PREFIX}{layer}")
            # A layer that a client does not call has seen 0 values.
            whole = isinstance(count, (int, float)) and 0 <= count <= self.limits.values
            if not whole or isinstance(count, bool) or count != int(count or 0):
                return f"count of values of {layer or 'the model'} is {_short(count)}"
        for name in reply.metrics:
            if str(name).startswith(COUNT_PREFIX) and name[len(COUNT_PREFIX) :] not in layers:
                return f"{_name(name)} is not expected"
        return ""


def check_measures(
    replies: Sequence[Reply],
    round: int,  # noqa: A002
    parts: Sequence[str],
    metrics: Sequence[str],
) -> tuple[list[Reply], list[Refusal]]:
    """Part what clients have measured of a round into what can be reported and what cannot.

    Parameters
    ----------
    replies : sequence of Reply
        In any order; metrics named ``part/measure``.
    round : int
    parts : sequence of str
        Of which every client has to tell, and of no other.
    metrics : sequence of str
        Of the task; beside them there are ``examples`` and ``loss``.

    Returns
    -------
    accepted : list of Reply
    refused : list of Refusal
        Both sorted by client. Of replies that came several times as in :meth:`Guard.check`.

    Examples
    --------
    >>> good = Reply("a", 1, {}, {"test/examples": 9.0, "test/loss": 0.5, "test/auroc": 0.7}, 0)
    >>> bad = Reply("b", 1, {}, {**good.metrics, "test/auroc": 7.0}, 0)
    >>> accepted, refused = check_measures([bad, good], 1, ["test"], ["auroc"])
    >>> [reply.client for reply in accepted], str(refused[0])
    (['a'], 'client b: test/auroc is 7.0; 0 to 1 can be')
    """
    wanted = {f"{part}/{name}" for part in parts for name in ("examples", "loss", *metrics)}
    refused: list[Refusal] = []
    answers: dict[str, list[Reply]] = defaultdict(list)
    for reply in replies:
        fault = _measures_fault(reply, round, wanted)
        if fault:
            refused.append(Refusal(_name(reply.client), fault))
        else:
            answers[reply.client].append(reply)
    sound, twice = _once(answers)
    return sound, sorted(refused + twice)


def _measures_fault(reply: Reply, round: int, wanted: Set[str]) -> str:  # noqa: A002
    if type(reply.round) is not int or reply.round != round:
        return f"stale: it measures round {_short(reply.round)}, this is round {round}"
    if odd := sorted(reply.metrics.keys() ^ wanted):
        return f"{_name(odd[0])} is {'missing' if odd[0] in wanted else 'not expected'}"
    for name, value in reply.metrics.items():
        measure = name.rpartition("/")[2]
        if measure == "examples":
            if not 0 <= value <= Limits.examples or value != int(value):
                return f"{name} is {value}; a whole number up to {Limits.examples} can be"
        elif math.isnan(value):
            continue  # what the rows do not allow, such as AUROC of one class
        elif measure == "loss" and math.isinf(value):
            return f"{name} is {value}"
        elif measure != "loss" and not 0 <= value <= 1:
            return f"{name} is {value}; 0 to 1 can be"
    return ""


def _once(answers: Mapping[str, Sequence[Reply]]) -> tuple[list[Reply], list[Refusal]]:
    """One reply of each client, and those that are one too many."""
    sound, refused = [], []
    for client in sorted(answers):
        first, *others = answers[client]
        if all(_same(first, other) for other in others):
            sound.append(first)
            refused += [Refusal(client, "duplicate of its reply")] * len(others)
        else:
            reason = f"duplicate: {len(others) + 1} different replies to one round"
            refused += [Refusal(client, reason)] * (len(others) + 1)
    return sound, refused


def _same(a: Reply, b: Reply) -> bool:
    return (
        a.examples == b.examples
        and repr(a.metrics) == repr(b.metrics)
        and all(torch.equal(value, b.arrays[name]) for name, value in a.arrays.items())
    )


def _short(value: object) -> str:
    """A number that somebody sent, fit to be shown."""
    huge = isinstance(value, int) and value.bit_length() > 64
    return "a huge number" if huge else _name(repr(value))


def _name(value: object) -> str:
    """A name that somebody sent, fit to be shown."""
    text = value if isinstance(value, str) else repr(type(value))
    return "".join(c if c.isprintable() else "?" for c in text[:80])
