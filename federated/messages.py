"""What travels between server and clients, as Flower's records and as plain Python."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

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

_NUMPY = "numpy.ndarray"  # how Flower calls the format of numpy.save
_LONGEST_HEAD = 10_000  # numpy's own limit

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
        _last.arrays = _tensors(_record(content, _ARRAYS, ArrayRecord))
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
            arrays = _tensors(_record(content, _ARRAYS, ArrayRecord))
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


def _tensors(record: ArrayRecord) -> State:
    """The tensors of a record, as `ArrayRecord.to_torch_state_dict` reads them."""
    return {name: torch.from_numpy(_array(array)) for name, array in record.items()}


def _array(array: Array) -> NDArray[Any]:
    """An array of its bytes, which are those of a ``.npy`` file; never a pickle.

    As `numpy.load` reads it, but that the head is parsed once for all arrays that share it: for a
    small array that is most of the work.
    """
    data = array.data
    if array.stype != _NUMPY:
        raise InputError(f"an array is {array.stype!r}, not {_NUMPY!r}")
    wide = data[6:7] != b"\x01"
    start = 12 if wide else 10
    end = start + int.from_bytes(data[8:start], "little")
    if end > _LONGEST_HEAD or end > len(data):
        raise InputError(f"an array's head of {end} bytes is too long, or cut off")
    dtype, shape, fortran = _layout(bytes(data[:end]), wide)
    count = math.prod(shape)
    if len(data) - end != count * dtype.itemsize:
        raise InputError(f"{len(data) - end} bytes are no array of {dtype} of shape {shape}")
    # A copy, since bytes cannot be written to.
    flat = np.frombuffer(data, dtype, count, end).copy() if count else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=1024)
def _layout(head: bytes, wide: bool) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Type, shape and whether columns come first, of the head of a ``.npy`` file."""
    file = io.BytesIO(head)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise InputError(f"an array is of version {version} of numpy's format; 1.0 and 2.0 can be")
    read = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise InputError("an array holds Python objects, which are never unpickled")
    return dtype, shape, fortran


def _record(content: RecordDict, name: str, kind: type[T]) -> T:
    """One record; Flower's ``config_records`` and the like sort all of them first."""
    record = content[name]
    if not isinstance(record, kind):
        raise InputError(f"{name} is {type(record).__name__}, not {kind.__name__}")
    return record


def bytes_in(content: RecordDict) -> int:
    """Bytes of all arrays in a record, without what wraps them."""
    return sum(len(a.data) for record in content.array_records.values() for a in record.values())
