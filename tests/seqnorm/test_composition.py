"""BackgroundNorm against enumeration of all words, simulated DNA, and what every layer promises."""

import copy
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from seqnorm import BackgroundNorm, LayerNorm, background_moments, background_zscore
from seqnorm.composition import background_of

Array = NDArray[np.float64]
EPS = 1e-5
LENGTHS = torch.tensor([30, 17, 3, 0])
# Every way in which a score can come about: options, and whether bases may be unknown.
WAYS: dict[str, dict[str, Any]] = {
    "bases": {},
    "chain": {"order": 1},
    "chain-pseudocount": {"order": 1, "pseudocount": 2.5},
    "window": {"window": 9},
}
WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
PADDED = pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def one_hot(codes: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    """``(..., L)`` codes, negative where unknown, to ``(..., 4, L)``."""
    letters = torch.as_tensor(codes)[..., None, :]
    return (letters == torch.arange(4)[:, None]).to(dtype)


def random_dna(n: int, length: int, p: Any = (0.25, 0.25, 0.25, 0.25)) -> Tensor:
    """Codes ``(n, length)`` of independent bases."""
    weights = torch.as_tensor(p, dtype=torch.float64)
    return torch.multinomial(weights.expand(n, 4), length, replacement=True)


def random_chain(n: int, length: int, frequencies: Array, transitions: Array) -> Tensor:
    """Codes ``(n, length)`` of a Markov chain that starts in its stationary state."""
    rng = np.random.default_rng(0)
    codes = np.empty((n, length), dtype=np.int64)
    codes[:, 0] = rng.choice(4, n, p=frequencies)
    steps = transitions.cumsum(1)
    for i in range(1, length):
        codes[:, i] = (rng.random(n)[:, None] > steps[codes[:, i - 1], :3]).sum(1)
    return torch.from_numpy(codes)


def stationary(transitions: Array) -> Array:
    """Left eigenvector of a chain in which every base follows every base."""
    system = np.vstack([transitions.T - np.eye(4), np.ones(4)])
    found: Array = np.linalg.lstsq(system, np.array([0.0, 0, 0, 0, 1]), rcond=None)[0]
    return found


def cpg_poor(share: float = 0.2) -> tuple[Array, Array]:
    """Frequencies and transitions of DNA in which CpG has a share of what it would have."""
    transitions = np.full((4, 4), 0.25)
    transitions[1] = [(1 - share / 4) / 3] * 4
    transitions[1, 2] = share / 4
    return stationary(transitions), transitions


def enumerated(
    w: Array, f: Array, transitions: Array | None, known: list[bool], dilation: int = 1
) -> tuple[float, float]:
    """Mean and variance of a filter ``(4, K)``, over all words, by their probabilities."""
    span = dilation * (w.shape[1] - 1) + 1
    words = np.array(list(itertools.product(range(4), repeat=span)))
    chain = np.tile(f, (4, 1)) if transitions is None else transitions
    p = f[words[:, 0]]
    for before, after in itertools.pairwise(words.T):
        p = p * chain[before, after]
    response = np.zeros(len(words))
    for k, seen in enumerate(known):
        response += seen * w[words[:, k * dilation], k]
    mean = p @ response
    return mean, p @ (response - mean) ** 2


def counted(codes: list[int]) -> Array:
    """Frequencies of known bases."""
    count = np.array([codes.count(base) for base in range(4)], dtype=np.float64)
    return count / max(count.sum(), 1)


def followed(codes: list[int], pseudocount: float = 0.0) -> Array:
    """Transitions: ends of runs are joined with starts, each with each."""
    f, n = counted(codes), sum(code >= 0 for code in codes)
    closed = pseudocount * np.outer(f, f)
    runs = [list(run) for known, run in itertools.groupby(codes, lambda c: c >= 0) if known]
    for run in runs:
        for a, b in itertools.pairwise(run):
            closed[a, b] += 1
    for first, last in itertools.product(runs, runs):
        closed[first[-1], last[0]] += 1 / len(runs)
    assert closed.sum() == pytest.approx(n + (pseudocount if n else 0))
    total = closed.sum(1, keepdims=True)
    return closed / np.where(total > 0, total, 1)


def oracle(
    codes: list[int],
    weight: Array,
    *,
    order: int = 0,
    window: int | None = None,
    pseudocount: float = 0.0,
    left: int,
    right: int,
    stride: int = 1,
    dilation: int = 1,
) -> Array:
    """Scores ``(O, P)`` of one sequence, each from its definition."""
    filters, _, size = weight.shape
    span = dilation * (size - 1) + 1
    row = [-1] * left + codes + [-1] * right
    found = []
    for start in range(0, len(row) - span + 1, stride):
        word = row[start : start + span : dilation]
        near = codes
        if window is not None:
            low = start - left + (span - 1) // 2 - (window - 1) // 2
            near = codes[max(low, 0) : max(low + window, 0)]
        f = counted(near)
        chain = followed(near, pseudocount) if order else None
        for o in range(filters):
            known = [base >= 0 for base in word]
            response = sum(weight[o, base, k] for k, base in enumerate(word) if base >= 0)
            mean, var = enumerated(weight[o], f, chain, known, dilation)
            found.append((response - mean) / math.sqrt(var + EPS))
    return np.array(found).reshape(-1, filters).T


def same(size: int, dilation: int = 1) -> dict[str, int]:
    total = dilation * (size - 1)
    return {"left": total // 2, "right": total - total // 2}


def build(way: dict[str, Any], filters: int = 3, size: int = 5, **options: Any) -> BackgroundNorm:
    """A layer none of whose parameters is at its default."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layer = BackgroundNorm(nn.Parameter(torch.randn(filters, 4, size)), **way, **options)
        with torch.no_grad():
            for p in (layer.weight, layer.bias):
                if p is not None:
                    p.add_(torch.rand(p.shape))
    return layer


def wider(way: dict[str, Any], window: int) -> dict[str, Any]:
    """The same with a window, if there is one, of this many bases."""
    return way | {"window": window} if "window" in way else way


def pooled(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean square by filter of ``(N, O, P)``, its standard error over sequences, and the mean."""
    squares = z.square().mean(2)
    return squares.mean(0), squares.std(0) / math.sqrt(len(z)), z.mean((0, 2))


# --- exact moments -------------------------------------------------------------------------

shares = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any)


@given(
    counts=shares, size=st.integers(1, 4), dilation=st.integers(1, 2), seed=st.integers(0, 999),
    known=st.lists(st.booleans(), min_size=4, max_size=4),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_moments_of_independent_bases_are_those_of_all_words(
    counts: list[int], size: int, dilation: int, seed: int, known: list[bool]
) -> None:
    assume(dilation * (size - 1) < 6)
    w = np.random.default_rng(seed).normal(size=(2, 4, size)) * 3
    f = np.array(counts) / sum(counts)
    pattern = known[:size]
    columns = torch.tensor([pattern, [True] * size]).T
    weight, bases = torch.from_numpy(w), torch.from_numpy(f)
    mean, var = background_moments(weight, bases, known=columns, dilation=dilation)
    whole = background_moments(weight, bases)
    for o in range(2):
        for column, seen in enumerate((pattern, [True] * size)):
            expected = enumerated(w[o], f, None, seen)
            found = (mean[o, column].item(), var[o, column].item())
            assert found == pytest.approx(expected, rel=1e-11, abs=1e-11)
        assert (whole[0][o].item(), whole[1][o].item()) == pytest.approx(expected, rel=1e-11)


@given(
    size=st.integers(1, 5), dilation=st.integers(1, 2), seed=st.integers(0, 999),
    sparse=st.booleans(), known=st.lists(st.booleans(), min_size=5, max_size=5),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_moments_of_a_chain_are_those_of_all_words(
    size: int, dilation: int, seed: int, sparse: bool, known: list[bool]
) -> None:
    assume(dilation * (size - 1) < 6)
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(2, 4, size)) * 3
    # Far from independent: rows with one or two likely successors.
    transitions = rng.dirichlet([0.05 if sparse else 1.0] * 4, 4) * 0.999 + 0.00025
    f = stationary(transitions)
    pattern = known[:size]
    columns = torch.tensor([pattern, [True] * size]).T
    given_ = [torch.from_numpy(a) for a in (w, f, transitions)]
    mean, var = background_moments(*given_, known=columns, dilation=dilation)
    whole = background_moments(*given_, dilation=dilation)
    for o in range(2):
        for column, seen in enumerate((pattern, [True] * size)):
            expected = enumerated(w[o], f, transitions, seen, dilation)
            found = (mean[o, column].item(), var[o, column].item())
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
        assert (whole[0][o].item(), whole[1][o].item()) == pytest.approx(expected, rel=1e-9)


def test_a_chain_of_independent_bases_has_the_moments_of_independent_bases() -> None:
    weight = torch.randn(3, 4, 19, dtype=torch.float64)
    f = torch.tensor([[0.4, 0.1, 0.2, 0.3], [0.7, 0.0, 0.1, 0.2]], dtype=torch.float64)
    known = (torch.rand(2, 19, 6) > 0.3).double()
    chained = background_moments(weight, f, f[:, None].expand(-1, 4, -1), known=known)
    torch.testing.assert_close(chained, background_moments(weight, f, known=known))


@given(
    codes=st.lists(st.integers(-1, 3), min_size=1, max_size=30),
    pseudocount=st.sampled_from([0.0, 3.5]),
)
@settings(max_examples=60, deadline=None)
def test_frequencies_and_transitions_are_counted_and_stationary(
    codes: list[int], pseudocount: float
) -> None:
    f, transitions = background_of(one_hot([codes]), order=1, pseudocount=pseudocount)
    assert transitions is not None
    np.testing.assert_allclose(f[0], counted(codes), atol=1e-15)
    np.testing.assert_allclose(transitions[0], followed(codes, pseudocount), atol=1e-12)
    torch.testing.assert_close(f[:, None] @ transitions, f[:, None])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_background_is_of_the_valid_positions_and_counted_exactly(dtype: torch.dtype) -> None:
    codes = random_dna(2, 5000, (0.4, 0.1, 0.1, 0.4))
    x = one_hot(codes, dtype)
    x[1, :, 3000:] = torch.nan
    f, transitions = background_of(x, order=1, lengths=torch.tensor([5000, 3000]))
    assert transitions is not None
    assert f.dtype == transitions.dtype == torch.float64
    for i, n in enumerate((5000, 3000)):
        row = codes[i, :n].tolist()
        np.testing.assert_allclose(f[i], counted(row), rtol=1e-14)
        np.testing.assert_allclose(transitions[i], followed(row), rtol=1e-12)


def test_a_variance_is_never_below_0_where_bases_determine_one_another() -> None:
    # In ACAC... there are two words; where they score the same, all terms add up to nothing.
    weight = torch.randn(200, 4, 6)
    weight[:, 0, 5] += (weight[:, 1] - weight[:, 0]) @ torch.tensor([1.0, -1, 1, -1, 1, -1]) * -1
    f, transitions = torch.tensor([0.5, 0.5, 0, 0]), torch.eye(4)[[1, 0, 2, 3]]
    for known in (None, torch.ones(6, 2)):
        _, var = background_moments(weight, f, transitions, known=known)
        assert (var >= 0).all()
        assert var.max() < 1e-4


# --- scores against their definition -------------------------------------------------------


@given(
    codes=st.lists(st.integers(-1, 3), min_size=5, max_size=14), unknown=st.booleans(),
    size=st.integers(1, 4), stride=st.integers(1, 2), dilation=st.integers(1, 2),
    padding=st.sampled_from(["same", "valid", 0, 1, 3]), way=st.sampled_from(list(WAYS.values())),
    seed=st.integers(0, 99),
)  # fmt: skip
@example(
    codes=[0, 0, 3, 1, 2, -1, 2, 1, 1, 0, 3, 3, 2, 0], unknown=True, size=3, stride=2, dilation=1,
    padding=1, way=WAYS["window"], seed=0,
)  # fmt: skip
@example(
    codes=[0, 0, 3, 1, 2, 3, 2, 1, 1, 0, 3, 3, 2, 0], unknown=False, size=3, stride=2, dilation=1,
    padding=3, way=WAYS["window"], seed=0,
)  # fmt: skip
@example(
    codes=[0, 0, 3, 1, 2, 2, 2, 1, 1, 0, 3, 3, 2, 0], unknown=False, size=3, stride=1, dilation=2,
    padding='same', way=WAYS["chain"], seed=0,
)  # fmt: skip
@example(
    codes=[0, 0, 3, 1, 2, -1, 2, 1, 1, 0, 3, 3, 2, 0], unknown=True, size=4, stride=1, dilation=1,
    padding='same', way=WAYS["chain-pseudocount"], seed=0,
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_scores_are_what_their_definition_says(
    codes: list[int], unknown: bool, size: int, stride: int, dilation: int,
    padding: str | int, way: dict[str, Any], seed: int,
) -> None:  # fmt: skip
    assume(dilation * (size - 1) < 5)
    if not unknown:
        codes = [max(code, 0) for code in codes]
    stride = 1 if padding == "same" else stride
    weight = np.random.default_rng(seed).normal(size=(2, 4, size))
    ends = same(size, dilation)
    if padding != "same":
        ends = dict.fromkeys(ends, padding if isinstance(padding, int) else 0)
    expected = oracle(codes, weight, **way, **ends, stride=stride, dilation=dilation)
    conv = nn.Conv1d(4, 2, size, stride, padding, dilation, dtype=torch.float64)
    conv.weight.data = torch.from_numpy(weight)
    layer = BackgroundNorm(conv, **way)
    for asked in (False, True):  # where x has a gradient, no base is taken for granted
        z = layer(one_hot([codes]).requires_grad_(asked))[0]
        np.testing.assert_allclose(z.detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@WAY
def test_positions_taken_out_of_the_middle_are_unknown_bases(way: dict[str, Any]) -> None:
    codes = random_dna(1, 14)
    mask = torch.rand(1, 14) > 0.3
    holes = codes.masked_fill(~mask, -1)[0].tolist()
    layer = build(way, size=3, affine=False).double()
    z = layer(one_hot(codes), lengths=mask)[0].detach().numpy()
    expected = oracle(holes, layer.filters.detach().numpy(), **way, **same(3))
    expected[:, ~mask[0]] = 0
    np.testing.assert_allclose(z, expected, rtol=1e-9, atol=1e-9)


@WAY
def test_the_affine_map_and_the_activation_come_last(way: dict[str, Any]) -> None:
    codes = random_dna(3, 40)
    for x in (one_hot(codes), one_hot(codes.masked_fill(codes == codes[:, :1], -1))):
        layer = build(way).double()
        assert layer.weight is not None
        assert layer.bias is not None
        z = background_zscore(x, layer.filters, **way)
        y = z * layer.weight[:, None] + layer.bias[:, None]
        torch.testing.assert_close(layer(x), y)
        for name, act in (("relu", torch.relu), ("gelu", nn.functional.gelu)):
            torch.testing.assert_close(build(way, activation=name).double()(x), act(y))


# --- simulated DNA -------------------------------------------------------------------------


@given(
    gc=st.floats(0.01, 0.99), at_skew=st.floats(0.05, 0.95), gc_skew=st.floats(0.05, 0.95),
    window=st.sampled_from([None, 300]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_independent_bases_of_any_composition_score_mean_0_and_variance_1(
    gc: float, at_skew: float, gc_skew: float, window: int | None, seed: int
) -> None:
    torch.manual_seed(seed)
    n, length, size = 64, 800, 5
    p = [(1 - gc) * at_skew, gc * gc_skew, gc * (1 - gc_skew), (1 - gc) * (1 - at_skew)]
    x = one_hot(random_dna(n, length, p))
    weight = torch.randn(4, 4, size, dtype=torch.float64)
    z = background_zscore(x, weight, eps=1e-12, window=window)
    square, error, mean = pooled(z)
    # Given its counts such a sequence is a random order of them: covariances of taps are -1/(n - 1)
    # of those of a tap with itself, in n bases. So the mean square is within (K - 1)/(n - 1) of 1,
    # but for chance (six standard errors), and for sequences of one base, which score 0.
    silent = (z == 0).double().mean((0, 2))
    slack = (size - 1) / ((window or length) - 1)
    assert ((square + silent - 1).abs() < 6 * error + slack + silent).all()
    # Means of whole sequences differ from 0 by their ends alone; of windows, by their spread.
    assert (mean.abs() < 6 * z.mean(2).std(0) / math.sqrt(n) + 1e-3).all()


@pytest.mark.parametrize("draw", range(4))
def test_chains_score_variance_1_by_order_1(draw: int) -> None:
    rng = np.random.default_rng(draw)
    transitions = rng.dirichlet([0.5] * 4, 4) * 0.9 + 0.025
    torch.manual_seed(draw)
    n, length, size = 64, 2000, 6
    x = one_hot(random_chain(n, length, stationary(transitions), transitions))
    weight = torch.randn(4, 4, size, dtype=torch.float64)
    square, error, mean = pooled(background_zscore(x, weight, order=1))
    # Correlations reach a few bases further than the filter, hence a few times K / L.
    assert ((square - 1).abs() < 6 * error + 4 * size / length).all()
    assert (mean.abs() < 0.01).all()
    # Those of independent bases are off, for some filter at least.
    assert ((pooled(background_zscore(x, weight))[0] - 1).abs() > 0.1).any()


def test_where_cpg_is_rare_order_0_is_off_and_order_1_is_right() -> None:
    x = one_hot(random_chain(64, 1000, *cpg_poor()))
    weight = torch.zeros(2, 4, 6, dtype=torch.float64)
    weight[0, 1, 0::2] = weight[0, 2, 1::2] = 1  # CGCGCG
    weight[1, 0, 0::2] = weight[1, 3, 1::2] = 1  # ATATAT
    square, _, _ = pooled(background_zscore(x, weight))
    assert square[0] < 0.8
    assert abs(square[1] - 1) < 0.1
    square, error, _ = pooled(background_zscore(x, weight, order=1))
    assert ((square - 1).abs() < 6 * error + 24 / 1000).all()


def test_positions_at_the_ends_and_beside_unknown_bases_are_as_calibrated_as_others() -> None:
    codes = random_dna(6000, 40, (0.45, 0.05, 0.15, 0.35))
    codes[:, 20:23] = -1
    weight = torch.randn(2, 4, 7, dtype=torch.float64)
    z = background_zscore(one_hot(codes), weight)
    # 37 known bases: |mean square - 1| <= 6/36; chance: six times about sqrt(3 / 6000).
    assert ((z.square().mean(0) - 1).abs() < 6 / 36 + 0.13).all()
    assert (z.mean(0).abs() < 6 / math.sqrt(6000)).all()
    raw = nn.functional.conv1d(one_hot(codes), weight, padding=3)
    wrong = (raw - raw[..., 10:11].mean(0)) / raw[..., 10:11].std(0)
    assert ((wrong.square().mean(0) - 1).abs() > 0.4).any()


def test_scores_do_not_shift_with_gc_as_those_of_other_norms_do() -> None:
    def dna(gc: float) -> Tensor:
        p = ((1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2)
        return one_hot(random_dna(100, 1000, p), torch.float32)

    low, high = dna(0.3), dna(0.6)
    conv = nn.Conv1d(4, 16, 9, padding="same", bias=False)
    batch, layer = nn.BatchNorm1d(16, momentum=None), LayerNorm(16)
    batch(conv(low))
    batch.eval()

    def shift(f: Any) -> tuple[float, float]:
        """Largest gap of a filter's mean, in standard deviations, and of its log variance."""
        a, b = f(low), f(high)
        (va, ma), (vb, mb) = (torch.var_mean(y, (0, 2)) for y in (a, b))
        means = (ma - mb).abs() / (va + vb).div(2).sqrt()
        return means.max().item(), (va.log() - vb.log()).abs().max().item()

    for raw in (conv, lambda x: batch(conv(x)), lambda x: layer(conv(x))):
        assert shift(raw)[0] > 0.4
    for options in WAYS.values():
        mean, variance = shift(BackgroundNorm(conv, **wider(options, 400)))
        # 100,000 scores, of which one in nine is on its own: error of log variance .013 each.
        assert mean < 0.02
        assert variance < 0.1


# --- padding, batches, layouts -------------------------------------------------------------


@WAY
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("layout", ["NCL", "NLC"])
def test_padding_has_no_influence_comes_out_zero_and_gets_no_gradient(
    way: dict[str, Any], garbage: float, layout: str
) -> None:
    def turn(x: Tensor) -> Tensor:
        return x if layout == "NCL" else x.transpose(1, 2)

    pad = torch.arange(30) >= LENGTHS[:, None]
    clean = one_hot(random_dna(4, 30), torch.float32)
    found = []
    for value in (0.0, garbage):
        x = clean.masked_fill(pad[:, None], value).requires_grad_()
        layer = build(way, layout=layout, activation="gelu")
        y = turn(layer(turn(x), LENGTHS))
        assert (y.masked_select(pad[:, None]) == 0).all()
        loss = (y * torch.linspace(-1, 2, y.numel()).view(y.shape)).sum()
        loss = loss + y.masked_select(pad[:, None]).mul(garbage).nansum()
        grads = torch.autograd.grad(loss, [x, *layer.parameters()])
        assert (grads[0].masked_select(pad[:, None]) == 0).all()
        found.append([y.detach(), *grads])
        assert torch.equal(turn(layer(turn(x), ~pad)), y)
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()
    torch.testing.assert_close(found[0][0], build(way, activation="gelu")(clean, LENGTHS))


@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=4), seed=st.integers(0, 99),
    way=st.sampled_from(list(WAYS.values())), conv=st.sampled_from(
        [(5, 1, "same", 1), (4, 1, "same", 1), (5, 1, 0, 1), (5, 2, 3, 1), (3, 3, 6, 2)]
    ),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_padded_batch_equals_its_sequences_one_by_one(
    lengths: list[int], seed: int, way: dict[str, Any], conv: Any
) -> None:
    torch.manual_seed(seed)
    layer = BackgroundNorm(nn.Conv1d(4, 3, *conv, dtype=torch.float64), **way)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, 0.7)
    x = one_hot(random_dna(len(lengths), 20) - (torch.rand(len(lengths), 20) < 0.05).long() * 9)
    y = layer(x, torch.tensor(lengths))
    ends = conv[2] if conv[2] != "same" else (conv[0] - 1) / 2
    for i, n in enumerate(lengths):
        alone = 0
        if n and n + 2 * ends >= conv[3] * (conv[0] - 1) + 1:
            one = layer(x[i : i + 1, :, :n])
            alone = one.shape[2]
            torch.testing.assert_close(y[i : i + 1, :, :alone], one)
        assert (y[i, :, alone:] == 0).all()


@WAY
def test_a_sequence_has_the_same_bits_in_any_batch(way: dict[str, Any]) -> None:
    codes = random_dna(12, 60)
    codes[2:5, 30] = -1
    x = one_hot(codes, torch.float32)
    lengths = torch.tensor([60] * 8 + [41, 0, 59, 60])
    layer = build(way, filters=33)
    y = layer(x, lengths)
    for rows in ([0], [3], [8], [9], [11], [1, 0, 6], [8, 5, 2], [5, 4, 10, 11]):
        assert torch.equal(layer(x[rows], lengths[rows]), y[rows])


@WAY
def test_layouts_and_single_sequences_give_the_same_numbers(way: dict[str, Any]) -> None:
    x = one_hot(random_dna(3, 30), torch.float32)
    first, last = build(way), build(way, layout="NLC")
    y = first(x, torch.tensor([30, 20, 9]))
    assert torch.equal(last(x.mT, torch.tensor([30, 20, 9])), y.mT)
    assert torch.equal(first(x[1], torch.tensor([20])), y[1])
    assert torch.equal(last(x[1].mT, torch.tensor([20])), y[1].mT)


# --- degenerate sequences and numbers ------------------------------------------------------


@WAY
def test_sequences_without_variation_or_without_bases_score_the_bias(way: dict[str, Any]) -> None:
    layer = build(way)
    assert layer.bias is not None
    codes = torch.tensor([[0] * 30, [2] * 30, [-1] * 30, [-1] * 10 + [3] * 10 + [-1] * 10])
    for rows in (codes[:2], codes[2:], codes):
        x = one_hot(rows, torch.float32).requires_grad_()
        for given_ in (x, x.detach()):
            y = layer(given_)
            expected = layer.bias[:, None].expand_as(y)
            torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
            parameters = list(layer.parameters())
            leaves = [x, *parameters] if given_ is x else parameters
            grads = torch.autograd.grad(y.square().sum(), leaves)
            assert all(grad.isfinite().all() for grad in grads)
    assert layer(one_hot(codes[:0], torch.float32)).shape == (0, 3, 30)


@WAY
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4, 1e5])
@pytest.mark.parametrize("unknown", [False, True])
def test_the_error_does_not_grow_with_the_offset_of_a_tap(
    way: dict[str, Any], offset: float, unknown: bool
) -> None:
    codes = random_dna(4, 200, (0.48, 0.02, 0.01, 0.49))
    if unknown:
        codes[:, 100] = -1
    way = wider(way, 60)
    weight = torch.randn(6, 4, 19) + offset * torch.randn(6, 1, 19)
    exact = background_zscore(one_hot(codes), weight.double(), **way)
    z = background_zscore(one_hot(codes, torch.float32), weight, **way)
    assert (z - exact).abs().max() < 5e-5 * exact.abs().max()


@WAY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_are_computed_in_float32_and_kept(
    way: dict[str, Any], dtype: torch.dtype
) -> None:
    codes = random_dna(4, 5000)
    layer = build(way).to(dtype)
    y = layer(one_hot(codes, dtype))
    assert y.dtype == dtype
    expected = copy.deepcopy(layer).float()(one_hot(codes, torch.float32))
    assert torch.equal(y, expected.to(dtype))
    x = one_hot(codes[:, :30], dtype).requires_grad_()
    (grad,) = torch.autograd.grad(layer(x).float().square().sum(), x)
    assert grad.dtype == dtype
    assert grad.isfinite().all()


@WAY
def test_autocast_does_not_narrow_the_scores(way: dict[str, Any]) -> None:
    x = one_hot(random_dna(4, 50), torch.float32)
    x[1, :, 20] = 0
    layer = build(way)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), expected)


# --- derivatives ---------------------------------------------------------------------------


@WAY
@pytest.mark.parametrize("case", ["whole", "unknown", "padded"])
def test_derivatives_by_the_parameters_are_exact(way: dict[str, Any], case: str) -> None:
    codes = random_dna(3, 12)
    if case == "unknown":
        codes[1, 4:6] = -1
    lengths = torch.tensor([12, 7, 0]) if case == "padded" else None
    layer = build(way, filters=2, size=3, activation="gelu").double()
    names = dict(layer.named_parameters())

    def run(*values: Tensor) -> Tensor:
        given_ = dict(zip(names, values, strict=True))
        y: Tensor = torch.func.functional_call(layer, given_, (one_hot(codes), lengths))
        return y

    values = [p.detach().clone().requires_grad_() for p in names.values()]
    assert torch.autograd.gradcheck(run, values)


@WAY
@PADDED
def test_derivatives_by_mixtures_of_bases_are_exact(way: dict[str, Any], padded: bool) -> None:
    # Between one-hot sequences, where all that is estimated is smooth.
    x = torch.rand(2, 4, 10, dtype=torch.float64).add(0.1)
    x = (x / x.sum(1, keepdim=True) * torch.tensor([1, 1, 0.5, 1, 1] * 2)).requires_grad_()
    lengths = torch.tensor([10, 7]) if padded else None
    weight = torch.randn(2, 4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: background_zscore(x, weight, lengths=lengths, **way), (x,)
    )


@WAY
def test_a_detached_composition_makes_derivatives_add_up_to_the_score(way: dict[str, Any]) -> None:
    codes = random_dna(1, 40, (0.4, 0.1, 0.2, 0.3))
    x = one_hot(codes).requires_grad_()
    weight = torch.randn(1, 4, 5, dtype=torch.float64).requires_grad_()
    scores = [background_zscore(x, weight, detach_composition=d, **way) for d in (True, False)]
    assert torch.equal(*scores)
    (by_base,) = torch.autograd.grad(scores[0][0, 0, 20], x, retain_graph=True)
    torch.testing.assert_close((by_base * x).sum(), scores[0][0, 0, 20])
    near = codes[0].tolist() if "window" not in way else codes[0, 16:25].tolist()
    f = torch.from_numpy(counted(near))
    chain = followed(near, way.get("pseudocount", 0.0)) if "order" in way else None
    taps = weight[0].detach()
    _, var = enumerated(taps.numpy(), f.numpy(), chain, [True] * 5)
    expected = (taps - f @ taps) / math.sqrt(var + EPS)
    torch.testing.assert_close(by_base[0, :, 18:23], expected)
    assert (by_base[0, :, :18] == 0).all()
    grads = [torch.autograd.grad(z.pow(3).sum(), weight, retain_graph=True)[0] for z in scores]
    torch.testing.assert_close(*grads)
    (full,) = torch.autograd.grad(scores[1][0, 0, 20], x)
    assert not torch.allclose(full, by_base, atol=1e-3)


@WAY
@PADDED
def test_per_sample_gradients_by_vmap_equal_those_one_by_one(
    way: dict[str, Any], padded: bool
) -> None:
    layer = build(way)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    codes = random_dna(4, 30)
    codes[1, 3] = -1
    x = one_hot(codes, torch.float32)

    def loss(given_: dict[str, Tensor], x: Tensor, n: Tensor) -> Tensor:
        y = torch.func.functional_call(layer, given_, (x[None], n[None] if padded else None))
        return (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum()

    one_by_one = torch.func.grad(loss, argnums=(0, 1))
    got = torch.func.vmap(one_by_one, in_dims=(None, 0, 0))(parameters, x, LENGTHS)
    for i in range(4):
        arguments = (parameters, x[i], LENGTHS[i])
        for source in (by_autograd(loss, *arguments), one_by_one(*arguments)):
            torch.testing.assert_close(got[1][i], source[1], rtol=1e-4, atol=1e-4)
            for name in parameters:
                torch.testing.assert_close(got[0][name][i], source[0][name], rtol=1e-4, atol=1e-4)


def by_autograd(loss: Any, parameters: dict[str, Tensor], x: Tensor, n: Tensor) -> Any:
    """The same derivatives by autograd; those of the parameters without one of x."""
    leaves = {name: p.clone().requires_grad_() for name, p in parameters.items()}
    by_parameter = torch.autograd.grad(loss(leaves, x, n), list(leaves.values()))
    x = x.clone().requires_grad_()
    (by_x,) = torch.autograd.grad(loss(parameters, x, n), x)
    return dict(zip(leaves, by_parameter, strict=True)), by_x


# --- compilation, copies, a model ----------------------------------------------------------


@WAY
def test_it_compiles_into_one_graph(way: dict[str, Any]) -> None:
    layer = build(way, activation="relu")
    twin = copy.deepcopy(layer)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for lengths in (None, LENGTHS):
        x = one_hot(random_dna(4, 30), torch.float32)
        got, expected = compiled(x, lengths), twin(x, lengths)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        got.square().sum().backward()
        expected.square().sum().backward()
    for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4)


@WAY
def test_it_exports_with_a_free_batch_size(way: dict[str, Any]) -> None:
    layer = build(way).eval()
    given_ = {"x": one_hot(random_dna(4, 30), torch.float32), "lengths": LENGTHS}
    free = {name: {0: torch.export.Dim("batch", min=2)} for name in given_}
    exported = torch.export.export(layer, (), given_, dynamic_shapes=free)
    fewer = {name: value[:3] for name, value in given_.items()}
    torch.testing.assert_close(exported.module()(**fewer), layer(**fewer), rtol=1e-5, atol=1e-5)


def test_it_survives_copying_pickling_and_a_state_dict() -> None:
    layer = build({"order": 1, "pseudocount": 1.0}, layout="NLC", activation="gelu")
    x = one_hot(random_dna(2, 30), torch.float32).mT
    assert list(layer.state_dict()) == ["filters", "weight", "bias"]
    loaded = BackgroundNorm(
        torch.zeros(3, 4, 5), order=1, pseudocount=1.0, layout="NLC", activation="gelu"
    )
    loaded.load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert torch.equal(twin(x), layer(x))
        assert repr(twin) == repr(layer)
    assert repr(layer) == (
        "BackgroundNorm(filters=(3, 4, 5), order=1, padding=same, stride=1, dilation=1, "
        "activation=gelu, layout=NLC)"
    )


def test_a_convolution_is_shared_and_its_bias_has_no_part() -> None:
    conv = nn.Conv1d(4, 6, 5, stride=2, padding=4, dilation=2)
    layer = BackgroundNorm(conv, affine=False)
    assert layer.filters is conv.weight
    assert [name for name, _ in layer.named_parameters()] == ["filters"]
    assert (layer.weight, layer.bias) == (None, None)
    x = one_hot(random_dna(2, 31), torch.float32)
    assert layer(x).shape == conv(x).shape
    motifs = torch.randn(2, 4, 7)
    assert not BackgroundNorm(motifs).filters.requires_grad
    assert BackgroundNorm(nn.Parameter(motifs)).filters.requires_grad


def test_it_is_trained_from_end_to_end() -> None:
    # Where a motif is, whatever the composition: a task that a single filter can learn.
    codes = torch.cat([random_dna(64, 60, (0.4, 0.1, 0.1, 0.4)), random_dna(64, 60)])
    label = torch.arange(128) % 2
    codes[label == 1, 20:26] = torch.tensor([3, 1, 2, 2, 0, 1])
    x = one_hot(codes, torch.float32)
    conv = nn.Conv1d(4, 8, 7, padding="same", bias=False)
    before = conv.weight.detach().clone()
    model = nn.Sequential(
        BackgroundNorm(conv, order=1, activation="relu"), nn.AdaptiveMaxPool1d(1), nn.Flatten(),
        nn.Linear(8, 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], label.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert not torch.equal(conv.weight, before)


# --- errors --------------------------------------------------------------------------------

GOOD = torch.zeros(3, 4, 5)
WRONG_LAYERS: list[tuple[Any, dict[str, Any], str]] = [
    (GOOD, {"order": 2}, r"order must be 0 .* got 2"),
    (GOOD, {"order": 1, "window": 50}, "order=1 has no window=.*use order=0 with window="),
    (GOOD, {"window": 4}, "window=4 is narrower than a filter, which spans 5 bases"),
    (GOOD, {"pseudocount": 1.0}, "pseudocount=1.0 is of pairs: it needs order=1"),
    (GOOD, {"order": 1, "pseudocount": -1.0}, "pseudocount must be 0 or more, got -1.0"),
    (GOOD, {"eps": 0.0}, "eps must be above 0"),
    (GOOD, {"activation": "elu"}, "activation must be 'relu', 'gelu' or None, got 'elu'"),
    (GOOD, {"layout": "CNL"}, "layout must be 'NCL' or 'NLC', got 'CNL'"),
    (GOOD[:, :3], {}, r"filters must have shape \(O, 4, K\).* got shape \(3, 3, 5\)"),
    (GOOD.long(), {}, "floating type, got shape .* torch.int64"),
    (nn.Linear(4, 4), {}, "must be a torch.nn.Conv1d or a tensor .* got Linear"),
    (nn.Conv1d(8, 4, 3), {}, "must read one-hot DNA: 4 channels in 1 group, got 8 in 1"),
    (nn.Conv1d(4, 4, 3, groups=2), {}, "4 channels in 1 group, got 4 in 2"),
    (nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), {}, "unknown bases, got 'circular'"),
    (
        nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3)),
        {},
        r"remove_parametrizations\(conv, 'weight'\)",
    ),
]


