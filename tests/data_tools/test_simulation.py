"""Simulated genomes have the stated composition, and the stated score is the best there is."""

import itertools
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from data_tools.encode import encode, reverse_complement
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.intervals import read_intervals
from data_tools.motifs import Motif
from data_tools.simulation import (
    Site,
    Task,
    World,
    decoy_of,
    fitted_chain,
    mutated_chain,
    optimal_score,
    plant,
    plant_in_genome,
    simulate_chromosome,
    site_of,
)
from data_tools.simulation.labels import label_probability


def a_site(size=3, seed=0, **options):
    return Site(np.random.default_rng(seed).dirichlet([0.4] * 4, size).T, **options)


def every(width):
    return np.array(list(itertools.product(range(4), repeat=width)), dtype=np.uint8)


def probability(codes, chain):
    """Of each window under the one chain of this object."""
    result = chain.bases[0][codes[:, 0]].copy()
    for before, after in itertools.pairwise(codes.T):
        result *= chain.steps[0][before, after]
    return result


# --- backgrounds -----------------------------------------------------------------------------


@given(gc=st.floats(0.01, 0.99), cpg=st.floats(0, 2))
@settings(max_examples=100, deadline=None)
def test_a_chain_has_exactly_the_stated_gc_cpg_and_strand_symmetry(gc, cpg):
    chain = mutated_chain(gc, cpg)
    bases, steps = chain.bases[0], chain.steps[0]
    assert (steps >= -1e-15).all()
    np.testing.assert_allclose(steps.sum(axis=1), 1)
    np.testing.assert_allclose(bases @ steps, bases, atol=1e-14)
    np.testing.assert_allclose(bases, [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])
    joint = bases[:, None] * steps
    np.testing.assert_allclose(joint, joint[::-1, ::-1].T, atol=1e-14)
    assert joint[1, 2] == pytest.approx(cpg * (gc / 2) ** 2)
    if cpg == 1:
        np.testing.assert_allclose(steps, np.tile(bases, (4, 1)), atol=1e-14)


def test_sampled_sequences_have_the_chains_pairs():
    chain = mutated_chain([0.35, 0.6], 0.2)
    codes = chain.sample(60_000, np.random.default_rng(0))
    assert codes.shape == (2, 60_000)
    for row, bases, steps in zip(codes, chain.bases, chain.steps, strict=True):
        found = np.bincount(row[:-1] * 4 + row[1:], minlength=16)
        expected = (bases[:, None] * steps).ravel() * found.sum()
        # Pairs of a chain are not independent, so the limit is wider than a chi-square's.
        assert (np.abs(found - expected) < 6 * np.sqrt(expected) + 6).all()
    starts = mutated_chain(np.full(20_000, 0.3)).sample(1, np.random.default_rng(1))[:, 0]
    assert chisquare(np.bincount(starts), 20_000 * np.array([0.35, 0.15, 0.15, 0.35])).pvalue > 1e-3


def test_a_fitted_chain_finds_the_chain_that_made_the_sequence():
    chain = mutated_chain([0.4, 0.55], 0.3)
    codes = chain.sample(100_000, np.random.default_rng(2))
    codes[:, 500:600] = 4
    found = fitted_chain(codes)
    np.testing.assert_allclose(found.steps, chain.steps, atol=0.02)
    np.testing.assert_allclose(found.bases, chain.bases, atol=0.01)
    np.testing.assert_allclose((found.bases[:, None] @ found.steps)[:, 0], found.bases)


# --- planting --------------------------------------------------------------------------------


def test_planted_letters_follow_the_matrix_on_both_strands_and_all_places():
    site = a_site(4, reach=3, forward=0.3)
    codes = np.full((30_000, 15), 4, dtype=np.uint8)
    chosen = np.arange(30_000) % 3 > 0
    found = plant(codes, chosen, site, np.random.default_rng(0))
    assert (codes == 4).all()
    assert (found.codes[~chosen] == 4).all()
    assert (found.start[~chosen] == -1).all()
    assert ((found.codes[chosen] < 4).sum(axis=1) == 4).all()
    places = found.start[chosen]
    assert sorted(set(places)) == list(range(2, 9))
    assert chisquare(np.bincount(places)[2:]).pvalue > 1e-3
    turned = found.reverse[chosen]
    assert abs(turned.mean() - 0.7) < 0.02
    letters = found.codes[chosen][np.arange(20_000)[:, None], places[:, None] + np.arange(4)]
    letters[turned] = reverse_complement(letters[turned])
    for at in range(4):
        seen = np.bincount(letters[:, at], minlength=4)
        assert chisquare(seen, 20_000 * site.frequencies[:, at]).pvalue > 1e-3


