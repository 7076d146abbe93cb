"""Arrays of messages are read as Flower reads them, and bytes that are no array are refused."""

import io

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from data_tools.errors import InputError
from federated.messages import answer, read_reply

DTYPES = st.sampled_from(["float32", "float64", "float16", "int64", "int32", "uint8", "bool"])


def reply(**data: Array) -> RecordDict:
    return RecordDict(
        {
            "metrics": MetricRecord({"num-examples": 3}),
            "config": ConfigRecord({"client": "a", "server-round": 1}),
            "arrays": ArrayRecord(data),
        }
    )


def saved(value: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, value, **options)
    return file.getvalue()


@given(
    DTYPES.flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0))
    ),
    st.booleans(),
)
def test_an_array_is_read_as_flower_reads_it(value: np.ndarray, columns_first: bool) -> None:
    value = np.asfortranarray(value) if columns_first else value
    content = reply(w=Array(str(value.dtype), value.shape, "numpy.ndarray", saved(value)))
    found = read_reply(content, "a").arrays["w"]
    wanted = content.array_records["arrays"].to_torch_state_dict()["w"]
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert found.numpy().tobytes() == wanted.numpy().tobytes()


def test_what_is_read_can_be_written_to_and_is_nobody_elses() -> None:
    state = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(4)}
    content = answer("a", 1, 3, {}, state)
    first, second = (read_reply(content, "a").arrays for _ in range(2))
    first["w"].add_(1)
    assert torch.equal(second["w"], state["w"])
    assert torch.equal(second["n"], state["n"])


WHOLE = saved(np.arange(6.0))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut off"),
        (WHOLE[:9], "cut off"),
        (WHOLE[:60], "cut off"),
        (WHOLE[:-1], "47 bytes are no array of float64 of shape"),
        (WHOLE + b"\0", "49 bytes are no array"),
        (WHOLE.replace(b"(6,)", b"(7,)"), "no array of float64 of shape"),
        (WHOLE.replace(b"(6,)", b"(-1,)"), "no array of float64 of shape"),
        (WHOLE.replace(b"NUMPY", b"NUMPX"), "magic"),
        (WHOLE.replace(b"\x01\x00", b"\x09\x00", 1), ""),
        (WHOLE[:8] + b"\xff\xff" + WHOLE[10:] + b" " * 70_000, "too long, or cut off"),
        (saved(np.array([{}], dtype=object), allow_pickle=True), "Python objects"),
        (saved(np.zeros(2, dtype=">f4")), ""),
        (saved(np.zeros(2, dtype="M8[s]")), ""),
        (saved(np.array(["text"])), ""),
        (b"\x80\x04\x95" + b"cos\nsystem\n", ""),
    ],
)
def test_bytes_that_are_no_array_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=f"the reply cannot be read: .*{said}"):
        read_reply(reply(w=Array("float64", (6,), "numpy.ndarray", data)), "a")


def test_an_array_of_another_format_is_refused() -> None:
    with pytest.raises(InputError, match=r"is 'pickle', not 'numpy\.ndarray'"):
        read_reply(reply(w=Array("float64", (6,), "pickle", WHOLE)), "a")
