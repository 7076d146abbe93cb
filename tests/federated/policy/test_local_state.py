import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data_tools.errors import InputError
from federated.policy import LocalState, LocalStateError
from federated.policy import local_state as module


def state(value: float) -> dict[str, Tensor]:
    return {"n.running_mean": torch.full((3,), value), "n.num_batches_tracked": torch.tensor(4)}


def value(found: dict[str, Tensor] | None) -> float | None:
    return None if found is None else float(found["n.running_mean"][0])


def played(folder: Path, *rounds: int, keep: int = 3) -> LocalState:
    kept = LocalState(folder, keep=keep)
    for number in rounds:
        kept.save("a", number, state(number))
    return kept


def version(folder: Path, number: int) -> Path:
    return folder / "a" / f"round-{number:06d}"


def test_what_was_kept_comes_back_with_its_bits_and_types(tmp_path: Path) -> None:
    odd = {
        "nan": torch.tensor([torch.nan, -0.0, torch.inf]),
        "half": torch.randn(2, 2).half().t(),
        "count": torch.tensor(2**60),
    }
    LocalState(tmp_path).save("site.1_b-c", 1, odd)
    found = LocalState(tmp_path).load("site.1_b-c", 2)
    assert found is not None
    for name, tensor in odd.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes()


def test_clients_do_not_see_each_other(tmp_path: Path) -> None:
    kept = played(tmp_path, 1)
    kept.save("b", 1, state(9.0))
    assert (value(kept.load("a", 2)), value(kept.load("b", 2))) == (1.0, 9.0)
    assert kept.load("c", 2) is None


def test_a_round_starts_with_the_newest_state_before_it(tmp_path: Path) -> None:
    kept = played(tmp_path, 2, 5, 9)
    found = [value(kept.load("a", number)) for number in (1, 2, 3, 5, 6, 9, 10, 100)]
    assert found == [None, None, 2, 2, 5, 5, 9, 9]


def test_a_round_that_is_replayed_gets_the_bits_of_the_first_time(tmp_path: Path) -> None:
    kept = played(tmp_path, 1, 2, 3)
    again = LocalState(tmp_path)  # killed after the save of round 3, before the server's
    assert value(again.load("a", 3)) == 2
    again.save("a", 3, state(3.5))
    assert value(kept.load("a", 4)) == 3.5


def test_a_save_forgets_a_future_that_is_being_replayed(tmp_path: Path) -> None:
    kept = played(tmp_path, 1, 2, 3)
    kept.save("a", 2, state(2.5))
    assert value(kept.load("a", 9)) == 2.5


@pytest.mark.parametrize("keep", [2, 3, 5])
def test_the_last_versions_are_kept_and_no_more(tmp_path: Path, keep: int) -> None:
    kept = played(tmp_path, *range(1, 10), keep=keep)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        f"round-{number:06d}" for number in range(10 - keep, 10)
    ]
    oldest = 10 - keep
    assert value(kept.load("a", oldest + 1)) == oldest
    with pytest.raises(LocalStateError, match=r"before round \d is no longer kept; the oldest is"):
        kept.load("a", oldest)
    assert kept.load("a", 1) is None  # it had no past then


POINTS = ["save_checkpoint", "rename", "sync"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("cleanly", [True, False])
def test_a_kill_at_any_moment_leaves_the_state_of_the_round_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, cleanly: bool
) -> None:
    kept = played(tmp_path, 1, 2, keep=2)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if point == "save_checkpoint":
            patch.setattr(module, "save_checkpoint", killed)
        elif point == "rename":
            patch.setattr(Path, "rename", killed)
        else:
            patch.setattr(module, "sync_folder", killed)
        if not cleanly:  # a kill gives no time to tidy up
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            kept.save("a", 3, state(3))
    again = LocalState(tmp_path, keep=2)
    assert value(again.load("a", 3)) == 2
    assert value(again.load("a", 4)) == (3 if point == "sync" else 2)
    again.save("a", 3, state(3))
    assert value(again.load("a", 4)) == 3
    assert not [p for p in (tmp_path / "a").iterdir() if p.name.startswith(".")]


