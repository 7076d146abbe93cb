"""What aggregation strategies do to normalization layers, against the policy that they claim.

A small model with a BatchNorm and a GroupNorm, four clients of different size and means, a few
rounds of made replies: the weights move a little, the statistics are the exact ones of each
client's data, whose scale falls from round to round as activations do in training, and the counter
goes up. What the strategy makes of each norm tensor is compared with what the policy says. Run it
from the repository root (seconds)::

    python benchmarks/norm_conformance.py                    # writes norm_conformance.md
    python benchmarks/norm_conformance.py --strategy pkg.module:factory --policy moment_merge

``factory()`` gives an object with ``aggregate_train(server_round, replies)`` and, if it needs the
server's arrays, ``configure_train(server_round, arrays, config, grid)``, as Flower's have. It gets
what the policy's manifest says that clients send.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import flwr
import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, strategy
from torch import Tensor, nn

from federated.aggregate import aggregate
from federated.flower import identify
from federated.guard import Reply
from federated.policy import (
    POLICIES,
    State,
    client_statistics,
    merge_statistics,
    parse_policy,
    read_counts,
)
from federated.strategies import STRATEGY_NAMES, make_strategy

OUT = Path(__file__).with_suffix(".md")
SITES = ((20, -2.0), (20, 0.0), (20, 2.0), (60, 6.0))  # sequences, mean
SCALES = (4.0, 0.7, 0.5, 0.4, 0.3)  # of the data, round by round
EXACT = 1e-5  # relative


def network() -> nn.Module:
    """The model of the suite."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.GroupNorm(2, 6), nn.Conv1d(6, 1, 1)
    )


class NoGrid(Grid):
    """Clients are known by number; nothing is sent."""

    def get_node_ids(self) -> Iterable[int]:
        """One for each site."""
        return range(1, len(SITES) + 1)

    def _none(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("the conformance suite sends nothing")

    set_run = create_message = push_messages = pull_messages = send_and_receive = _none
    run = property(_none)


class ByPolicy:
    """What a run of this package does: what is learned by a strategy, the rest by the policy."""

    def __init__(self, name: str, policy: str) -> None:
        model = network()
        self.manifest = parse_policy(policy).manifest(model)
        self.strategy = make_strategy(name)
        self.state = dict(model.state_dict())

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord, MetricRecord]:
        """New values of what clients have sent."""
        expected = self.manifest.expected(server_round)
        extra = self.strategy.expected(expected)
        read = []
        for number, reply in enumerate(replies):
            arrays = dict(reply.content.array_records["arrays"].to_torch_state_dict())
            arrays |= {name: torch.zeros(want.shape) for name, want in extra.items()}
            metrics = numbers_of(reply.content.metric_records["metrics"]) | {"steps": 2.0 + number}
            size = int(metrics.pop("num-examples"))
            read.append(Reply(f"client-{number}", server_round, arrays, metrics, size))
        new = aggregate(self.manifest, self.strategy, server_round, self.state, read)
        self.state |= new
        return ArrayRecord({n: Array(v.numpy()) for n, v in new.items()}), MetricRecord({})


def numbers_of(record: MetricRecord) -> dict[str, float]:
    """Metrics that are single numbers."""
    return {name: value for name, value in record.items() if isinstance(value, int | float)}


def mean(states: list[State], name: str, weights: np.ndarray) -> Tensor:
    """The mean of a tensor over the clients, by their weights, in float64."""
    stacked = torch.stack([state[name].double() for state in states])
    share = torch.from_numpy(weights / weights.sum()).view(-1, *[1] * (stacked.dim() - 1))
    return (stacked * share).sum(0).to(states[0][name].dtype)


@dataclass
class Seen:
    """What became of one norm tensor over the rounds."""

    role: str
    claims: set[str] = field(default_factory=set)
    broken: bool = False
    how: set[str] = field(default_factory=set)
    faults: set[str] = field(default_factory=set)


def replies_of(
    number: int, model: nn.Module, names: tuple[str, ...]
) -> tuple[list[State], list[dict[str, float]]]:
    """Made replies of all clients: their states, and metrics with counts."""
    states, metrics = [], []
    for client, (size, shift) in enumerate(SITES):
        g = torch.Generator().manual_seed(1000 * number + client)
        x = (torch.randn(size, 4, 20, generator=g) + shift) * SCALES[number - 1]
        counted = client_statistics(model, [x])
        state = {
            name: value + 0.01 * torch.randn(value.shape, generator=g)
            if value.is_floating_point()
            else value + 3 + client
            for name, value in model.state_dict().items()
        } | counted.state
        states.append({name: state[name] for name in names})
        rest = {"num-examples": float(size), "train_loss": 1.0 / number}
        metrics.append(rest | counted.metrics())
    return states, metrics


