"""Background windows touch nothing that they must not, and every place they may have is had.

The reference looks at every start of every chromosome, one at a time.
"""

import os
from collections import Counter
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.interval_sets import overlaps
from data_tools.intervals import read_intervals
from data_tools.negatives import GC_CALIPER, background_windows, balance
from data_tools.negatives.allowed import allowed_starts
from data_tools.splits import block_split, whole_chromosomes
from data_tools.windows import inside, summit_windows, window_codes, window_gc

DEMO = Path(__file__).parents[2] / "examples" / "data" / "human_demo"
KINDS = ("random", "gc_matched", "flank", "dinucleotide_matched")
thorough = settings(deadline=None, max_examples=100)


def table(rows):
    frame = pd.DataFrame(list(rows), columns=["chrom", "start", "end"])
    return frame.astype({"start": "int64", "end": "int64"})


def starts(frame):
    return list(zip(frame["chrom"], frame["start"].tolist(), strict=True))


@contextmanager
def opened(sequences):
    with TemporaryDirectory() as folder:
        fasta = Path(folder) / "small.fa"
        fasta.write_text("".join(f">{name}\n{letters}\n" for name, letters in sequences.items()))
        # Genome waits a moment before it trusts the time stamp of a file written just now.
        os.utime(fasta, (1e9, 1e9))
        with Genome(fasta, cache_dir=folder) as genome:
            yield genome


def random_letters(length, seed=0):
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


# --- small genomes and the reference ----------------------------------------------------------


def zoo_letters(rng):
    """Runs of bases and of ambiguous letters, some in lower case."""
    pieces = []
    for _ in range(rng.integers(1, 6)):
        bases = "".join(rng.choice(list("ACGTacgt"), rng.integers(1, 40)))
        odd = str(rng.choice(["", "N", "nn", "RY", "N" * 9]))
        pieces += [bases, odd][:: rng.choice([-1, 1])]
    return "".join(pieces)


ZOO = {f"z{seed}": zoo_letters(np.random.default_rng(seed)) for seed in range(300)}


@pytest.fixture(scope="module")
def zoo():
    with opened(ZOO) as genome:
        yield genome


@st.composite
def intervals_in(draw, names, sizes, max_size):
    rows = []
    for _ in range(draw(st.integers(0, max_size))):
        chrom, size = draw(st.sampled_from(names)), draw(sizes)
        if size <= len(ZOO[chrom]):
            start = draw(st.integers(0, len(ZOO[chrom]) - size))
            rows.append((chrom, start, start + size))
    return rows


@st.composite
def cases(draw):
    """Chromosomes, what is taken of them, and regions in any order, some overlapping."""
    names = draw(st.lists(st.sampled_from(list(ZOO)), min_size=1, max_size=2, unique=True))
    whole = [(name, 0, len(ZOO[name])) for name in names]
    width = draw(st.integers(1, 6))
    return {
        "names": names,
        "positives": draw(intervals_in(names, st.just(width), 4)),
        "forbidden": draw(intervals_in(names, st.integers(1, 12), 3)),
        "regions": draw(st.one_of(st.just(whole), intervals_in(names, st.integers(8, 60), 5))),
        "width": width,
        "margin": draw(st.integers(0, 2)),
        "count": draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 9)),
    }


def reference_starts(case):
    """All (chromosome, start) that a background window may have, by looking at each."""
    width, margin = case["width"], case["margin"]
    taken = case["positives"] + case["forbidden"]
    return {
        (chrom, low + margin)
        for chrom in case["names"]
        for low in range(len(ZOO[chrom]) - width - 2 * margin + 1)
        for high in [low + width + 2 * margin]
        if any(c == chrom and lo <= low and high <= hi for c, lo, hi in case["regions"])
        and not any(c == chrom and lo < high and low < hi for c, lo, hi in taken)
        and set(ZOO[chrom][low:high].upper()) <= set("ACGT")
    }