def test_strength_sharpens_and_a_decoy_is_the_columns_in_another_order():
    motif = Motif("x", np.array([[90, 5, 1], [5, 80, 1], [4, 5, 1], [1, 10, 97.0]]))
    entropy = [
        -(t * np.log2(t)).sum()
        for t in (site_of(motif, strength).frequencies for strength in (0, 0.5, 1, 4))
    ]
    assert entropy[0] == pytest.approx(6)
    assert entropy == sorted(entropy, reverse=True)
    site = site_of(motif)
    decoy = decoy_of(site, np.random.default_rng(0))
    assert not np.array_equal(decoy.frequencies, site.frequencies)
    assert sorted(decoy.frequencies.T.tolist()) == sorted(site.frequencies.T.tolist())


# --- the best score --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "size", "reach", "forward"),
    [(5, 2, None, 0.5), (5, 3, 0, 0.5), (4, 1, None, 1.0), (3, 3, None, 0.2), (6, 2, 1, 0.0)],
)
@pytest.mark.parametrize("decoys", [0.0, 0.4, 1.0])
def test_the_score_is_what_trying_all_hidden_letters_gives(width, size, reach, forward, decoys):
    site = a_site(size, 1, reach=reach, forward=forward)
    decoy = a_site(size, 2, reach=reach, forward=forward)
    chain = fitted_chain(np.array([[0, 0, 1, 2, 3, 1, 1, 0, 2]]))
    windows = every(width)
    untouched = probability(windows, chain)

    def planted(what):
        """Sum over what stood there before: draw a background, overwrite, as it is done."""
        total = np.zeros(len(windows))
        places = [0] if width == size else range(width - size + 1)
        if reach is not None:
            middle = (width - size) // 2
            places = [at for at in places if abs(at - middle) <= reach]
        weight = 4 ** np.arange(width)[::-1]
        for at in places:
            hidden = np.zeros(len(windows))
            kept = windows.copy()
            for letters in every(size):
                kept[:, at : at + size] = letters
                hidden += untouched[kept @ weight]
            match = np.ones(len(windows))
            turned = np.ones(len(windows))
            for k in range(size):
                match *= what.frequencies[windows[:, at + k], k]
                turned *= what.frequencies[3 - windows[:, at + k], size - 1 - k]
            total += hidden * (forward * match + (1 - forward) * turned) / len(places)
        return total

    positive, negative = planted(site), (1 - decoys) * untouched + decoys * planted(decoy)
    assert positive.sum() == pytest.approx(1)
    rows = np.zeros(len(windows), dtype=np.int64)
    found = optimal_score(windows, chain.of(rows), site, decoy, decoys)
    np.testing.assert_allclose(found, np.log(positive / negative), atol=1e-9)


def test_simulated_log_odds_are_calibrated_under_gc_confounding_and_decoys():
    motif = Motif(
        "x",
        np.array(
            [[9, 1, 1, 1, 8, 1], [1, 9, 1, 1, 1, 7], [1, 1, 9, 1, 1, 1], [1, 1, 1, 9, 1, 1.0]]
        ),
    )
    site = site_of(motif, 1.0, reach=20)
    task = Task(site, 0.3, 0.5, decoy_of(site, np.random.default_rng(0)), 0.5)
    world = World(
        {"a": 400_000, "b": 400_000},
        {"a": 0.38, "b": 0.5},
        task,
        isochore=4000,
        width=60,
        spacing=60,
    )
    windows = pd.concat(
        [simulate_chromosome(world, name).windows for name in "ab"], ignore_index=True
    )
    assert abs(windows["label"].mean() - 0.3) < 0.02
    chance = 1 / (1 + np.exp(-windows["score"]))
    for _, part in windows.groupby(pd.cut(chance, np.linspace(0, 1, 9))):
        mean = 1 / (1 + np.exp(-part["score"]))
        low, high = binom.interval(0.999, len(part), mean.mean())
        assert low <= part["label"].sum() <= high
    # Of each score's own claim: the mean of the likelihood ratio over negatives is 1.
    ratio = np.exp(windows["log_ratio"][windows["label"] == 0])
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio))


