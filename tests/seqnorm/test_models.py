import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.batches import one_hot
from seqnorm.kinds import NORM_KINDS
from seqnorm.layers import BatchNorm1d, GroupNorm, InstanceNorm1d, LayerNorm, NoNorm, RMSNorm
from seqnorm.models import CNN, ReverseComplementAverage, build_model, reverse_complement
from seqnorm.models.padding import max_pool
from seqnorm.models.pooling import GlobalPool
from seqnorm.models.transformer import Attention, rotate

MODELS: list[Any] = [
    pytest.param("cnn", {"channels": 16, "kernel_size": 5, "blocks": 3, "pool": 2}, id="cnn"),
    pytest.param(
        "transformer", {"width": 16, "heads": 2, "kernel_size": 5, "pool": 3}, id="transformer"
    ),
    pytest.param(
        "transformer",
        {"width": 16, "heads": 2, "kernel_size": 5, "pool": 3, "qk_norm": True},
        id="transformer-qk_norm",
    ),
    pytest.param("residual", {"channels": 16, "kernel_size": 5, "blocks": 3}, id="residual"),
]
KINDS = pytest.mark.parametrize("norm", NORM_KINDS)
ALL = pytest.mark.parametrize(("name", "options"), MODELS)
NORMS = (BatchNorm1d, GroupNorm, InstanceNorm1d, LayerNorm, NoNorm, RMSNorm)

# The largest difference of logits of about 1, by the type of the whole model.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6}
LENGTHS = torch.tensor([40, 13, 27, 4, 39])


def trained(name: str, norm: str, **options: Any) -> ReverseComplementAverage:
    """A model in evaluation mode whose gains, biases and running statistics are not the first."""
    model = build_model(name, norm, seed=1, **options)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, NORMS):
                for tensor in (*module.parameters(), *module.buffers()):
                    if tensor.is_floating_point():
                        tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def batch(lengths: Tensor = LENGTHS, padding: float = 0.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = int(lengths.max())
    x = one_hot(torch.randint(0, 5, (len(lengths), size), generator=generator), torch.float64)
    padded = torch.arange(size) >= lengths[:, None]
    return x.masked_fill(padded[:, None], padding)


@KINDS
@ALL
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("padding", [0.0, math.nan, math.inf, -1e30])
def test_a_padded_batch_gives_what_its_sequences_give_one_by_one(
    name: str, options: dict[str, Any], norm: str, dtype: torch.dtype, padding: float
) -> None:
    model = trained(name, norm, **options).to(dtype)
    x = batch(padding=padding).to(dtype)
    with torch.no_grad():
        together = model(x, LENGTHS)
        alone = torch.cat([model(x[i : i + 1, :, :n]) for i, n in enumerate(LENGTHS.tolist())])
    assert alone.std() > 0.01
    torch.testing.assert_close(together, alone, rtol=0, atol=TOLERANCE[dtype])


@KINDS
@ALL
def test_padding_gets_no_gradient_and_sequences_get_theirs(
    name: str, options: dict[str, Any], norm: str
) -> None:
    model = trained(name, norm, **options).double().train()
    lengths = LENGTHS.clamp(min=12)  # InstanceNorm of a single position is its bias
    x = batch(lengths, padding=3.0).requires_grad_()
    model(x, lengths).square().sum().backward()
    assert x.grad is not None
    padded = (torch.arange(x.shape[2]) >= lengths[:, None])[:, None].expand_as(x)
    assert (x.grad[padded] == 0).all()
    assert all((row != 0).any() for row in x.grad)
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@ALL
def test_lengths_of_the_whole_batch_change_nothing(name: str, options: dict[str, Any]) -> None:
    model = trained(name, "layer", **options).double()
    x = batch(torch.tensor([30, 30]))
    with torch.no_grad():
        torch.testing.assert_close(model(x, torch.tensor([30, 30])), model(x), rtol=0, atol=1e-12)


@ALL
def test_lengths_may_lie_on_another_device_than_the_sequences(
    name: str, options: dict[str, Any]
) -> None:
    model = trained(name, "layer", **options).to("meta")
    x = torch.empty(len(LENGTHS), 4, 40, device="meta")
    assert model(x, LENGTHS).shape == (len(LENGTHS), 1)


@ALL
def test_the_number_of_outputs_is_that_asked_for(name: str, options: dict[str, Any]) -> None:
    model = trained(name, "layer", outputs=3, **options).double()
    assert model(batch(), LENGTHS).shape == (5, 3)
    assert model(batch()[:0]).shape == (0, 3)


# --- initial weights -----------------------------------------------------------------------


def drawn_weights(model: nn.Module) -> dict[str, Tensor]:
    """Everything but what normalization layers hold."""
    norms = [name for name, module in model.named_modules() if isinstance(module, NORMS)]
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.rpartition(".")[0] not in norms
    }


