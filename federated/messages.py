"""What travels between server and clients, as Flower's records and as plain Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from data_tools.errors import InputError
from federated.guard import Reply
from federated.policy import State

__all__ = [
    "EVALUATE",
    "HELLO",
    "TRAIN",
    "answer",
    "bytes_in",
    "read_order",
    "read_reply",
    "write_order",
]

HELLO = "query.hello"
TRAIN = "train"
EVALUATE = "evaluate"

T = TypeVar("T", ArrayRecord, ConfigRecord, MetricRecord)

_ARRAYS, _CONFIG, _METRICS = "arrays", "config", "metrics"
_EXAMPLES, _ROUND, _CLIENT = "num-examples", "server-round", "client"


def write_order(round: int, arrays: State, terms: Mapping[str, object]) -> RecordDict:  # noqa: A002
    """What the server asks of a client.

    Parameters
    ----------
    round : int
        From 1.
    arrays : dict of str to Tensor
        What the manifest and the strategy send down.
    terms : mapping
        Scalars that the strategy needs at the clients.
    """
    config = ConfigRecord({_ROUND: round, "terms": json.dumps(dict(terms), sort_keys=True)})
    return RecordDict({_ARRAYS: ArrayRecord(arrays), _CONFIG: config})


def read_order(message: Message) -> tuple[int, State, dict[str, float | str | bool]]:
    """Read what :func:`write_order` wrote; the tensors are to be read alone."""
    content = message.content
    config = _record(content, _CONFIG, ConfigRecord)
    return int(str(config[_ROUND])), _arrays(content), json.loads(str(config["terms"]))


@dataclass
class _Last:
    """The order read last: in one process all clients of a round are sent the same one."""

    content: RecordDict | None = None
    arrays: State = field(default_factory=dict)


_last = _Last()


def _arrays(content: RecordDict) -> State:
    if _last.content is not content:
        _last.arrays = dict(_record(content, _ARRAYS, ArrayRecord).to_torch_state_dict())
        _last.content = content
    return _last.arrays


def answer(
    client: str,
    round: int,  # noqa: A002
    examples: int,
    metrics: Mapping[str, float],
    arrays: State | None = None,
) -> RecordDict:
    """What a client answers; ``arrays`` after training alone."""
    content = RecordDict(
        {
            _METRICS: MetricRecord({**metrics, _EXAMPLES: examples}),
            _CONFIG: ConfigRecord({_CLIENT: client, _ROUND: round}),
        }
    )
    if arrays is not None:
        content[_ARRAYS] = ArrayRecord(arrays)
    return content


def read_reply(content: RecordDict, client: str) -> Reply:
    """Read what :func:`answer` wrote.

    Parameters
    ----------
    content : RecordDict
    client : str
        Who sent it, as the server knows from the node: what the reply says must agree.

    Raises
    ------
    InputError
        If a record is missing or of another kind, or another client's name is in it.
    """
    try:
        config = _record(content, _CONFIG, ConfigRecord)
        metrics = dict(_record(content, _METRICS, MetricRecord))
        named, number, examples = config[_CLIENT], config[_ROUND], metrics.pop(_EXAMPLES)
        arrays: State = {}
        if _ARRAYS in content:
            arrays = dict(_record(content, _ARRAYS, ArrayRecord).to_torch_state_dict())
        lists = [name for name, value in metrics.items() if not isinstance(value, int | float)]
        values = {n: float(v) for n, v in metrics.items() if n not in lists}  # type: ignore[arg-type]
    except Exception as error:
        # Bytes of a stranger: there is no end to what their reading can raise.
        raise InputError(f"the reply cannot be read: {type(error).__name__}: {error}") from error
    if named != client:
        raise InputError(f"the reply says that it is of {named!r}")
    if not isinstance(number, int) or not isinstance(examples, int | float):
        raise InputError(f"round and examples must be numbers, got {number!r} and {examples!r}")
    if lists:
        raise InputError(f"the metric {lists[0]!r} is no number")
    # The guard refuses what is no count, so it must see it as it came.
    return Reply(client, number, arrays, values, examples)  # type: ignore[arg-type]


def _record(content: RecordDict, name: str, kind: type[T]) -> T:
    """One record; Flower's ``config_records`` and the like sort all of them first."""
    record = content[name]
    if not isinstance(record, kind):
        raise InputError(f"{name} is {type(record).__name__}, not {kind.__name__}")
    return record


def bytes_in(content: RecordDict) -> int:
    """Bytes of all arrays in a record, without what wraps them."""
    return sum(len(a.data) for record in content.array_records.values() for a in record.values())
