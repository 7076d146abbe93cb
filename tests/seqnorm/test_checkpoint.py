import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data_tools.atomic import write_atomic
from seqnorm.checkpoint import (
    STATE,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)

OLD = ({"a": torch.arange(5.0), "b": torch.tensor(3)}, {"epoch": 1})
NEW = ({"a": torch.arange(5.0) + 1, "b": torch.tensor(4)}, {"epoch": 2})
Content = tuple[dict[str, Tensor], dict[str, Any]]


def same(a: Content | None, b: Content) -> bool:
    return (
        a is not None
        and a[1] == b[1]
        and a[0].keys() == b[0].keys()
        and all(a[0][name].equal(b[0][name]) for name in b[0])
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def failing(function: Callable[..., Any], call: int, error: BaseException) -> Callable[..., Any]:
    """A function that raises at its n-th call, counted from 1."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return function(*args, **kwargs)

    return wrapped


def test_a_checkpoint_gives_back_bits_types_and_state(tmp_path: Path) -> None:
    tensors = {
        "float32": torch.tensor([0.1, -0.0, float("inf"), float("nan")]),
        "bfloat16": torch.randn(3).bfloat16(),
        "float64": torch.randn(2, 3, dtype=torch.float64),
        "int64": torch.tensor(2**40),
        "transposed": torch.randn(3, 2).T,
        "empty": torch.empty(0, 4),
    }
    state = {"loss": 0.1 + 0.2, "nested": {"list": [1, None, True]}}
    save_checkpoint(tmp_path / "made" / "here", tensors, state)
    found = load_checkpoint(tmp_path / "made" / "here")
    assert found is not None
    assert found[1] == state
    for name, tensor in tensors.items():
        assert found[0][name].dtype == tensor.dtype
        assert torch.equal(found[0][name].nan_to_num(7), tensor.nan_to_num(7)), name


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    tied = torch.randn(4)
    save_checkpoint(tmp_path, {"a": tied, "b": tied, "c": tied[:2]}, {})
    found = load_checkpoint(tmp_path)
    assert same(found, ({"a": tied, "b": tied, "c": tied[:2]}, {}))


def test_a_folder_without_a_checkpoint_gives_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "absent") is None


def test_a_new_checkpoint_takes_the_place_of_the_old(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *OLD)
    save_checkpoint(tmp_path, *NEW)
    assert same(load_checkpoint(tmp_path), NEW)
    assert len(names(tmp_path)) == 2


def test_a_checkpoint_of_the_same_tensors_with_another_state_keeps_them(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *OLD)
    save_checkpoint(tmp_path, OLD[0], NEW[1])
    assert same(load_checkpoint(tmp_path), (OLD[0], NEW[1]))


# A save syncs the tensors, their folder, the state, its folder; and renames two files.
POINTS = [("fsync", call) for call in (1, 2, 3, 4)] + [("replace", call) for call in (1, 2)]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize(("function", "call"), POINTS)
def test_a_save_interrupted_at_any_write_leaves_a_whole_checkpoint_and_no_rubbish(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    call: int,
    error: BaseException,
) -> None:
    save_checkpoint(tmp_path, *OLD)
    before = names(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing(getattr(os, function), call, error))
        with pytest.raises(type(error)):
            save_checkpoint(tmp_path, *NEW)
    # Only the last sync comes after the rename at which the new one exists.
    renamed = (function, call) == ("fsync", 4)
    assert same(load_checkpoint(tmp_path), NEW if renamed else OLD)
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    assert renamed or names(tmp_path) == before
    save_checkpoint(tmp_path, *NEW)
    assert same(load_checkpoint(tmp_path), NEW)
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize(("function", "call"), POINTS)
def test_an_interrupted_save_of_the_same_tensors_does_not_take_them_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int
) -> None:
    save_checkpoint(tmp_path, *OLD)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing(getattr(os, function), call, OSError("no")))
        with pytest.raises(OSError, match="no"):
            save_checkpoint(tmp_path, OLD[0], NEW[1])
    found = load_checkpoint(tmp_path)
    assert same(found, OLD) or same(found, (OLD[0], NEW[1]))


def test_a_first_save_that_is_interrupted_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing(os.replace, 2, OSError("no")))
        with pytest.raises(OSError, match="no"):
            save_checkpoint(tmp_path, *NEW)
    assert names(tmp_path) == set()


def test_a_state_that_json_cannot_hold_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *OLD)
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, NEW[0], {"bad": object()})
    assert same(load_checkpoint(tmp_path), OLD)
    assert len(names(tmp_path)) == 2


def test_what_a_kill_left_behind_is_cleared_by_the_next_save(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *OLD)
    unfinished = (".tensors-0.safetensors.ab12ef34", ".state.json.cd34ef56")
    for name in (*unfinished, "tensors-0.safetensors"):
        (tmp_path / name).write_bytes(b"torn")
    (tmp_path / "notes.txt").write_text("the user's")
    assert same(load_checkpoint(tmp_path), OLD)
    save_checkpoint(tmp_path, *NEW)
    assert len(names(tmp_path)) == 3
    assert "notes.txt" in names(tmp_path)


def test_a_flipped_bit_in_the_tensors_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *OLD)
    path = next(tmp_path.glob("tensors-*"))
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=rf"{path.name}: content differs .* remove"):
            load_checkpoint(tmp_path)


def test_cut_or_missing_tensors_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *OLD)
    path = next(tmp_path.glob("tensors-*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="content differs"):
        load_checkpoint(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"damaged checkpoint \(.*No such file"):
        load_checkpoint(tmp_path)


def test_a_state_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *OLD)
    path = tmp_path / STATE
    whole = path.read_text()
    for length in range(len(whole)):
        path.write_text(whole[:length])
        with pytest.raises(CheckpointError, match=r"state\.json: damaged .* remove"):
            load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": 5},
        {"tensors": ""},
        {"sha256": None},
        {"state": None},
        {"state": [1]},
    ],
    ids=str,
)
def test_a_state_file_with_a_wrong_value_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    save_checkpoint(tmp_path, *OLD)
    path = tmp_path / STATE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="remove"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"null", b"[]", b"{}", b"\xff\xfe\x00\x80"])
def test_a_state_file_of_other_content_is_refused(tmp_path: Path, content: bytes) -> None:
    save_checkpoint(tmp_path, *OLD)
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)


def test_a_file_written_at_once_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        (tmp_path / "plain").write_text("x")
        write_atomic(tmp_path / "atomic", "x")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o640}


@pytest.mark.parametrize("content", ["é\n", b"\x00\xff", ""])
def test_a_file_written_at_once_holds_what_it_was_given(
    tmp_path: Path, content: str | bytes
) -> None:
    path = tmp_path / "file"
    path.write_text("longer than what follows")
    write_atomic(path, content)
    raw = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == raw
    assert names(tmp_path) == {"file"}


def test_a_write_into_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "absent" / "file", "x")
