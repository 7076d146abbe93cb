"""A small real experiment: the demo data, few windows, a tiny network."""

from pathlib import Path

import pytest

DEMO = Path(__file__).parents[3] / "examples" / "human_ctcf.toml"

SMALL = [
    "name=small",
    "norms=['batch', 'layer']",
    "split.test=['chr4', 'chr3', 'chr19']",
    "split.primary=['chr3', 'chr19']",
    "negatives.evaluation=300",
    "negatives.per_positive=2",
    "models=[{name='cnn', options={channels=8, pool=4}}]",
    "training.learning_rates=[0.01, 0.02]",
    "training.seeds=[0, 1]",
    "training.epochs=3",
    "evaluation.resamples=100",
]


@pytest.fixture(scope="session")
def demo() -> Path:
    return DEMO


@pytest.fixture(scope="session")
def small() -> list[str]:
    return list(SMALL)