def draw_from(genome, case, kind, **changes):
    now = {"forbidden": [], "margin": 0, "seed": 0} | case | changes
    return background_windows(
        genome,
        table(now["positives"]),
        table(now["regions"]),
        kind,
        count=now["count"],
        width=now["width"],
        forbidden=table(now["forbidden"]),
        margin=now["margin"],
        seed=now["seed"],
        pool=now.get("pool"),
    )


def clash(one, other, width):
    return one[0] == other[0] and abs(one[1] - other[1]) < width


# --- what holds for all three kinds ------------------------------------------------------------


@thorough
@given(case=cases())
def test_the_allowed_starts_are_those_of_a_look_at_every_start(zoo, case):
    taken = table(case["positives"] + case["forbidden"])
    found = allowed_starts(zoo, taken, table(case["regions"]), case["width"], case["margin"])
    listed = {c: [s for low, high in gaps for s in range(low, high)] for c, gaps in found.items()}
    assert all(places == sorted(set(places)) for places in listed.values())
    assert {(c, s) for c, places in listed.items() for s in places} == reference_starts(case)


def test_the_allowed_starts_do_not_depend_on_how_much_is_read_at_once(zoo, monkeypatch):
    regions = whole_chromosomes(list(ZOO), zoo.lengths)
    at_once = allowed_starts(zoo, table([]), regions, 4, 1)
    monkeypatch.setattr("data_tools.negatives.allowed._SPAN", 7)
    in_pieces = allowed_starts(zoo, table([]), regions, 4, 1)
    assert in_pieces.keys() == at_once.keys()
    assert all(in_pieces[chrom].tolist() == gaps.tolist() for chrom, gaps in at_once.items())
    assert len(at_once) > 200


@pytest.mark.parametrize("kind", KINDS)
@thorough
@given(case=cases())
def test_windows_stand_at_allowed_starts_apart_from_one_another_and_fixed_by_the_seed(
    zoo, kind, case
):
    allowed = reference_starts(case)
    if not allowed:
        with pytest.raises(InputError, match="no room for a background window"):
            draw_from(zoo, case, kind)
        return
    drawn, again = draw_from(zoo, case, kind), draw_from(zoo, case, kind)
    pd.testing.assert_frame_equal(drawn.windows, again.windows)
    assert drawn.unmatched.tolist() == again.unmatched.tolist()
    places = starts(drawn.windows)
    assert set(places) <= allowed
    assert (drawn.windows["end"] - drawn.windows["start"]).eq(case["width"]).all()
    assert places == sorted(places)
    for one, other in pairwise(places):
        assert not clash(one, other, case["width"])


# --- what each kind promises ---------------------------------------------------------------------


@thorough
@given(case=cases())
def test_random_gives_all_windows_asked_for_unless_no_further_one_fits(zoo, case):
    allowed = reference_starts(case)
    assume(allowed)
    drawn = draw_from(zoo, case, "random")
    places = starts(drawn.windows)
    assert drawn.wanted == case["count"]
    assert len(places) <= case["count"]
    assert drawn.unmatched.size == 0
    if len(places) < case["count"]:
        assert all(any(clash(p, q, case["width"]) for q in places) for p in allowed)


def test_random_finds_the_last_place_however_seldom_a_draw_hits_it():
    with opened({"a": "A" * 1000, "b": "A" * 1999}) as genome:
        case = {"positives": [], "regions": [("a", 0, 1000), ("b", 0, 1999)]}
        case |= {"width": 1000, "count": 5}
        drawn = [draw_from(genome, case, "random", seed=seed) for seed in range(10)]
    assert [d.windows["chrom"].tolist() for d in drawn] == [["a", "b"]] * 10


@thorough
@given(case=cases())
def test_flank_takes_the_nearest_places_left_and_right_in_turn_or_reports_the_positive(zoo, case):
    allowed, width, count = reference_starts(case), case["width"], case["count"]
    assume(allowed)
    taken, short = [], []
    for row, (chrom, start, _) in enumerate(case["positives"]):
        steps = [side * step * width for step in range(1, 4 * count + 1) for side in (-1, 1)]
        mine = [
            (chrom, start + step)
            for step in steps
            if (chrom, start + step) in allowed
            and not any(clash((chrom, start + step), other, width) for other in taken)
        ]
        if len(mine) < count:
            short.append(row)
        else:
            taken += mine[:count]
    drawn = draw_from(zoo, case, "flank")
    assert starts(drawn.windows) == sorted(taken)
    assert drawn.unmatched.tolist() == short
    assert drawn.wanted == count * len(case["positives"])


