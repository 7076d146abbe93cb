"""Made-up windows."""

import numpy as np
import pandas as pd
import pytest


def make_windows(count=600, seed=0, *, width=100, prevalence=0.3, crowded=False):
    """Windows on four chromosomes; apart from one another, or crowded so that some overlap."""
    rng = np.random.default_rng(seed)
    if crowded:
        start = rng.integers(0, 6 * width * max(1, count // 8), size=count)
    else:
        start = 3 * width * rng.permutation(count)
    label = (rng.random(count) < prevalence).astype(np.int64)
    return pd.DataFrame(
        {
            "chrom": rng.choice(
                ["chr1", "chr2", "chr10", "chr19"], size=count, p=[0.4, 0.3, 0.2, 0.1]
            ),
            "start": start,
            "end": start + width,
            "label": label,
            "gc": np.clip(rng.normal(0.42 + 0.05 * label, 0.07), 0, 1),
        }
    )


@pytest.fixture(scope="session")
def windows():
    return make_windows
