"""Models come back from disk as they were, or with one line that says what is wrong."""

import json
import multiprocessing
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import seqnorm
from data_tools.errors import InputError
from seqnorm import saved
from seqnorm.models import ReverseComplementAverage, build_model
from seqnorm.saved import load_model, read_saved, save_model

BUILT: list[tuple[str, str, dict[str, Any]]] = [
    ("cnn", "batch", {"channels": 8, "pool": 2}),
    ("cnn", "group:4", {"channels": 8, "outputs": 3}),
    ("cnn", "none", {"channels": 8, "blocks": 1}),
    ("transformer", "layer", {"width": 16, "depth": 1, "heads": 2, "qk_norm": True}),
]


def put(folder: Path, seed: int = 1, **about: Any) -> ReverseComplementAverage:
    model = build_model("cnn", "batch", seed=seed, channels=8)
    save_model(folder, model, name="cnn", norm="batch", options={"channels": 8}, seed=seed, **about)
    return model


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(("name", "norm", "options"), BUILT)
def test_what_is_loaded_gives_the_bits_of_what_was_saved(
    tmp_path: Path, name: str, norm: str, options: dict[str, Any]
) -> None:
    model = build_model(name, norm, seed=3, **options)
    x = torch.randn(16, 4, 64)
    model.train()(x)  # running statistics move
    save_model(tmp_path, model, name=name, norm=norm, options=options, seed=3)
    loaded = seqnorm.load_model(tmp_path)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(x), model.eval()(x))


def test_the_json_tells_what_was_told(tmp_path: Path) -> None:
    put(tmp_path, width=250, threshold=1.5, outputs=["CTCF"], trial="a-b", note={"why": [1, None]})
    found = read_saved(tmp_path)
    assert (found.width, found.threshold, found.outputs) == (250, 1.5, ("CTCF",))
    assert found.about == {"trial": "a-b", "note": {"why": [1, None]}}
    assert found.versions["seqnorm"] == seqnorm.__version__
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["", "model.json", "model.safetensors"])
def test_the_folder_or_either_file_names_a_model(tmp_path: Path, name: str) -> None:
    model = put(tmp_path)
    assert torch.equal(load_model(tmp_path / name).model.head.weight, model.model.head.weight)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "not of a model that seqnorm has saved"),
        ({"format_version": 2}, "newer version of seqnorm"),
        ({"format_version": None}, "newer version of seqnorm"),
        ({"sha256": "0" * 64}, "not the weights that model.json"),
        ({"sha256": "../../x"}, "no checksum"),
        ({"name": "rnn"}, "'rnn' does not exist"),
        ({"name": ["cnn"]}, "'name' cannot be"),
        ({"norm": "layer"}, "does not describe the weights"),
        ({"norm": "bacth"}, "did you mean 'batch'"),
        ({"options": {"channels": 16}}, "is needed"),
        ({"options": {"chanels": 8}}, "did you mean 'channels'"),
        ({"options": {"channels": 10**9}}, "all weights are"),
        ({"options": {"channels": 8, "blocks": 10**9}}, "all weights are"),
        ({"options": {"channels": 8, "norm": "layer"}}, "norm"),
        ({"options": {"channels": "8"}}, "channels"),
        ({"seed": 2**70}, "'seed' cannot be"),
        ({"seed": True}, "'seed' cannot be"),
        ({"width": 0}, "'width' must be at least 1"),
        ({"width": "250"}, "'width' cannot be"),
        ({"threshold": float("nan")}, "finite"),
        ({"outputs": []}, "'outputs' must name"),
        ({"outputs": ["a", "b"]}, "names 2 logits, the model has another number"),
        ({"more": 1}, "'more' is unknown"),
    ],
)
def test_a_file_that_is_not_right_is_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    put(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_no_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; give the folder of a model"):
        load_model(tmp_path / "nothing")
    put(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model.safetensors: cannot be read .* belongs to"):
        load_model(tmp_path)
    for text in ("", "{", "[1]", "nul\0", "[" * 100_000):
        (tmp_path / "model.json").write_text(text)
        with pytest.raises(InputError, match=r"model.json: (damaged|is not of a model)"):
            load_model(tmp_path)
    (tmp_path / "model.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="damaged"):
        load_model(tmp_path)


@pytest.mark.parametrize("at", [0, 7, 8, 100, -1])
def test_a_bit_that_flips_in_the_weights_is_found(tmp_path: Path, at: int) -> None:
    put(tmp_path)
    raw = bytearray((tmp_path / "model.safetensors").read_bytes())
    raw[at] ^= 1
    (tmp_path / "model.safetensors").write_bytes(raw)
    with pytest.raises(InputError, match="damaged, or not the weights"):
        load_model(tmp_path)


def test_weights_of_other_names_or_types_are_refused_whatever_the_checksum(tmp_path: Path) -> None:
    import hashlib

    state = put(tmp_path).state_dict()
    file = tmp_path / "model.safetensors"
    first = next(iter(state))
    for other in (
        {**state, first: state[first].double()},
        {**state, "more": torch.zeros(1)},
        {name: value for name, value in state.items() if name != first},
    ):
        save_file({name: value.contiguous() for name, value in other.items()}, file)
        edit(tmp_path, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
        with pytest.raises(InputError, match="does not describe the weights beside it"):
            load_model(tmp_path)
    file.write_bytes(b"no safetensors at all")
    edit(tmp_path, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(InputError, match="no safetensors"):
        load_model(tmp_path)


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    model = build_model("cnn", "batch", seed=1, channels=8)
    right: dict[str, Any] = {"name": "cnn", "norm": "batch", "options": {"channels": 8}, "seed": 1}
    for wrong, said in (
        ({"norm": "layer"}, "do not build the model"),
        ({"options": {}}, "do not build the model"),
        ({"outputs": ["a", "b"]}, "has 1 outputs"),
        ({"width": 0}, "'width' must be"),
        ({"seed": -1}, "'seed' cannot be"),
        ({"threshold": float("inf")}, "finite"),
        ({"note": {1, 2}}, "JSON can hold"),
    ):
        with pytest.raises(ValueError, match=said):
            save_model(tmp_path, model, **right | wrong)
    with pytest.raises(ValueError, match="float64"):
        save_model(tmp_path, model.double(), **right)
    assert not list(tmp_path.iterdir())


def _save_and_die(folder: Path, calls: int) -> None:
    """Save over a model; the process ends in the middle, before that call that renames."""
    left = calls
    for owner in (saved, Path):
        name = "write_atomic" if owner is saved else "replace"
        real = getattr(owner, name)

        def counted(*args: Any, _real: Any = real) -> Any:
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            return _real(*args)

        setattr(owner, name, counted)
    put(folder, seed=2)


@pytest.mark.parametrize("calls", range(5))
def test_a_kill_in_the_middle_of_saving_leaves_the_old_model_or_the_new(
    tmp_path: Path, calls: int
) -> None:
    weights = {
        seed: build_model("cnn", "batch", seed=seed, channels=8).model.head.weight
        for seed in (1, 2)
    }
    put(tmp_path, seed=1)
    process = multiprocessing.get_context("fork").Process(
        target=_save_and_die, args=(tmp_path, calls)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    found = read_saved(tmp_path).seed
    assert torch.equal(load_model(tmp_path).model.head.weight, weights[found])
    put(tmp_path, seed=2)  # and saving again mends all
    assert torch.equal(load_model(tmp_path).model.head.weight, weights[2])
    names = {file.name for file in tmp_path.iterdir() if not file.name.startswith(".")}
    assert names == {"model.json", "model.safetensors"}