def matched_apart(genome, positives, drawn, count):
    """Largest GC difference of the best pairing of kept positives and windows."""
    kept = positives.reset_index(drop=True).drop(index=drawn.unmatched)
    assert len(drawn.windows) == count * len(kept)
    kept = kept.assign(gc=window_gc(genome, kept))
    windows = drawn.windows.assign(gc=window_gc(genome, drawn.windows))
    apart = [0.0]
    for chrom, mine in kept.groupby("chrom"):
        partners = np.sort(windows.loc[windows["chrom"] == chrom, "gc"].to_numpy())
        # On a line, pairing in order makes the largest difference as small as it can be.
        apart.extend(np.abs(partners - np.repeat(np.sort(mine["gc"].to_numpy()), count)))
    return max(apart)


@pytest.mark.parametrize("kind", ["gc_matched", "dinucleotide_matched"])
@thorough
@given(case=cases())
def test_matched_gives_each_positive_all_its_partners_within_the_caliper_or_none(zoo, kind, case):
    assume(reference_starts(case))
    positives = table(case["positives"])
    drawn = draw_from(zoo, case, kind)
    assert matched_apart(zoo, positives, drawn, case["count"]) <= GC_CALIPER + 1e-9
    assert drawn.wanted == case["count"] * len(positives)
    assert drawn.unmatched.tolist() == sorted(set(drawn.unmatched.tolist()))


@pytest.mark.parametrize("kind", ["gc_matched", "dinucleotide_matched"])
@thorough
@given(case=cases())
def test_a_positive_is_reported_unmatched_only_where_nothing_of_its_gc_is_left(zoo, kind, case):
    allowed = sorted(reference_starts(case))
    assume(allowed and case["positives"])
    width = case["width"]
    drawn = draw_from(zoo, case, kind, count=1)
    place_gc = window_gc(zoo, table([(chrom, start, start + width) for chrom, start in allowed]))
    positive_gc = window_gc(zoo, table(case["positives"]))
    taken = starts(drawn.windows)
    for row in drawn.unmatched:
        chrom = case["positives"][row][0]
        for place, gc in zip(allowed, place_gc, strict=True):
            if place[0] == chrom and abs(gc - positive_gc[row]) <= GC_CALIPER:
                assert any(clash(place, other, width) for other in taken)


@pytest.mark.parametrize("kind", ["gc_matched", "dinucleotide_matched"])
def test_progress_is_told_by_chromosome(kind):
    told = []
    with opened({"a": random_letters(500, 1), "b": random_letters(500, 2)}) as genome:
        positives = table([("a", 0, 20), ("b", 0, 20), ("b", 100, 120)])
        background_windows(
            genome, positives, whole_chromosomes(["a", "b"], genome.lengths), kind,
            count=1, width=20, progress=lambda done, total: told.append((done, total)),
        )  # fmt: skip
    assert told == [(1, 3), (3, 3)]


def test_no_partners_are_left_behind_of_a_positive_that_does_not_get_all():
    # Two more places have the GC of the positive: enough for two partners, not for three.
    letters = "A" * 50 + "G" * 10 + "A" * 50 + "G" * 10 + "A" * 50 + "G" * 10 + "A" * 50
    with opened({"a": letters}) as genome:
        case = {"positives": [("a", 50, 60)], "regions": [("a", 0, len(letters))], "width": 10}
        both = draw_from(genome, case, "gc_matched", count=2)
        one_too_many = draw_from(genome, case, "gc_matched", count=3)
    assert starts(both.windows) == [("a", 110), ("a", 170)]
    assert both.unmatched.tolist() == []
    assert starts(one_too_many.windows) == []
    assert one_too_many.unmatched.tolist() == [0]


