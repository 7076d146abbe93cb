from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import seqnorm
from data_tools.errors import InputError
from federated.policy import norm_tensors, register_norm
from federated.policy import roles as module_roles

FULL = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "mean",
    "running_var": "variance",
    "num_batches_tracked": "counter",
}
AFFINE = {"weight": "gamma", "bias": "beta"}
Build = Callable[[], nn.Module]

LAYERS: dict[str, tuple[Build, dict[str, str], bool]] = {
    "torch batch 1d": (lambda: nn.BatchNorm1d(4), FULL, True),
    "torch batch 2d": (lambda: nn.BatchNorm2d(4), FULL, True),
    "torch batch 3d": (lambda: nn.BatchNorm3d(4), FULL, True),
    "torch sync": (lambda: nn.SyncBatchNorm(4), FULL, True),
    "torch instance": (
        lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
        FULL,
        False,
    ),
    "torch instance, plain": (lambda: nn.InstanceNorm2d(4), {}, False),
    "torch layer": (lambda: nn.LayerNorm(4), AFFINE, False),
    "torch group": (lambda: nn.GroupNorm(2, 4), AFFINE, False),
    "torch rms": (lambda: nn.RMSNorm(4), {"weight": "gamma"}, False),
    "torch local response": (lambda: nn.LocalResponseNorm(2), {}, False),
    "batch": (lambda: seqnorm.BatchNorm1d(4), FULL, True),
    "batch, no statistics": (
        lambda: seqnorm.BatchNorm1d(4, track_running_stats=False),
        AFFINE,
        True,
    ),
    "sync": (lambda: seqnorm.SyncBatchNorm(4), FULL, True),
    "ghost": (lambda: seqnorm.GhostBatchNorm1d(4, ghost_size=2), FULL, True),
    "renorm": (lambda: seqnorm.BatchRenorm1d(4), FULL, True),
    "frozen": (lambda: seqnorm.freeze(nn.BatchNorm1d(4)), FULL, True),
    "domain": (
        lambda: seqnorm.DomainBatchNorm1d(4, 2),
        {f"domains.{d}.{name}": role for d in (0, 1) for name, role in FULL.items()},
        True,
    ),
    "domain, shared": (
        lambda: seqnorm.DomainBatchNorm1d(4, 1, share_affine=True),
        AFFINE | {f"domains.0.{name}": FULL[name] for name in list(FULL)[2:]},
        True,
    ),
    "instance": (lambda: seqnorm.InstanceNorm1d(4, affine=True), AFFINE, False),
    "group": (lambda: seqnorm.GroupNorm(2, 4), AFFINE, False),
    "layer": (lambda: seqnorm.LayerNorm(4), AFFINE, False),
    "rms": (lambda: seqnorm.RMSNorm(4), {"weight": "gamma"}, False),
    "response": (
        lambda: seqnorm.FilterResponseNorm1d(4, learn_eps=True),
        AFFINE | {"tau": "beta", "learned_eps": "gamma"},
        False,
    ),
    "tanh": (lambda: seqnorm.DynamicTanh(4), AFFINE | {"alpha": "gamma"}, False),
    "qk": (lambda: seqnorm.QKNorm(4), {"query_weight": "gamma", "key_weight": "gamma"}, False),
    "qk l2": (lambda: seqnorm.QKNorm(4, kind="l2"), {"scale": "gamma"}, False),
    "film": (lambda: seqnorm.FiLM(4, 3, norm="group:2"), {}, False),
    "film over batch": (
        lambda: seqnorm.FiLM(4, 3, norm="batch"),
        {f"norm.{name}": FULL[name] for name in list(FULL)[2:]},
        True,
    ),
    "adain": (lambda: seqnorm.AdaIN(), {}, False),
    "standardized filters": (lambda: seqnorm.WSConv1d(4, 8, 3), {}, False),
    "background": (lambda: seqnorm.BackgroundNorm(torch.randn(8, 4, 5)), AFFINE, False),
    "none": (lambda: seqnorm.NoNorm(), {}, False),
    "linear": (lambda: nn.Linear(4, 4), {}, False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_tensor_of_a_norm_layer_has_its_role(name: str) -> None:
    build, roles, batch = LAYERS[name]
    layer = build()
    found = norm_tensors(layer)
    assert {key: tensor.role for key, tensor in found.items()} == roles
    assert all(tensor.batch == batch for tensor in found.values())
    assert list(found) == [key for key in layer.state_dict() if key in roles]


def test_every_layer_of_the_library_is_in_this_test() -> None:
    tested = {type(build()) for build, _, _ in LAYERS.values()}
    modules = {getattr(seqnorm, name) for name in seqnorm.layers.__all__}
    assert {kind for kind in modules if isinstance(kind, type)} <= tested


def test_layers_are_found_by_type_whatever_they_are_called() -> None:
    model = nn.ModuleDict(
        {"bn": nn.Linear(2, 2), "conv": nn.BatchNorm1d(2), "x": nn.Sequential(nn.LayerNorm(2))}
    )
    found = norm_tensors(model)
    assert {tensor.module for tensor in found.values()} == {"conv", "x.0"}
    assert found["x.0.weight"].type == "LayerNorm"


def test_what_a_parametrization_holds_has_the_role_of_what_it_makes() -> None:
    layer = parametrizations.weight_norm(nn.LayerNorm(4))
    found = norm_tensors(nn.Sequential(layer))
    assert {key: (tensor.role, tensor.type) for key, tensor in found.items()} == {
        "0.bias": ("beta", "LayerNorm"),
        "0.parametrizations.weight.original0": ("gamma", "LayerNorm"),
        "0.parametrizations.weight.original1": ("gamma", "LayerNorm"),
    }


def test_a_shared_layer_is_listed_at_each_of_its_places() -> None:
    norm = nn.LayerNorm(2)
    found = norm_tensors(nn.Sequential(norm, nn.Linear(2, 2), norm))
    assert list(found) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_names_are_those_of_the_state_dict_also_of_a_wrapped_model() -> None:
    model = nn.Sequential(nn.Conv1d(4, 2, 3), nn.BatchNorm1d(2))
    wrapped = torch.compile(model)
    assert isinstance(wrapped, nn.Module)
    prefixed = {f"_orig_mod.{name}" for name in norm_tensors(model)}
    assert set(norm_tensors(wrapped)) == prefixed <= set(wrapped.state_dict())
    holder = nn.Module()
    holder.module = model  # as DistributedDataParallel does
    assert set(norm_tensors(holder)) == {f"module.{name}" for name in norm_tensors(model)}


class Scaled(nn.BatchNorm1d):
    """A user's BatchNorm with a tensor more."""

    def __init__(self) -> None:
        super().__init__(2)
        self.gain = nn.Parameter(torch.ones(2))


class Centred(nn.Module):
    """A user's own norm."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(2))
        self.extra = nn.Parameter(torch.ones(2))


def test_a_tensor_of_unknown_role_is_refused_until_it_is_registered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module_roles, "_KNOWN", dict(module_roles._KNOWN))
    monkeypatch.setattr(module_roles, "_BATCH", set(module_roles._BATCH))
    with pytest.raises(InputError, match=r"0\.gain: the role .*register_norm\(Scaled, \{'gain'"):
        norm_tensors(nn.Sequential(Scaled()))
    register_norm(Scaled, {"gain": "gamma"})
    found = norm_tensors(Scaled())
    assert {key: tensor.role for key, tensor in found.items()} == {**FULL, "gain": "gamma"}
    assert norm_tensors(Centred()) == {}
    register_norm(Centred, {"offset": "mean", "extra": None}, batch=True)
    assert norm_tensors(Centred()) == {"offset": ("", "Centred", "mean", True)}


def test_a_wrong_registration_is_refused() -> None:
    with pytest.raises(InputError, match="no role 'scale'"):
        register_norm(Scaled, {"gain": "scale"})  # type: ignore[dict-item]
    for kind in (nn.Module, int, Scaled()):
        with pytest.raises(InputError, match="a subclass of"):
            register_norm(kind, {})  # type: ignore[arg-type]


def test_a_layer_without_shapes_is_named() -> None:
    lazy = nn.Sequential(nn.LazyBatchNorm1d())
    with pytest.raises(InputError, match=r"0\.weight has no shape .* call the model once"):
        norm_tensors(lazy)
