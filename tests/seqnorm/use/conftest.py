"""A small genome with N in it, a small model on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_tools.encode import decode
from data_tools.genome import Genome
from seqnorm.models import ReverseComplementAverage, build_model
from seqnorm.saved import save_model
from seqnorm.use.scorer import Scorer

WIDTH = 60
OPTIONS = {"channels": 8, "kernel_size": 7, "inner_kernel_size": 3}


def small_model(norm: str, **options: int) -> ReverseComplementAverage:
    """A model whose running statistics and gains are not those of its beginning."""
    import torch

    model = build_model("cnn", norm, seed=5, **OPTIONS, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value += 0.2 * torch.rand(value.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="session")
def small() -> Callable[..., ReverseComplementAverage]:
    return small_model


@pytest.fixture(scope="session")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "small.fa"
    rng = np.random.default_rng(7)
    lines = []
    for name, length in (("chrB", 3003), ("chrA", 2000), ("tiny", 30)):
        codes = rng.integers(0, 4, length).astype(np.uint8)
        if name == "chrB":
            codes[1000:1003] = 4
        lines.append(f">{name}\n{decode(codes)}\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="session")
def genome(fasta: Path) -> Genome:
    return Genome(fasta)


@pytest.fixture(scope="session")
def scorer() -> Scorer:
    return Scorer(small_model("layer_seq"), WIDTH, batch=32)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    options = OPTIONS | {"outputs": 1}
    save_model(
        folder,
        small_model("layer_seq"),
        name="cnn",
        norm="layer_seq",
        options=options,
        seed=5,
        width=WIDTH,
    )
    return folder