def test_dinucleotide_matched_takes_the_window_of_the_same_pairs_where_gc_cannot_tell():
    # Three places of equal GC: CGs, GCs apart, and the positive's own kind, Cs and Gs in runs.
    places = ["ATATCGCGCGATAT", "ATACATGATCATGA", "ATATCCCGGGATAT"]
    letters = "AATTAATTAATTAA".join(["ATATCCCGGGATAT", *places, ""])
    with opened({"a": letters}) as genome:
        regions = table([("a", 28 * i, 28 * i + 14) for i in range(1, 4)])
        drawn = background_windows(
            genome, table([("a", 0, 14)]), regions, "dinucleotide_matched", count=1, width=14
        )
    assert starts(drawn.windows) == [("a", 84)]


@pytest.mark.parametrize("kind", KINDS)
@thorough
@given(case=cases(), data=st.data())
def test_from_a_pool_windows_stand_only_around_its_summits(zoo, kind, case, data):
    width = case["width"]
    pool = table(data.draw(intervals_in(case["names"], st.integers(1, 20), 6)))
    of_pool = {
        (chrom, (start + end) // 2 - width // 2)
        for chrom, start, end in pool.itertuples(index=False, name=None)
    }
    if not of_pool & reference_starts(case):
        with pytest.raises(InputError, match=r"no room for|none of the"):
            draw_from(zoo, case, kind, pool=pool)
        return
    assert set(starts(draw_from(zoo, case, kind, pool=pool).windows)) <= of_pool


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
)
def test_balance_is_what_sklearn_and_counting_say_of_gc(one, other):
    frames = [pd.DataFrame({"chrom": "a", "gc": np.array(x) / 6}) for x in (one, other)]
    row = balance(*frames).iloc[0]
    labels = np.repeat([1, 0], [len(one), len(other)])
    assert row["gc_auroc"] == pytest.approx(roc_auc_score(labels, [*one, *other]))
    apart = [np.mean(np.array(one) <= x) - np.mean(np.array(other) <= x) for x in range(7)]
    assert row["gc_ks"] == pytest.approx(np.abs(apart).max())
    assert row["gc_difference"] == pytest.approx(np.mean(one) / 6 - np.mean(other) / 6)


def test_balance_tells_chromosomes_apart_that_cancel_out_over_all():
    positives = pd.DataFrame({"chrom": ["a", "b"], "gc": [0.6, 0.3]})
    negatives = pd.DataFrame({"chrom": ["a", "b", "c"], "gc": [0.3, 0.6, np.nan]})
    found = balance(positives, negatives).set_index("chrom")
    assert found.loc[["a", "b", "all"], "gc_auroc"].tolist() == [1, 0, 0.5]
    assert found.loc["c", ["positives", "negatives"]].tolist() == [0, 0]
    assert np.isnan(found.loc["c", "gc_auroc"])


# --- chance ------------------------------------------------------------------------------------


def test_random_starts_are_uniform_over_the_allowed_starts_of_all_regions():
    case = {
        "positives": [("b", 5, 7)],
        "regions": [("a", 10, 18), ("a", 0, 8), ("b", 0, 12)],
        "width": 2,
        "count": 1,
    }
    with opened({"a": "ACGTACNNACGTACGTAC", "b": "GGGGGGGGGGGG"}) as genome:
        seen = Counter(
            starts(draw_from(genome, case, "random", seed=seed).windows)[0] for seed in range(400)
        )
    allowed = [("a", s) for s in (*range(5), *range(10, 17))]
    allowed += [("b", s) for s in (*range(4), *range(7, 11))]
    assert sorted(seen) == allowed
    assert stats.chisquare(list(seen.values())).pvalue > 0.01


def test_a_region_that_is_given_twice_weighs_no_more_than_once():
    with opened({"a": random_letters(2000)}) as genome:
        once, twice = [("a", 0, 1000), ("a", 1000, 2000)], [("a", 0, 1000)]
        case = {"positives": [], "width": 5, "count": 20, "seed": 1}
        plain = draw_from(genome, {**case, "regions": once}, "random")
        doubled = draw_from(genome, {**case, "regions": [*twice, *once]}, "random")
    pd.testing.assert_frame_equal(plain.windows, doubled.windows)


