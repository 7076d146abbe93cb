"""Windows of the real demo data: overlapping peaks stay together, GC skew does what it says."""

from pathlib import Path

import pytest

from data_tools.encode import gc_fraction
from data_tools.genome import Genome
from data_tools.intervals import read_intervals
from data_tools.windows import summit_windows, window_codes
from federated.partition import GCSkew, check_partition, linked_groups, partition

DEMO = Path(__file__).parents[3] / "examples" / "data" / "human_demo"


@pytest.fixture(scope="module")
def demo():
    with Genome(DEMO / "human7.fa.gz") as genome:
        peaks = read_intervals(DEMO / "ctcf_k562.narrowPeak", genome)
        peaks = peaks[peaks["chrom"] == "chr21"]
        rows = summit_windows(peaks, genome.lengths, 500, on_edge="drop").reset_index(drop=True)
        codes = window_codes(genome, rows, 0)
    return rows.assign(gc=gc_fraction(codes), label=1), codes


def test_real_peaks_that_share_sequence_stay_with_one_client(demo):
    rows, codes = demo
    split = partition(rows, GCSkew(clients=4, rho=1), codes)
    check_partition(split, rows, codes)
    assert split.table(rows)["gc_mean"].is_monotonic_increasing
    assert split.table(rows)["rows"].sum() == len(rows) > 200
    # The summits of neighbouring peaks are often nearer than a window is wide.
    assert linked_groups(rows, codes).max() + 1 < 0.95 * len(rows)