@pytest.mark.parametrize(("filters", "options", "message"), WRONG_LAYERS)
def test_a_layer_that_cannot_be_is_refused(
    filters: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BackgroundNorm(filters, **options)


def test_an_input_that_is_no_dna_is_refused() -> None:
    layer = build({})
    x = one_hot(random_dna(2, 9), torch.float32)
    with pytest.raises(ValueError, match=r"axes \(N, 4, L\), got shape \(2, 9, 4\); pass layout="):
        layer(x.mT)
    with pytest.raises(ValueError, match=r"lengths\[1\] = 10 is outside 0..9"):
        layer(x, torch.tensor([9, 10]))
    for value in (-0.5, 1.5, float("nan")):
        wrong = x.clone()
        wrong[1, 2, 7] = value
        with pytest.raises(ValueError, match=r"position 7 of sequence 1 holds .* one-hot bases"):
            layer(wrong)
        layer(wrong, torch.tensor([9, 7]))
    with pytest.raises(ValueError, match=r"a floating type, got .* torch.int64"):
        layer(x.long())
    valid = BackgroundNorm(nn.Conv1d(4, 2, 5))
    with pytest.raises(ValueError, match="span 5 bases, the input with its padding has only 4"):
        valid(x[..., :4])
    with pytest.raises(ValueError, match=r"mask of the input's 9 positions .* 5 outputs"):
        valid(x, torch.ones(2, 9, dtype=torch.bool))
    wrong_scans: list[dict[str, Any]] = [
        {"padding": "full"}, {"padding": -1}, {"stride": 0}, {"stride": 2}, {"dilation": 0},
    ]  # fmt: skip
    for bad in wrong_scans:
        with pytest.raises(ValueError, match=next(iter(bad))):
            background_zscore(x, GOOD, **bad)
    with pytest.raises(ValueError, match=r"bias must have shape \(3,\).* got \(2,\)"):
        background_zscore(x, GOOD, bias=torch.zeros(2))
    with pytest.raises(ValueError, match=r"expected one-hot .* got \(4, 9\)"):
        background_of(x[0])


def test_numbers_that_are_no_background_are_refused() -> None:
    f = torch.tensor([0.4, 0.1, 0.1, 0.4])
    with pytest.raises(ValueError, match=r"frequencies\[0\] = .* sum to 1; divide counts"):
        background_moments(GOOD, 10 * f)
    with pytest.raises(ValueError, match=r"frequencies must have shape .* got \(1, 3\)"):
        background_moments(GOOD, f[:3])
    with pytest.raises(ValueError, match=r"are not stationary: one step"):
        background_moments(GOOD, f, torch.full((4, 4), 0.25))
    with pytest.raises(ValueError, match=r"transitions must have shape \(1, 4, 4\)"):
        background_moments(GOOD, f, torch.full((4, 3), 0.25))
    with pytest.raises(ValueError, match=r"known must have shape \(1, 5, P\).* got \(1, 7, 5\)"):
        background_moments(GOOD, f, known=torch.ones(7, 5))
    with pytest.raises(ValueError, match=r"weight must have shape \(O, 4, K\), got \(4, 5\)"):
        background_moments(GOOD[0], f)
    with pytest.raises(ValueError, match="dilation must be 1 or more, got 0"):
        background_moments(GOOD, f, dilation=0)
