import hashlib
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.batches import one_hot
from seqnorm.composition import BackgroundNorm
from seqnorm.kinds import NORM_KINDS, PLACES
from seqnorm.layers import LayerNorm, NoNorm
from seqnorm.layers.base import SequenceNorm
from seqnorm.models import ReverseComplementAverage, build_model, reverse_complement
from seqnorm.models.pooling import POOLINGS

SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"channels": 16, "kernel_size": 5, "blocks": 3, "pool": 2},
    "residual": {"channels": 16, "kernel_size": 5, "blocks": 2},
    "transformer": {"width": 16, "heads": 2, "kernel_size": 5, "pool": 3, "depth": 1},
}
NORMS = [
    *(f"{kind}@{place}" for kind in NORM_KINDS for place in PLACES if kind != "group:8"),
    *(f"group:8@{place}" for place in PLACES if place != "input"),
    "group:2@input",
    "background@first",
]
EACH_MODEL = pytest.mark.parametrize("name", SMALL)
EACH_NORM = pytest.mark.parametrize("norm", NORMS)
LENGTHS = torch.tensor([40, 13, 27])


def small(name: str, norm: str, **options: Any) -> ReverseComplementAverage:
    return build_model(name, norm, 4, **{**SMALL[name], **options})


def allowed(name: str, norm: str, pooling: str) -> bool:
    """Whether the pair leaves something of a sequence."""
    nothing = norm in ("instance@every", "instance@head") and pooling == "mean"
    return not (name == "transformer" and nothing)