def messages(states: list[State], metrics: list[dict[str, float]]) -> list[Message]:
    """Replies as Flower has them."""
    found = []
    for client, (state, numbers) in enumerate(zip(states, metrics, strict=True), 1):
        asked = Message(content=RecordDict(), dst_node_id=client, message_type="train")
        arrays = ArrayRecord({n: Array(v.numpy()) for n, v in state.items()})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord(dict(numbers))})
        found.append(Message(content=content, reply_to=asked))
    return found


def candidates(
    name: str, states: list[State], metrics: list[dict[str, float]]
) -> dict[str, Tensor]:
    """What a tensor could have become, by what it would be called."""
    sizes = np.array([m["num-examples"] for m in metrics])
    stacked = torch.stack([state[name].double() for state in states])
    wide = [{name: state[name].double()} for state in states]
    found = {
        "averaged": mean(wide, name, sizes),
        "mean without weights": stacked.mean(0),
        "median": torch.from_numpy(np.asarray(np.median(stacked.numpy(), axis=0))),
        "trimmed mean": stacked.sort(0).values[1:-1].mean(0),
    }
    found |= {f"client {i}'s": value for i, value in enumerate(stacked, 1)}
    if name.endswith(("running_mean", "running_var")):
        merged = merge_statistics(states, [read_counts(m) for m in metrics])
        found["merged"] = merged[name].double()
    return found


def describe(
    old: Tensor, new: Tensor, choices: dict[str, Tensor], claim: str, role: str
) -> tuple[str, set[str]]:
    """How a tensor moved in one round, and what is wrong with it."""
    value = new.double()
    faults = set()
    if new.dtype != old.dtype:
        faults.add(f"is {str(new.dtype).removeprefix('torch.')}")
    if not value.isfinite().all():
        faults.add("NaN or infinity")
    if role == "variance" and bool((value < 0).any()):
        faults.add(f"negative, down to {float(value.min()):.2g}")
    # A merged mean of sequences of one length is also their weighted mean: the claim goes first.
    order = sorted(choices, key=lambda word: word != claim)
    how = next((word for word in order if close(value, choices[word])), "")
    if not how:
        how = "as it was" if torch.equal(value, old.double()) else "something else"
    return how, faults


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree to the precision that is asked for."""
    return bool(((a - b).abs() <= EXACT * b.abs().clamp_min(1e-3)).all())


def conformance(
    make: Callable[[], Any], policy: str, rounds: int = len(SCALES)
) -> tuple[dict[str, Seen], str]:
    """Run a strategy over made rounds; what became of each norm tensor, and the crash if any."""
    model = network()
    manifest = parse_policy(policy).manifest(model)
    entries = {entry.name: entry for entry in manifest.entries if entry.layer}
    seen = {name: Seen(entry.role) for name, entry in entries.items()}
    subject = make()
    server = {name: value.clone() for name, value in model.state_dict().items()}
    for number in range(1, rounds + 1):
        knows_none = policy == "fedavg" and not isinstance(subject, ByPolicy)
        names = tuple(server) if knows_none else manifest.sent_up(number)
        states, metrics = replies_of(number, model, names)
        arrays = ArrayRecord({name: Array(server[name].numpy()) for name in names})
        answers = messages(states, metrics)
        try:
            if hasattr(subject, "configure_train"):
                list(subject.configure_train(number, arrays, ConfigRecord(), NoGrid()))
            result, _ = subject.aggregate_train(number, answers)
        except Exception as error:
            told = str(error).replace("\n", " ")
            return seen, f"round {number}: {type(error).__name__}: {told[:90]}"
        # Named by the arrays that went in: Flower loses the keys of arrays that it was not given.
        after = {n: torch.from_numpy(np.array(v.numpy())) for n, v in result.items()}
        phase = manifest.policy.phase_number(number)
        for name, what in seen.items():
            claim = entries[name].fates[phase]
            what.claims.add(claim)
            if name not in names:
                what.how.add("not sent")
                what.broken |= claim in ("averaged", "merged")
                continue
            choices = candidates(name, states, metrics)
            how, faults = describe(server[name], after[name], choices, claim, what.role)
            what.how.add(how)
            what.broken |= how != (claim if claim in ("averaged", "merged") else "as it was")
            what.faults |= faults
        # A torch model takes any type; only the next start then shows what has become of it.
        server |= {name: value.to(server[name].dtype) for name, value in after.items()}
        usable = {n: v for n, v in server.items() if not n.endswith(("_var", "_mean", "tracked"))}
        model.load_state_dict(usable, strict=False)
    return seen, ""


def verdict(what: Seen, learned_may_step: bool) -> str:
    """Whether a tensor met the fate that the policy claims for it, in every round."""
    if what.faults:
        return "**no**"
    if not what.broken:
        return "yes"
    stepped = learned_may_step and what.role in ("gamma", "beta") and what.claims == {"averaged"}
    return "by its rule" if stepped else "**no**"


Case = tuple[str, str, bool, Callable[[], Any]]


def cases() -> list[Case]:
    """Name, policy that is claimed, whether learned weights follow another rule, constructor."""

    def ours(name: str, policy: str) -> Case:
        stepped = name not in ("fedavg", "fedprox")
        return (f"`{name}` here", policy, stepped, lambda: ByPolicy(name, policy))

    return [
        ("FedAvg", "fedavg", False, strategy.FedAvg),
        ("FedAvgM", "fedavg", True, lambda: strategy.FedAvgM(server_momentum=0.9)),
        ("FedAdam", "fedavg", True, strategy.FedAdam),
        ("FedYogi", "fedavg", True, strategy.FedYogi),
        ("FedAdagrad", "fedavg", True, strategy.FedAdagrad),
        ("FedMedian", "fedavg", True, strategy.FedMedian),
        ("FedTrimmedAvg", "fedavg", True, lambda: strategy.FedTrimmedAvg(beta=0.25)),
        ("Krum", "fedavg", True, lambda: strategy.Krum(num_malicious_nodes=1)),
        ("QFedAvg", "fedavg", True, lambda: strategy.QFedAvg(client_learning_rate=0.1)),
        *[ours(name, "fedavg") for name in STRATEGY_NAMES],
        *[ours("fedavg", p.replace("10", "3")) for p in POLICIES if p != "fedavg"],
        *[ours("fedadam", policy) for policy in ("silobn", "moment_merge")],
    ]


LAYERS = {"1": "BatchNorm", "3": "GroupNorm"}


COLUMNS = (
    ("BatchNorm", ("gamma", "beta")),
    ("BatchNorm", ("mean", "variance")),
    ("BatchNorm", ("counter",)),
    ("GroupNorm", ("gamma", "beta")),
)


def rows_of(case: Case) -> list[str]:
    """A row of Markdown for what a strategy made of the norm tensors."""
    name, policy, may_step, make = case
    seen, crash = conformance(make, policy)
    if crash:
        return [f"| {name} | {policy} | | | | | {crash.replace('|', '/')} | **crashed** |"]
    cells, faults, said = [], set(), set()
    for layer, roles in COLUMNS:
        some = [
            what
            for tensor, what in seen.items()
            if LAYERS[tensor.partition(".")[0]] == layer and what.role in roles
        ]
        claims = set().union(*(what.claims for what in some))
        became = sorted(set().union(*(what.how for what in some)))
        cells.append(f"{', '.join(sorted(claims))}: {', '.join(became) or '-'}")
        faults |= {f"{what.role} {fault}" for what in some for fault in what.faults}
        said |= {verdict(what, may_step) for what in some}
    worst = next(word for word in ("**no**", "by its rule", "yes") if word in said)
    told = "; ".join(sorted(faults)) or "-"
    return [f"| {name} | {policy} | {' | '.join(cells)} | {told} | {worst} |"]


HEADER = """# What strategies do to normalization layers

