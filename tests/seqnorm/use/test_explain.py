"""Effects are those of brute force; gradients are those of finite differences."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from data_tools.errors import InputError
from seqnorm.batches import one_hot
from seqnorm.models import ReverseComplementAverage
from seqnorm.use.explain import Explanation, explain_windows, input_gradient
from seqnorm.use.scorer import Scorer

WIDTH = 60
"""Of the fixtures' scorer."""
Small = Callable[..., ReverseComplementAverage]

NORMS = ["batch", "layer", "layer_seq", "group:4", "instance", "rms", "none"]
NORMS += ["background@first", "instance@input", "group:4@head"]


def windows(count: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (count, width)).astype(np.uint8)


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_mutagenesis_is_every_substitution_scored_by_itself(small: Small, batch: int) -> None:
    model = small("instance")
    codes = windows(2, width=30)
    codes[1, 4] = 4
    found = explain_windows(Scorer(model, 30, batch=batch), codes)
    score = Scorer(model, 30)
    for row, window in enumerate(codes):
        before = score.scores(window[None])[0]
        for place in range(30):
            for base in range(4):
                mutant = window.copy()
                mutant[place] = base
                effect = score.scores(mutant[None])[0] - before
                known = window[place] != 4
                assert abs(found.effects[row, base, place] - known * effect) < 2e-6
        assert abs(found.scores[row] - before) < 1e-6


@pytest.mark.parametrize("norm", NORMS)
def test_the_gradient_is_that_of_finite_differences_through_every_norm(
    small: Small, norm: str
) -> None:
    model = small(norm).double()
    x = one_hot(torch.from_numpy(windows(3)), torch.float64)
    # Mixtures of bases: from the corners of one-hot one cannot go either way.
    x = 0.8 * x + 0.04 * torch.rand(
        x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0)
    )
    found = input_gradient(model, x)
    step = 1e-6
    with torch.no_grad():
        for place in range(0, WIDTH, 7):
            for base in range(4):
                moved = torch.zeros_like(x)
                moved[:, base, place] = step
                slope = (model(x + moved) - model(x - moved))[:, 0] / (2 * step)
                torch.testing.assert_close(found[:, base, place], slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("norm", ["layer_seq", "instance", "group:4"])
def test_the_gradient_knows_of_the_statistics(small: Small, norm: str) -> None:
    # A norm of the sequence itself does not care how large the filters' answers are; a gradient
    # that took its statistics for constants would have a part along them.
    model = small(norm).double().model
    conv, first = model.convs[0], model.norms[0]
    y = conv(one_hot(torch.from_numpy(windows(2)), torch.float64)).detach().requires_grad_()
    weight = torch.rand(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad((first(y) * weight).sum(), y)
    along = (slope * (y - y.mean((1, 2) if norm == "layer_seq" else 2, keepdim=True))).sum()
    if norm == "group:4":
        groups = y.view(2, 4, -1)
        along = (slope.view(2, 4, -1) * (groups - groups.mean(-1, keepdim=True))).sum()
    assert abs(along) < 1e-4 * slope.abs().sum()


def test_one_window_does_not_reach_into_the_gradient_of_another(small: Small) -> None:
    codes = windows(9)
    model = small("batch")
    alone = explain_windows(Scorer(model, WIDTH, batch=1), codes, "gradient")
    together = explain_windows(Scorer(model, WIDTH, batch=4), codes, "gradient")
    np.testing.assert_allclose(alone.effects, together.effects, rtol=0, atol=1e-6)


def test_both_methods_agree_where_the_score_is_linear_in_the_bases() -> None:
    class Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.weight = torch.nn.Parameter(torch.randn(4, WIDTH, generator=generator))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.weight).sum((1, 2))

    scorer, codes = Scorer(Linear(), WIDTH), windows(4)
    ism, gradient = (explain_windows(scorer, codes, how) for how in ("ism", "gradient"))
    np.testing.assert_allclose(ism.hypothetical, gradient.hypothetical, atol=1e-4)
    np.testing.assert_allclose(ism.contributions, gradient.contributions, atol=1e-4)
    weight = scorer.model.model.weight.detach().numpy()
    centred = weight - weight.mean(0)
    expected = centred[codes, np.arange(WIDTH)]
    np.testing.assert_allclose(ism.contributions, expected, atol=1e-4)


def test_hypothetical_contributions_sum_to_nothing_and_n_contributes_nothing() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 5, (6, 20)).astype(np.uint8)
    effects = rng.normal(size=(6, 4, 20)).astype(np.float32)
    found = Explanation(codes, np.zeros(6, np.float32), effects)
    np.testing.assert_allclose(found.hypothetical.sum(1), 0, atol=1e-6)
    assert (found.contributions[codes == 4] == 0).all()
    row, place = np.nonzero(codes < 4)
    mine = found.hypothetical[row, codes[row, place], place]
    assert (found.contributions[row, place] == mine).all()


def test_a_method_that_does_not_exist_is_told(small: Small) -> None:
    with pytest.raises(InputError, match="'shap' does not exist; choose ism or gradient"):
        explain_windows(Scorer(small("none"), WIDTH), windows(1), "shap")  # type: ignore[arg-type]