def test_a_score_that_knows_less_separates_less():
    site = a_site(8, 3, reach=10)
    world = World({"a": 300_000}, {"a": 0.4}, Task(site), spread=0.1, width=100, spacing=100)
    windows = simulate_chromosome(world, "a").windows
    codes = simulate_chromosome(world, "a").codes
    seen = np.stack([codes[at : at + 100] for at in windows["start"]])
    flat = mutated_chain(np.full(len(seen), 0.5))
    anywhere = Site(site.frequencies)

    def auroc(score):
        rank = pd.Series(score).rank().to_numpy()
        positive = windows["label"].to_numpy() == 1
        n, m = positive.sum(), (~positive).sum()
        return (rank[positive].sum() - n * (n + 1) / 2) / (n * m)

    best = auroc(windows["log_ratio"])
    assert 0.6 < best < 1
    assert best > auroc(optimal_score(seen, flat, anywhere))


# --- labels and worlds -----------------------------------------------------------------------


@given(
    gc=st.lists(st.sampled_from([0.3, 0.4, 0.45, 0.5, 0.6]), min_size=1, max_size=40),
    prevalence=st.floats(0.05, 0.95),
    dial=st.floats(0, 1),
)
@settings(max_examples=100, deadline=None)
def test_the_prevalence_is_the_same_at_every_setting_of_the_dial(gc, prevalence, dial):
    content = np.array(gc)
    chance = label_probability(content, content, prevalence, dial)
    assert chance.mean() == pytest.approx(prevalence)
    assert ((chance >= -1e-12) & (chance <= 1 + 1e-12)).all()
    assert (np.diff(chance[np.argsort(content)]) >= -1e-12).all()


def test_the_dial_moves_labels_from_gc_blind_to_gc_alone():
    gaps = []
    for dial in (0.0, 0.5, 1.0):
        task = Task(a_site(), 0.5, dial)
        world = World({"a": 400_000}, {"a": 0.45}, task, spread=0.08, isochore=2000)
        windows = simulate_chromosome(world, "a").windows
        means = windows.groupby("label")["background_gc"].mean()
        gaps.append(means[1] - means[0])
    assert abs(gaps[0]) < 0.02
    assert 0.03 < gaps[1] < gaps[2]
    ranked = windows.sort_values("background_gc")["label"].to_numpy()
    assert (np.diff(ranked) >= 0).all()