Written by `python benchmarks/norm_conformance.py`: {rounds} rounds of made replies of {clients}
clients of different size and means, a model with a BatchNorm and a GroupNorm. Before the colon
stands what the policy says of the tensors (for strategies that know no policy: `fedavg`, with all
of the `state_dict` handed to them), after it what they became, to a relative {exact:g}; "something
else" is none of: the mean weighted by examples, the mean without weights, the median, the trimmed
mean, one client's, the merge by the law of total variance. *Held* is "by its rule" where a server
optimizer or a robust mean moves what is learned: that is its purpose. Statistics and counters are
no weights, and no such rule is meant for them. Flower's strategies stand first, as Flower calls
them; then ("here") each strategy and policy of this package.

flwr {flwr}, torch {torch}.

| strategy | policy | BatchNorm: learned | statistics | counter | GroupNorm | fault | held |
|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Write the table, or print that of one strategy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--strategy", help="package.module:factory; printed, not written")
    parser.add_argument("--policy", default="fedavg", help="the policy that it claims")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    identify()
    warnings.simplefilter("ignore")
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    if chosen.strategy:
        module, _, factory = chosen.strategy.partition(":")
        make = getattr(import_module(module), factory)
        print("\n".join(rows_of((factory, chosen.policy, True, make))))
        return
    head = HEADER.format(
        rounds=len(SCALES), clients=len(SITES), exact=EXACT,
        flwr=flwr.__version__, torch=torch.__version__,
    )  # fmt: skip
    rows = [row for case in cases() for row in rows_of(case)]
    OUT.write_text(head + "\n".join(rows) + "\n")
    print(f"{OUT}: {len(rows)} rows")


if __name__ == "__main__":
    main()