def batch(lengths: Tensor = LENGTHS, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Sequences with some unknown bases; NaN is their padding."""
    generator = torch.Generator().manual_seed(seed)
    size = int(lengths.max())
    bases = torch.randint(0, 40, (len(lengths), size), generator=generator)
    x = one_hot(torch.where(bases < 39, bases % 4, 4), dtype)
    return x.masked_fill((torch.arange(size) >= lengths[:, None])[:, None], torch.nan)


# --- where norms stand ---------------------------------------------------------------------

SPOTS = {
    "cnn": {
        "input": ["input_norm"],
        "first": ["norms.0"],
        "every": ["norms.0", "norms.1", "norms.2"],
        "head": ["norms.2"],
    },
    "residual": {
        "input": ["input_norm"],
        "first": ["stem_norm"],
        "every": ["stem_norm", "norms.0", "norms.1", "final_norm"],
        "head": ["final_norm"],
    },
    "transformer": {
        "input": ["input_norm"],
        "first": ["stem_norm"],
        "every": ["stem_norm", "blocks.0.attention_norm", "blocks.0.feed_norm", "final_norm"],
        "head": ["final_norm"],
    },
}


@EACH_MODEL
@pytest.mark.parametrize("place", PLACES)
def test_norms_stand_where_their_name_says_and_nowhere_else(name: str, place: str) -> None:
    model = small(name, f"layer@{place}").model
    norms = {key: norm for key, norm in model.named_modules() if isinstance(norm, SequenceNorm)}
    assert [key for key, norm in norms.items() if isinstance(norm, LayerNorm)] == SPOTS[name][place]
    others = [norm for key, norm in norms.items() if key not in SPOTS[name][place]]
    assert all(isinstance(norm, NoNorm) for norm in others)


@EACH_MODEL
@pytest.mark.parametrize("place", PLACES)
def test_norms_are_called_on_what_their_place_says(name: str, place: str) -> None:
    model = small(name, f"layer@{place}").model
    seen: list[tuple[nn.Module, Tensor]] = []
    hooked = (nn.Conv1d, LayerNorm, nn.Linear)
    for module in model.modules():
        if isinstance(module, hooked):
            module.register_forward_hook(lambda m, args, _: seen.append((m, args[0])))
    model(batch(torch.tensor([40, 40]), dtype=torch.float32))
    kinds = [type(module) for module, _ in seen]
    first = kinds.index(LayerNorm)
    assert kinds[-1] is nn.Linear
    if place == "input":
        assert first == 0
        assert seen[0][1].equal(batch(torch.tensor([40, 40]), dtype=torch.float32))
    else:
        assert kinds[0] is nn.Conv1d
    if place in ("first", "every"):
        assert kinds[:2] == [nn.Conv1d, LayerNorm]
    if place == "head":
        assert kinds[-2:] == [LayerNorm, nn.Linear]
    assert kinds.count(LayerNorm) == (len(SPOTS[name]["every"]) if place == "every" else 1)


def test_a_single_convolution_is_the_first_and_the_last() -> None:
    x = batch(dtype=torch.float32)
    models = [
        build_model("cnn", f"layer@{place}", 0, blocks=1) for place in ("first", "every", "head")
    ]
    first, every, head = (model(x, LENGTHS) for model in models)
    assert first.equal(every)
    assert first.equal(head)


@EACH_MODEL
@pytest.mark.parametrize("kind", NORM_KINDS)
def test_every_is_what_a_name_without_a_place_means_and_variants_change_nothing(
    name: str, kind: str
) -> None:
    plain = small(name, kind).eval()
    x = batch(dtype=torch.float32)
    adapted = ["batch+adapted", "batch@every+adapted"] if kind == "batch" else []
    for norm in (f"{kind}@every", f"{kind}+again", f"{kind}@every+again", *adapted):
        other = small(name, norm).eval()
        assert list(other.state_dict()) == list(plain.state_dict())
        assert other(x, LENGTHS).equal(plain(x, LENGTHS))


# --- weights -------------------------------------------------------------------------------

# Hashes of names and initial values, and the first sequence's logits, as they were before norms
# had places. A saved model is read by these names, a study repeated with these values.
RECORDED = [
    ("cnn", {}, "batch", "5ba6f50e744255be"),
    ("cnn", SMALL["cnn"], "layer", "c027b8ac43fd92f1"),
    ("transformer", {}, "batch", "4113447a5c29a60c"),
    ("transformer", {"qk_norm": True, "outputs": 2}, "rms", "5282b99336db1492"),
]


def digest(state: dict[str, Tensor]) -> str:
    hashed = hashlib.sha256()
    for key, tensor in state.items():
        hashed.update(key.encode() + tensor.numpy().tobytes())
    return hashed.hexdigest()[:16]


@pytest.mark.parametrize(("name", "options", "norm", "recorded"), RECORDED)
def test_names_and_initial_values_of_weights_are_those_recorded(
    name: str, options: dict[str, Any], norm: str, recorded: str
) -> None:
    assert digest(build_model(name, norm, 7, **options).state_dict()) == recorded


@pytest.mark.parametrize(
    ("name", "logits"), [("cnn", [-0.60116, -0.63443]), ("transformer", [-0.08389, -0.03092])]
)
def test_logits_of_the_first_weights_are_those_recorded(name: str, logits: list[float]) -> None:
    model = build_model(name, "layer", 7).eval()
    x = torch.eye(4)[(torch.arange(120) ** 2 % 7 + torch.arange(2)[:, None]) % 4].transpose(1, 2)
    y = model(x, torch.tensor([120, 75])).flatten()
    torch.testing.assert_close(y, torch.tensor(logits), rtol=1e-4, atol=1e-5)


def drawn_weights(model: ReverseComplementAverage) -> dict[str, Tensor]:
    """Everything but what norms hold; filters under the name of their convolution."""
    inside = (SequenceNorm, BackgroundNorm)
    norms = [key for key, module in model.named_modules() if isinstance(module, inside)]
    drawn = {}
    for key, tensor in model.state_dict().items():
        name = key.replace("norms.0.filters", "convs.0.weight")
        name = name.replace("stem_norm.filters", "stem.weight")
        if name != key or key.rpartition(".")[0] not in norms:
            drawn[name] = tensor
    return drawn


@EACH_MODEL
def test_other_weights_are_the_same_whatever_the_norm_and_its_place(name: str) -> None:
    reference = drawn_weights(small(name, "none"))
    bias = "model.convs.0.bias" if name == "cnn" else "model.stem.bias"
    assert bias in reference
    for norm in NORMS:
        mine = drawn_weights(small(name, norm))
        expected = reference.keys() - ({bias} if norm.startswith("background") else set())
        assert mine.keys() == expected
        assert all(tensor.equal(reference[key]) for key, tensor in mine.items()), norm


@EACH_MODEL
@EACH_NORM
def test_a_model_is_saved_and_read_back_whole(name: str, norm: str) -> None:
    model = small(name, norm, pooling="attention")
    saved = safetensors.torch.save(model.state_dict())
    other = build_model(name, norm, 5, **SMALL[name], pooling="attention")
    other.load_state_dict(safetensors.torch.load(saved))
    x = batch(dtype=torch.float32)
    assert other.eval()(x, LENGTHS).equal(model.eval()(x, LENGTHS))


# --- what every combination does ------------------------------------------------------------


@EACH_MODEL
@EACH_NORM
def test_a_padded_batch_gives_what_its_sequences_give_alone_with_every_pooling(
    name: str, norm: str
) -> None:
    x = batch()
    for pooling in POOLINGS:
        if not allowed(name, norm, pooling):
            continue
        model = small(name, norm, pooling=pooling).model.double().eval()
        with torch.no_grad():
            together = model.features(x, LENGTHS)
            alone = [model.features(x[i : i + 1, :, :n]) for i, n in enumerate(LENGTHS.tolist())]
            torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)
        assert together.std(0).max() > 1e-4


@EACH_MODEL
@EACH_NORM
def test_a_step_of_training_moves_every_weight_and_leaves_them_finite(name: str, norm: str) -> None:
    lengths = LENGTHS.clamp(min=24)
    x, y = batch(lengths, dtype=torch.float32), torch.tensor([[1.0], [0.0], [1.0]])
    for pooling in ("max_mean", "attention"):
        model = small(name, norm, pooling=pooling).train()
        before = {key: value.clone() for key, value in model.named_parameters()}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = F.binary_cross_entropy_with_logits(model(x, lengths), y)
        loss.backward()
        optimizer.step()
        for key, weight in model.named_parameters():
            assert weight.grad is not None, key
            assert weight.isfinite().all(), key
            # A norm takes away what a bias before it adds.
            assert key.endswith("bias") or not weight.equal(before[key]), key


@EACH_MODEL
@pytest.mark.parametrize("norm", ["batch@head", "instance@input", "background@first"])
def test_the_overfitted_training_set_is_learnt(name: str, norm: str) -> None:
    torch.manual_seed(0)
    x = batch(torch.full((8,), 40), dtype=torch.float32)
    y = (torch.arange(8) % 2).float()[:, None]
    model = small(name, norm, pooling="attention").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss < 0.2


@EACH_MODEL
def test_background_norm_scores_the_first_convolution(name: str) -> None:
    model = small(name, "background@first").model
    conv = nn.Conv1d(4, 16, 5, padding=2)
    norm = model.norms[0] if name == "cnn" else model.stem_norm
    assert isinstance(norm, BackgroundNorm)
    conv.weight = norm.filters
    x = batch(dtype=torch.float32)
    seen: list[Tensor] = []
    norm.register_forward_hook(lambda _module, _args, y: seen.append(y))
    model(x, LENGTHS)
    assert seen[0].equal(BackgroundNorm(conv)(x, LENGTHS))


# --- features ------------------------------------------------------------------------------


@EACH_MODEL
@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_are_the_head_of_the_features(name: str, pooling: str) -> None:
    model = small(name, "layer", pooling=pooling, outputs=3, dropout=0.5)
    x = batch(dtype=torch.float32)
    inner = model.model.eval()
    features = inner.features(x, LENGTHS)
    assert isinstance(inner.head, nn.Linear)
    assert features.shape == (3, 32 if pooling == "max_mean" else 16)
    assert inner(x, LENGTHS).equal(inner.head(features))
    if name != "transformer":  # which has dropout inside
        features = inner.train().features(x, LENGTHS)
        torch.manual_seed(1)
        logits = inner(x, LENGTHS)
        torch.manual_seed(1)
        assert logits.equal(inner.head(F.dropout(features, 0.5)))


@EACH_MODEL
def test_features_of_both_strands_are_the_same_and_in_training_those_of_the_given_one(
    name: str,
) -> None:
    model = small(name, "background@first", dropout=0.0).eval()
    x = batch(dtype=torch.float32)
    turned = reverse_complement(x, LENGTHS)
    given, other = (model.model.features(s, LENGTHS) for s in (x, turned))
    assert not given.equal(other)
    assert model.features(x, LENGTHS).equal((given + other) / 2)
    assert model.features(turned, LENGTHS).equal(model.features(x, LENGTHS))
    assert model.train().features(x, LENGTHS).equal(given)