def test_gc_matched_windows_are_spread_over_the_whole_chromosome():
    length, width = 60_000, 20
    with opened({"a": random_letters(length)}) as genome:
        positives = table([("a", s, s + width) for s in range(0, length, 600)])
        drawn = background_windows(
            genome, positives, table([("a", 0, length)]), "gc_matched", count=2, width=width
        )
    places = drawn.windows["start"].to_numpy() / (length - width)
    assert len(places) == 200
    assert stats.kstest(places, "uniform").pvalue > 0.01


@pytest.mark.parametrize("kind", ["random", "gc_matched"])
def test_another_seed_gives_other_windows(kind):
    with opened({"a": random_letters(3000)}) as genome:
        case = {"positives": [("a", 0, 10)], "regions": [("a", 0, 3000)]}
        case |= {"width": 10, "count": 5}
        one, other = (draw_from(genome, {**case, "seed": seed}, kind) for seed in (1, 2))
    assert starts(one.windows) != starts(other.windows)


@pytest.mark.parametrize("kind", ["gc_matched", "flank", "dinucleotide_matched"])
def test_another_chromosome_does_not_move_the_windows_of_the_first(kind):
    sequences = {"a": random_letters(3000, 1), "b": random_letters(3000, 2)}
    with opened(sequences) as genome:
        case = {"positives": [("b", 500, 510)], "regions": [("b", 0, 3000)]}
        case |= {"width": 10, "margin": 1, "count": 3, "seed": 4}
        alone = draw_from(genome, case, kind)
        case["positives"] = [("a", 700, 710), *case["positives"]]
        case["regions"] = [("a", 0, 3000), *case["regions"]]
        both = draw_from(genome, case, kind)
    assert [place for place in starts(both.windows) if place[0] == "b"] == starts(alone.windows)
    assert len(both.windows) == 6


# --- what a user sees ----------------------------------------------------------------------------


def test_flank_goes_left_first_and_further_out_for_more():
    with opened({"a": "A" * 100}) as genome:
        case = {"positives": [("a", 50, 60)], "regions": [("a", 0, 100)]}
        case |= {"width": 10}
        found = [
            [s for _, s in starts(draw_from(genome, case, "flank", count=n).windows)]
            for n in (1, 2, 3)
        ]
    assert found == [[40], [40, 60], [30, 40, 60]]


def test_positives_without_a_match_are_reported_by_position_and_not_filled():
    letters = "G" * 10 + random_letters(400).replace("G", "A").replace("C", "T") + "C" * 10
    with opened({"a": letters}) as genome:
        positives = table([("a", 0, 10), ("a", 100, 110), ("a", 410, 420)]).set_axis([5, 5, 9])
        drawn = background_windows(
            genome, positives, table([("a", 0, 420)]), "gc_matched", count=2, width=10
        )
    assert drawn.unmatched.tolist() == [0, 2]
    assert len(drawn.windows) == 2
    assert drawn.wanted == 6


@pytest.mark.parametrize("kind", ["gc_matched", "flank"])
def test_a_positive_on_a_chromosome_without_room_is_reported(kind):
    with opened({"a": "A" * 100, "b": "A" * 10}) as genome:
        positives = table([("b", 0, 10), ("a", 50, 60)])
        regions = whole_chromosomes(["a", "b"], genome.lengths)
        drawn = background_windows(genome, positives, regions, kind, count=1, width=10)
    assert drawn.unmatched.tolist() == [0]
    assert drawn.windows["chrom"].tolist() == ["a"]