def test_chromosomes_have_their_gc_and_windows_stay_inside_isochores():
    world = World(
        {"poor": 1_000_000, "rich": 1_000_000},
        {"poor": 0.35, "rich": 0.6},
        Task(a_site()),
        spread=0.04,
        isochore=10_000,
        cpg=0.2,
    )
    for name, gc in world.gc.items():
        found = simulate_chromosome(world, name)
        counts = np.bincount(found.codes, minlength=4) / 1e6
        assert abs(counts[1] + counts[2] - gc) < 0.015
        pair = ((found.codes[:-1] == 1) & (found.codes[1:] == 2)).mean()
        assert pair / (counts[1] * counts[2]) == pytest.approx(0.2, abs=0.05)
        starts, ends = found.windows["start"], found.windows["end"]
        assert (starts // 10_000 == (ends - 1) // 10_000).all()
        content = world.isochore_gc(name)
        assert content.std() == pytest.approx(0.04, abs=0.01)


def test_a_chromosome_is_the_same_whatever_else_there_is():
    task = Task(a_site())
    alone = World({"b": 50_000}, {"b": 0.4}, task, seed=4)
    both = World({"a": 90_000, "b": 50_000}, {"a": 0.5, "b": 0.4}, task, seed=4)
    one, two = simulate_chromosome(alone, "b"), simulate_chromosome(both, "b")
    np.testing.assert_array_equal(one.codes, two.codes)
    pd.testing.assert_frame_equal(one.windows, two.windows)
    other = simulate_chromosome(World({"b": 50_000}, {"b": 0.4}, task, seed=5), "b")
    assert (other.codes != one.codes).any()


def test_sites_stand_where_the_table_says():
    sharp = site_of(
        Motif(
            "x",
            np.array([[50, 0, 0, 0, 50], [0, 50, 0, 0, 0], [0, 0, 50, 0, 0], [0, 0, 0, 50, 0.0]]),
        ),
        9,
    )
    decoy = Site(sharp.frequencies[:, [1, 0, 2, 3, 4]])
    world = World({"a": 200_000}, {"a": 0.4}, Task(sharp, decoy=decoy, decoys=0.5))
    found = simulate_chromosome(world, "a")
    consensus = {
        ("site", "+"): "ACGTA",
        ("site", "-"): "TACGT",
        ("decoy", "+"): "CAGTA",
        ("decoy", "-"): "TACTG",
    }
    seen = set()
    for row in found.windows.itertuples():
        if row.planted:
            letters = found.codes[row.planted_start : row.planted_start + 5]
            key = row.planted, row.planted_strand
            np.testing.assert_array_equal(letters, encode(consensus[key]))
            assert row.start <= row.planted_start <= row.end - 5
            assert row.label == (row.planted == "site")
            seen.add(key)
        else:
            assert (row.planted_start, row.planted_strand, row.label) == (-1, "", 0)
    assert seen == set(consensus)


def test_planting_in_a_real_genome_changes_the_sites_and_nothing_else(tmp_path):
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 9000))
    (tmp_path / "g.fa").write_text(f">chr1\n{letters}\n")
    windows = pd.DataFrame({"chrom": "chr1", "start": np.arange(0, 9000, 300)})
    windows["end"] = windows["start"] + 100
    with Genome(tmp_path / "g.fa", cache_dir=tmp_path) as genome:
        codes, table = plant_in_genome(genome, windows, Task(a_site(6)), seed=1)
        again, _ = plant_in_genome(genome, windows, Task(a_site(6)), seed=1)
    np.testing.assert_array_equal(codes, again)
    for row, start, label, place in zip(
        codes, table["start"], table["label"], table["planted_start"], strict=True
    ):
        changed = np.flatnonzero(row != encode(letters[start : start + 100])) + start
        assert label or not changed.size
        assert ((changed >= place) & (changed < place + 6)).all()
    assert 5 < table["label"].sum() < 25
    positive = table["label"] == 1
    assert table["log_ratio"][positive].mean() > table["log_ratio"][~positive].mean()


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: mutated_chain(1.0), "above 0 and below 1"),
        (lambda: mutated_chain(0.4, 3), "must be 0 to 2, not 3"),
        (lambda: Site(np.ones((4, 2))), "sum to 1"),
        (lambda: Site(np.ones((3, 2))), r"shape \(4, K\)"),
        (lambda: a_site(forward=2), "forward sites must be 0 to 1, not 2"),
        (lambda: a_site(reach=-1), "0 or more bases, not -1"),
        (lambda: a_site(9).starts(5), "a site of 9 bases does not fit a window of 5"),
        (lambda: World({}, {}, Task(a_site())), "at least one chromosome"),
        (lambda: World({"a": 9}, {"a": 0.4}, Task(a_site())), "a: 9 bases hold no window of 200"),
        (lambda: World({"a": 900}, {"a": 0.4}, Task(a_site()), spacing=9), "overlap"),
        (lambda: World({"a": 900}, {"a": 0.4}, Task(a_site()), spread=0.6), "no isochores have"),
        (lambda: label_probability(np.ones(2), np.ones(2), 0, 0), "prevalence.*not 0"),
        (lambda: label_probability(np.ones(2), np.ones(2), 0.5, 2), "0 to 1, not 2"),
        (lambda: decoy_of(Site(np.full((4, 3), 0.25)), np.random.default_rng(0)), "no decoy"),
        (
            lambda: optimal_score(np.full((1, 9), 4, np.uint8), mutated_chain(0.4), a_site()),
            "window 0 holds an ambiguous base",
        ),
    ],
)
def test_a_world_that_cannot_be_is_an_error_that_says_why(make, fault):
    with pytest.raises(InputError, match=fault):
        make()


# --- the command -----------------------------------------------------------------------------


