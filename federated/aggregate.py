"""Aggregation of a round: to each tensor what its policy says.

What is learned goes through the strategy, statistics through the mean or the merge of moments, and
never the one's way through the other's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from federated.policy import State, merge_statistics, read_counts
from federated.strategies import UP, Strategy, learned, mean_by_examples

if TYPE_CHECKING:
    from torch import Tensor

    from federated.guard import Reply
    from federated.policy import Manifest

__all__ = ["aggregate"]


def aggregate(
    manifest: Manifest,
    strategy: Strategy,
    round: int,  # noqa: A002
    state: Mapping[str, Tensor],
    replies: Sequence[Reply],
) -> State:
    """Make the server's new values of a round.

    Parameters
    ----------
    manifest : Manifest
    strategy : Strategy
        Its momenta and controls go on.
    round : int
        From 1.
    state : mapping of str to Tensor
        The server's values before the round.
    replies : sequence of Reply
        Those that are used, sorted by client.

    Returns
    -------
    dict of str to Tensor
        New values of what clients send; all else stays.
    """
    expected = manifest.expected(round)
    learnt = set(learned(expected))
    merged = [name for name, want in expected.items() if want.layer is not None]
    before = {name: state[name] for name in expected if name in learnt}
    after = dict(strategy.aggregate(round, before, [_learned(r, learnt) for r in replies]))
    if merged:
        states = [{name: reply.arrays[name] for name in merged} for reply in replies]
        counts = [read_counts(reply.metrics) for reply in replies]
        after |= merge_statistics(states, counts, [reply.client for reply in replies])
    rest = [name for name in expected if name not in learnt and name not in merged]
    return after | mean_by_examples(replies, rest)


def _learned(reply: Reply, names: set[str]) -> Reply:
    """A reply with nothing in it but what a strategy is for."""
    arrays = {n: value for n, value in reply.arrays.items() if n in names or n.startswith(UP)}
    return replace(reply, arrays=arrays)