def test_a_full_disk_leaves_what_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = played(tmp_path, 1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            kept.save("a", 2, state(2))
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["round-000001"]
    assert value(kept.load("a", 2)) == 1


# --- damage ----------------------------------------------------------------------------------


def test_any_flipped_bit_is_found_and_named(tmp_path: Path) -> None:
    kept = played(tmp_path, 1)
    for path in version(tmp_path, 1).iterdir():
        whole = path.read_bytes()
        for position in range(0, len(whole), 7):
            torn = bytearray(whole)
            torn[position] ^= 16
            path.write_bytes(torn)
            if path.name == "state.json" and _harmless(whole, torn):
                continue
            with pytest.raises(LocalStateError, match=r"round-000001.* restore .* from a copy"):
                kept.load("a", 2)
        path.write_bytes(whole)
    assert value(kept.load("a", 2)) == 1


def _harmless(whole: bytes, torn: bytearray) -> bool:
    """Whether the text still says the same, e.g. in its blanks."""
    import json

    try:
        return bool(json.loads(whole) == json.loads(bytes(torn)))
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["state.json", "tensors"])
def test_a_missing_file_is_found_and_named(tmp_path: Path, name: str) -> None:
    kept = played(tmp_path, 1)
    next(p for p in version(tmp_path, 1).iterdir() if p.name.startswith(name)).unlink()
    with pytest.raises(LocalStateError, match="round-000001"):
        kept.load("a", 2)


class Bomb:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_malicious_pickle_in_its_place_is_refused_and_not_loaded(tmp_path: Path) -> None:
    import hashlib
    import json

    kept = played(tmp_path / "run", 1)
    fired = tmp_path / "fired"
    bomb = pickle.dumps(Bomb(fired))
    folder = version(tmp_path / "run", 1)
    tensors = next(folder.glob("tensors-*"))
    tensors.write_bytes(bomb)
    with pytest.raises(LocalStateError, match="content differs"):
        kept.load("a", 2)
    entry = json.loads((folder / "state.json").read_text())
    entry["sha256"] = hashlib.sha256(bomb).hexdigest()
    (folder / "state.json").write_text(json.dumps(entry))  # and its checksum with it
    with pytest.raises(LocalStateError, match="no safetensors file"):
        kept.load("a", 2)
    (folder / "state.json").write_bytes(bomb)
    with pytest.raises(LocalStateError, match="damaged"):
        kept.load("a", 2)
    assert not fired.exists()
    pickle.loads(bomb)
    assert fired.exists()


def test_the_state_of_another_client_or_round_is_refused(tmp_path: Path) -> None:
    kept = played(tmp_path, 1, 2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(LocalStateError, match="state of client 'a' of round 2, not of 'b'"):
        kept.load("b", 3)
    version(tmp_path, 2).rename(version(tmp_path, 7))
    with pytest.raises(LocalStateError, match="of round 2, not of 'a' of round 7"):
        kept.load("a", 8)


# --- arguments -------------------------------------------------------------------------------

NAMES: list[Any] = [
    "", ".", "..", "../a", "a/b", "/etc", "a\\b", ".hidden", "-x", "a\n", "a\0", "é", "a b",
    "x" * 101, None, 3, Path("a"),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: Any) -> None:
    kept = LocalState(tmp_path / "run")
    with pytest.raises(InputError, match="a name is 1 to 100 letters"):
        kept.save(name, 1, state(1))
    with pytest.raises(InputError, match="a name is 1 to 100 letters"):
        kept.load(name, 1)
    assert list(tmp_path.iterdir()) == []


def test_other_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keep must be at least 2"):
        LocalState(tmp_path, keep=1)
    for bad in (0, -1, True, 1.5):
        with pytest.raises(InputError, match="counted from 1"):
            LocalState(tmp_path).save("a", bad, state(1))  # type: ignore[arg-type]
        with pytest.raises(InputError, match="counted from 1"):
            LocalState(tmp_path).load("a", bad)  # type: ignore[arg-type]