def call(folder, *arguments):
    return subprocess.run(
        [Path(sys.executable).with_name("data-tools"), "simulate", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"SEQNORM_CACHE": str(folder / "cache")},
    )


@pytest.fixture
def folder(tmp_path):
    rows = ["90 5 1 2", "4 80 1 30", "4 5 1 60", "2 10 97 8"]
    lines = [f"{base} [ {row} ]" for base, row in zip("ACGT", rows, strict=True)]
    (tmp_path / "m.jaspar").write_text("\n".join([">MA1 X", *lines]) + "\n")
    return tmp_path


def test_the_command_writes_a_world_that_can_be_scored_again_from_its_files(folder):
    arguments = ["m.jaspar", "--out", "w", "--gc", 0.4, 0.5, "--length", 50000]
    arguments += ["--decoys", 0.3, "--confounding", 0.5, "--reach", 30, "--seed", 3]
    finished = call(folder, *arguments)
    assert (finished.returncode, finished.stdout) == (0, "")
    truth = tomllib.loads((folder / "w" / "truth.toml").read_text())
    table = pd.read_csv(folder / "w" / "windows.tsv", sep="\t", keep_default_na=False)
    assert truth["motif"] == "MA1 X"
    assert truth["gc"] == {"chr1": 0.4, "chr2": 0.5}
    assert finished.stderr == (
        f"{len(table):,} windows, {table['label'].sum():,} of them with a site, in w\n"
    )
    site, decoy = (Site(np.array(truth[name]), truth["reach"]) for name in ("site", "decoy"))
    with Genome(folder / "w" / "genome.fa", cache_dir=folder) as genome:
        assert genome.lengths == {"chr1": 50_000, "chr2": 50_000}
        codes = genome.windows(table["chrom"], table["start"], 200)
        bed = read_intervals(folder / "w" / "sites.bed", genome)
    chain = mutated_chain(table["background_gc"].to_numpy(), truth["cpg"])
    score = optimal_score(codes, chain, site, decoy, truth["decoys"])
    np.testing.assert_allclose(table["log_ratio"], score, atol=1e-5)
    assert len(bed) == (table["planted"] != "").sum()
    assert (bed["end"] - bed["start"] == 4).all()
    again = call(folder, *["v" if word == "w" else word for word in arguments])
    assert again.returncode == 0
    for name in ("genome.fa", "windows.tsv", "sites.bed", "truth.toml"):
        assert (folder / "w" / name).read_bytes() == (folder / "v" / name).read_bytes()


def test_the_command_plants_in_windows_of_a_real_genome(folder):
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 5000))
    (folder / "g.fa").write_text(f">c\n{letters}\n")
    (folder / "b.bed").write_text("".join(f"c\t{at}\t{at + 100}\n" for at in range(0, 5000, 200)))
    finished = call(folder, "m.jaspar", "--out", "w", "--background", "g.fa", "--windows", "b.bed")
    assert finished.returncode == 0
    table = pd.read_csv(folder / "w" / "windows.tsv", sep="\t")
    with Genome(folder / "w" / "windows.fa", cache_dir=folder) as genome:
        assert len(genome.lengths) == len(table) == 25
        for row in table[table["label"] == 0].itertuples():
            name = f"{row.chrom}:{row.start}-{row.end}"
            assert genome.fetch(name, 0, 100) == letters[row.start : row.end]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("m.jaspar --out w --gc 1.5", "chr1: no isochores have mean GC 1.5"),
        ("m.jaspar --out w --length 100", "chr1: 100 bases hold no window of 200"),
        ("m.jaspar --out w --width 3 --spacing 9", "site of 4 bases does not fit a window of 3"),
        ("m.jaspar --out w --windows b.bed", "give --background and --windows together"),
        ("m.jaspar --out m.jaspar", "cannot be written"),
        ("m.jaspar --out w --seed -1", "the seed must be 0 or more"),
        ("m.jaspar --out w --decoys 2", "share of decoys must be 0 to 1"),
        ("none.jaspar --out w", "none.jaspar: no such file"),
    ],
)
def test_the_commands_mistakes_are_one_line_and_leave_no_truth(folder, arguments, fault):
    finished = call(folder, *arguments.split())
    assert (finished.returncode, finished.stdout) == (2, "")
    assert fault in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert not list(folder.glob("w/*"))