@ALL
def test_initial_weights_are_the_same_for_every_norm(name: str, options: dict[str, Any]) -> None:
    reference = drawn_weights(build_model(name, "none", seed=4, **options))
    assert len(reference) > 4
    for norm in NORM_KINDS:
        mine = drawn_weights(build_model(name, norm, seed=4, **options))
        assert mine.keys() == reference.keys()
        assert all(mine[key].equal(reference[key]) for key in reference), norm


@ALL
def test_initial_weights_depend_on_the_seed_alone(name: str, options: dict[str, Any]) -> None:
    first = drawn_weights(build_model(name, "batch", seed=4, **options))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    second = drawn_weights(build_model(name, "batch", seed=4, **options))
    other = drawn_weights(build_model(name, "batch", seed=5, **options))
    assert torch.get_rng_state().equal(before)
    assert all(first[key].equal(second[key]) for key in first)
    assert not any(
        first[key].equal(other[key]) for key in first if not key.endswith("_norm.weight")
    )


def test_query_key_normalization_changes_no_initial_weight() -> None:
    plain = build_model("transformer", "layer", seed=0)
    normed = build_model("transformer", "layer", seed=0, qk_norm=True)
    mine, theirs = drawn_weights(plain), drawn_weights(normed)
    assert mine.keys() == theirs.keys()
    assert all(mine[key].equal(theirs[key]) for key in mine)


# --- strands -------------------------------------------------------------------------------


@KINDS
@ALL
def test_a_sequence_and_its_reverse_complement_get_the_same_bits(
    name: str, options: dict[str, Any], norm: str
) -> None:
    model = trained(name, norm, **options)
    x = batch(padding=math.nan).float()
    with torch.no_grad():
        assert model(x, LENGTHS).equal(model(reverse_complement(x, LENGTHS), LENGTHS))
        whole = x[:1]
        assert model(whole).equal(model(reverse_complement(whole)))
        assert not model.model(whole).equal(model.model(reverse_complement(whole)))


def test_the_answer_is_the_mean_over_the_strands_and_in_training_that_of_the_given_one() -> None:
    model = trained("cnn", "layer", dropout=0.0)
    x = batch().float()[:1]
    with torch.no_grad():
        given, other = model.model(x), model.model(reverse_complement(x))
        assert model(x).equal((given + other) / 2)
        assert model.train()(x).equal(given)


def test_turning_twice_gives_the_sequence_back() -> None:
    x = batch()
    assert reverse_complement(reverse_complement(x)).equal(x)
    assert reverse_complement(reverse_complement(x, LENGTHS), LENGTHS).equal(x)


# --- parts ---------------------------------------------------------------------------------