def test_a_positive_without_any_known_base_has_no_gc_and_is_reported():
    with opened({"a": "N" * 10 + "A" * 100}) as genome:
        positives = table([("a", 0, 10), ("a", 50, 60)])
        regions = whole_chromosomes(["a"], genome.lengths)
        drawn = background_windows(genome, positives, regions, "gc_matched", count=1, width=10)
    assert drawn.unmatched.tolist() == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_without_positives_random_draws_and_the_others_have_nothing_to_do(kind):
    with opened({"a": "ACGT" * 25}) as genome:
        drawn = background_windows(
            genome, table([]), whole_chromosomes(["a"], genome.lengths), kind, count=3, width=5
        )
    assert len(drawn.windows) == drawn.wanted == (3 if kind == "random" else 0)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"kind": "gc"}, "background 'gc' does not exist; choose one of random, gc_matched, flank"),
        ({"count": 0}, "at least 1, not 0"),
        ({"width": 0}, "at least 1 base wide, not 0"),
        ({"margin": -1}, "margin must be 0 or more, not -1"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
        ({"caliper": 1.5}, "the caliper is a difference of GC fractions, 0 to 1, not 1.5"),
        ({"regions": table([("c", 0, 9)])}, "unknown chromosome 'c'"),
        ({"regions": table([("a", 0, 101)])}, "past the end of a"),
        ({"regions": table([])}, "no room"),
        ({"width": 101}, "no room for a background window of 101 bases"),
    ],
    ids=[
        "kind", "count", "width", "margin", "seed", "caliper", "unknown region", "region too long",
        "no region", "too wide",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_argument_is_an_error_that_states_it(kind, wrong, fault):
    options = {"kind": kind, "count": 1, "width": 10, "regions": table([("a", 0, 100)])} | wrong
    with opened({"a": "ACGT" * 25}) as genome, pytest.raises(InputError, match=fault):
        background_windows(genome, table([("a", 50, 60)]), options.pop("regions"), **options)


# --- real data -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    with Genome(DEMO / "human7.fa.gz", cache_dir=cache) as genome:
        peaks = read_intervals(DEMO / "ctcf_k562.narrowPeak", genome)
        exclude = read_intervals(DEMO / "exclude.bed", genome)
        yield genome, peaks, pd.concat([peaks, exclude])[["chrom", "start", "end"]]


def demo_draw(demo, chrom, kind, count, margin=0):
    genome, peaks, forbidden = demo
    positives = summit_windows(peaks[peaks["chrom"] == chrom], genome.lengths, 250, on_edge="drop")
    regions, _ = block_split([chrom], genome.lengths, block=400_000, every=4, offset=3)
    if kind == "random":
        count *= len(positives)
    drawn = background_windows(
        genome, positives, regions, kind, count=count, width=250, forbidden=forbidden, margin=margin
    )
    return positives, regions, drawn


def gc_auroc(genome, positives, windows):
    scores = np.concatenate([window_gc(genome, positives), window_gc(genome, windows)])
    return roc_auc_score(np.repeat([1, 0], [len(positives), len(windows)]), scores)


@pytest.mark.parametrize("chrom", ["chr3", "chr19"])
def test_gc_alone_tells_real_peaks_from_random_background_but_not_from_gc_matched(demo, chrom):
    genome = demo[0]
    positives, _, drawn = demo_draw(demo, chrom, "random", 3)
    assert gc_auroc(genome, positives, drawn.windows) > 0.6
    positives, _, drawn = demo_draw(demo, chrom, "gc_matched", 3)
    kept = positives.drop(index=drawn.unmatched)
    assert len(kept) > 0.9 * len(positives)
    assert matched_apart(genome, positives, drawn, 3) <= GC_CALIPER + 1e-9
    assert abs(gc_auroc(genome, kept, drawn.windows) - 0.5) < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_on_real_data_no_window_touches_a_peak_an_excluded_interval_or_the_other_part(demo, kind):
    genome, _, forbidden = demo
    positives, regions, drawn = demo_draw(demo, "chr19", kind, 2, margin=20)
    wide = drawn.windows.assign(start=drawn.windows["start"] - 20, end=drawn.windows["end"] + 20)
    assert len(wide) > 200
    assert not overlaps(wide, positives).any()
    assert not overlaps(wide, forbidden).any()
    assert inside(drawn.windows, regions, margin=20).all()
    assert window_codes(genome, drawn.windows, margin=20).max() < 4