class ConventionalCNN(CNN):
    """Convolution, norm, ReLU, dropout, pool: the order of the textbooks."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        for block, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x), lengths))
            if block < len(self.convs) - 1:
                x, lengths = max_pool(x, self.pool, lengths)
        logits: Tensor = self.head(self.pooling(x, lengths))
        return logits


@KINDS
def test_relu_and_maximum_commute(norm: str) -> None:
    model = trained("cnn", norm, channels=16, blocks=3, pool=2).model
    conventional = copy.deepcopy(model)
    conventional.__class__ = ConventionalCNN
    x = batch().float()
    with torch.no_grad():
        assert model(x).equal(conventional(x))
        assert model(x, LENGTHS).equal(conventional(x, LENGTHS))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rotary_scores_depend_on_distance_alone(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, dtype=dtype, generator=generator)
    rows = torch.ones(1, 1, 300, 1, dtype=dtype)
    scores = (rotate(rows * q) @ rotate(rows * k).transpose(-1, -2))[0, 0]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    for distance in range(-299, 300):
        line = scores.diagonal(distance)
        torch.testing.assert_close(line, line[:1].expand_as(line), rtol=0, atol=tolerance)
    assert scores[0].std() > 0.1


def test_rotation_keeps_lengths_and_leaves_the_first_position() -> None:
    x = torch.randn(2, 3, 10, 6, dtype=torch.float64)
    assert rotate(x)[:, :, 0].equal(x[:, :, 0])
    torch.testing.assert_close(rotate(x).norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(rotate(x)[:, :, 1:], x[:, :, 1:])


def test_attention_equals_the_formula() -> None:
    torch.manual_seed(0)
    layer = Attention(8, 2, qk_norm=True).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    q, k, v = (part.view(3, 5, 2, 4).transpose(1, 2) for part in layer.project(x).chunk(3, -1))
    eps = torch.finfo(torch.float64).eps
    q, k = (part * (part.square().mean(-1, keepdim=True) + eps).rsqrt() for part in (q, k))
    weights = (rotate(q) @ rotate(k).transpose(-1, -2) / 2).softmax(-1)
    expected = layer.out((weights @ v).transpose(1, 2).reshape(3, 5, 8))
    torch.testing.assert_close(layer(x, None), expected)


def test_pooled_lengths_drop_the_rest_of_each_sequence() -> None:
    x = torch.arange(1.0, 9.0).expand(3, 1, 8)
    pooled, lengths = max_pool(x, 3, torch.tensor([8, 5, 2]))
    assert pooled[:, 0].tolist() == [[3.0, 6.0], [3.0, 0.0], [0.0, 0.0]]
    assert lengths is not None
    assert lengths.tolist() == [2, 1, 0]


def test_global_pools_leave_padding_out_and_are_zero_where_nothing_is_valid() -> None:
    x = torch.tensor([[[-1.0, -3.0, math.nan]], [[math.inf, math.nan, 5.0]]])
    pooled = GlobalPool("max_mean", 1)(x, torch.tensor([2, 0]))
    assert pooled.tolist() == [[-1.0, -2.0], [0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_mean_of_a_long_sequence_in_half_precision_is_that_of_one_alone(
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(0)
    global_pool = GlobalPool("max_mean", 8)
    for length in (257, 2049, 20_001):
        x = (10 + torch.randn(1, 8, length, generator=generator)).to(dtype)
        padded = F.pad(x, (0, 50), value=math.nan)
        assert global_pool(padded, torch.tensor([length])).equal(global_pool(x))


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cnn", {"chanels": 8}, r"model 'cnn' has no option 'chanels'; did you mean 'channels'\?"),
        ("cnn", {"width": 8}, "no option 'width'; .*Valid: channels, kernel_size"),
        ("cnn", {"kernel_size": 4}, "kernel_size must be odd, got 4"),
        ("cnn", {"inner_kernel_size": 6}, "inner_kernel_size must be odd, got 6"),
        ("cnn", {"kernel_size": -1}, "kernel_size must be a whole number of at least 1, got -1"),
        ("cnn", {"channels": 0}, "channels must be a whole number of at least 1, got 0"),
        ("cnn", {"channels": 32.0}, r"channels must be a whole number of at least 1, got 32\.0"),
        ("cnn", {"channels": "32"}, "channels must be a whole number of at least 1, got '32'"),
        ("cnn", {"blocks": 0}, "blocks must be"),
        ("cnn", {"blocks": True}, "blocks must be a whole number of at least 1, got True"),
        ("cnn", {"pool": 0}, "pool must be"),
        ("cnn", {"outputs": 0}, "outputs must be"),
        ("cnn", {"dropout": 1.5}, r"dropout must be a probability below 1, got 1\.5"),
        ("cnn", {"dropout": math.nan}, "dropout must be a probability below 1, got nan"),
        ("cnn", {"dropout": "half"}, "dropout must be a probability below 1, got 'half'"),
        ("cnn", {"channels": 12, "norm": "group:8"}, "group:8' does not divide 12 channels"),
        ("cnn", {"norm": "bacth"}, "did you mean 'batch'"),
        ("cnnn", {}, "model 'cnnn' does not exist; choose one of cnn, residual, transformer"),
        ("cnn", {"pooling": "avg"}, "no pooling 'avg'; Valid: max_mean, max, mean, attention"),
        ("cnn", {"pooling": 2}, "no pooling 2; "),
        ("cnn", {"norm": "layer@frist"}, "norm 'layer@frist': no '@frist'; did you mean '@first'"),
        ("cnn", {"norm": "group:8@input"}, "'group:8' does not divide 4 channels; .* 1, 2, 4"),
        ("cnn", {"norm": "background"}, "stands nowhere else; write 'background@first'"),
        ("cnn", {"norm": "background@input"}, "stands nowhere else; write 'background@first'"),
        ("residual", {"pool": 4}, "model 'residual' has no option 'pool'"),
        ("residual", {"blocks": 0}, "blocks must be"),
        ("residual", {"inner_kernel_size": 2}, "inner_kernel_size must be odd, got 2"),
        ("residual", {"dropout": 1}, "dropout must be a probability below 1, got 1"),
        ("residual", {"channels": 12, "norm": "group:8@head"}, "does not divide 12 channels"),
        ("transformer", {"heads": 0}, "heads must be a whole number of at least 1, got 0"),
        ("transformer", {"heads": 3}, "multiple of twice the heads, got width 64 and 3 heads"),
        ("transformer", {"width": 6, "heads": 2}, "got width 6 and 2 heads"),
        ("transformer", {"norm": "instance", "pooling": "mean"}, "'mean' leaves nothing of a seq"),
        ("transformer", {"norm": "group:64@head", "pooling": "mean"}, "put the norm @input or"),
        ("transformer", {"depth": 0}, "depth must be"),
        ("transformer", {"kernel_size": 8}, "kernel_size must be odd"),
        ("transformer", {"pool": -2}, "pool must be"),
        ("transformer", {"qk_norm": "false"}, "qk_norm must be true or false, got 'false'"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_refused_by_name(
    name: str, options: dict[str, Any], said: str
) -> None:
    norm = options.pop("norm", "layer")
    with pytest.raises(ValueError, match=said):
        build_model(name, norm, 0, **options)


@ALL
@pytest.mark.parametrize(
    ("shape", "lengths", "said"),
    [
        ((2, 40, 4), None, r"shape \(N, 4, L\), got \(2, 40, 4\)"),
        ((4, 40), None, r"shape \(N, 4, L\), got \(4, 40\)"),
        ((2, 4, 0), None, "sequences have 0 bases"),
        ((2, 4, 40), torch.tensor([40, 0]), "sequence 1 has 0 bases, the model needs at least"),
        ((2, 4, 40), torch.tensor([0, 40]), "sequence 0 has 0 bases"),
        ((2, 4, 40), torch.tensor([40, 41]), r"lengths\[1\] = 41 is outside 0\.\.40"),
        ((2, 4, 40), torch.tensor([40, -1]), r"lengths\[1\] = -1 is outside"),
        ((2, 4, 40), torch.tensor([40]), r"must have shape \(2,\)"),
        ((2, 4, 40), torch.tensor([40.0, 30.0]), "integers"),
        ((2, 4, 40), torch.ones(2, 40, dtype=torch.bool), "not a mask"),
        ((2, 4, 40), [40, 30], "must be a tensor"),
    ],
    ids=str,
)
def test_sequences_without_an_answer_are_refused(
    name: str, options: dict[str, Any], shape: tuple[int, ...], lengths: Any, said: str
) -> None:
    model = trained(name, "layer", **options)
    with pytest.raises(ValueError, match=said):
        model(torch.zeros(shape), lengths)


@ALL
def test_the_shortest_sequence_that_is_taken_gives_an_answer(
    name: str, options: dict[str, Any]
) -> None:
    model = trained(name, "layer", **options)
    shortest = options.get("pool", 1) ** (options.get("blocks", 2) - 1)
    assert model(torch.zeros(1, 4, shortest)).isfinite().all()
    with pytest.raises(ValueError, match=f"at least {shortest};"):
        model(torch.zeros(1, 4, shortest - 1))
    if shortest > 1:
        with pytest.raises(
            ValueError, match=f"sequence 1 has {shortest - 1} bases, .* {shortest};"
        ):
            model(torch.zeros(2, 4, 40), torch.tensor([40, shortest - 1]))
