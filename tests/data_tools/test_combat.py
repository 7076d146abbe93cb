"""ComBat against its authors' numbers, known answers, and the ways in which it can lie."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_tools.combat import confounding, fit_combat, log_cpm
from data_tools.combat.counts import LowCountWarning
from data_tools.combat.priors import nonparametric
from data_tools.combat.regression import solve
from data_tools.errors import InputError


def drawn(genes=400, samples=30, seed=0):
    """Expression with a covariate's effect and batches that shift and stretch it."""
    generator = np.random.default_rng(seed)
    batch = np.array(list("abc"))[np.arange(samples) % 3]
    sick = np.array(["no", "yes"])[(np.arange(samples) // 3) % 2]
    truth = generator.normal(8, 2, (genes, 1)) + generator.normal(0, 1, (genes, samples))
    truth += generator.normal(0, 1, (genes, 1)) * (sick == "yes")
    data = truth.copy()
    for name, shift, stretch in (("a", -2, 0.5), ("b", 0, 1), ("c", 3, 2)):
        chosen = batch == name
        size = generator.normal(shift, 0.5, (genes, 1))
        data[:, chosen] += size + (stretch - 1) * generator.normal(0, 1, (genes, chosen.sum()))
    return data, batch, {"sick": sick}


# --- the published program -------------------------------------------------------------------


@pytest.fixture(scope="module")
def bladder():
    folder = os.environ.get("SEQNORM_SHARED_DATA")
    if not folder:
        pytest.skip("SEQNORM_SHARED_DATA names no folder with rna_batch/bladderbatch_22283x57.npz")
    place = Path(folder) / "rna_batch"
    with np.load(place / "bladderbatch_22283x57.npz") as file:
        data = file["X"].astype(np.float64)
    samples = pd.read_csv(place / "bladderbatch_samples.csv", index_col=0)
    return data, samples["batch"].astype(int).astype(str).to_numpy(), samples["cancer"].to_numpy()


def peer(data, batch, cancer, **options):
    module = pytest.importorskip("neuroCombat")
    table = pd.DataFrame({"batch": batch} | ({} if cancer is None else {"cancer": cancer}))
    kept = [] if cancer is None else ["cancer"]
    return module.neuroCombat(data.copy(), table, "batch", kept, **options)["data"]


CHOICES = [
    (200, *choice)
    for choice in itertools.product([True, False], [None, "2"], [True, False], [True, False])
]


@pytest.mark.parametrize(
    ("genes", "parametric", "reference", "kept", "mean_only"),
    [*CHOICES, (None, True, None, True, False)],
)
def test_bladder_is_corrected_as_by_an_independent_program(
    bladder, genes, parametric, reference, kept, mean_only, monkeypatch
):
    data, batch, cancer = bladder
    # The peer was written for a NumPy that still had this name.
    monkeypatch.setattr(np, "int", int, raising=False)
    data = data[:genes]
    cancer = cancer if kept else None
    theirs = peer(
        data, batch, cancer, parametric=parametric, ref_batch=reference, mean_only=mean_only
    )
    fitted = fit_combat(
        data,
        batch,
        {"cancer": cancer} if kept else None,
        prior="parametric" if parametric else "nonparametric",
        reference=reference,
        mean_only=mean_only,
    )
    ours = fitted.apply(data, batch, {"cancer": cancer} if kept else None)
    np.testing.assert_allclose(ours, theirs, atol=1e-6, rtol=0)


def test_bladder_says_how_far_cancer_is_confounded(bladder):
    _, batch, cancer = bladder
    found = confounding(batch, {"cancer": cancer})
    columns = pd.get_dummies(cancer, drop_first=True).to_numpy(float)
    blocks = pd.get_dummies(batch).to_numpy(float)
    fit = blocks @ np.linalg.lstsq(blocks, columns)[0]
    fit, columns = fit - fit.mean(0), columns - columns.mean(0)
    share = np.trace(np.linalg.pinv(columns.T @ columns) @ (fit.T @ fit)) / 2
    assert found.erased["cancer"] == pytest.approx(share)
    assert 0.3 < share < 1
    assert found.separable


# --- known answers ---------------------------------------------------------------------------


def by_hand(data, batch):
    """The parametric estimate as the paper's formulas, a gene at a time, to a fixed point."""
    levels = sorted(set(batch))
    out = np.empty_like(data)
    means = {b: data[:, batch == b].mean(1) for b in levels}
    grand = sum(means[b] * np.mean(batch == b) for b in levels)
    residual = np.concatenate([data[:, batch == b] - means[b][:, None] for b in levels], axis=1)
    sigma = np.sqrt((residual**2).mean(1))
    z = (data - grand[:, None]) / sigma[:, None]
    for b in levels:
        mine = z[:, batch == b]
        n = mine.shape[1]
        gamma, delta = mine.mean(1), mine.var(1, ddof=1)
        centre, tau = gamma.mean(), gamma.var(ddof=1)
        m, v = delta.mean(), delta.var(ddof=1)
        shape, rate = m * m / v + 2, m**3 / v + m
        for i in range(len(data)):
            g, d = gamma[i], delta[i]
            for _ in range(500):
                g = (n * tau * gamma[i] + d * centre) / (n * tau + d)
                d = (rate + ((mine[i] - g) ** 2).sum() / 2) / (n / 2 + shape - 1)
            out[i, batch == b] = sigma[i] * (mine[i] - g) / np.sqrt(d) + grand[i]
    return out


def test_the_parametric_estimate_is_the_papers_fixed_point():
    data, batch, _ = drawn(60)
    fitted = fit_combat(data, batch, tolerance=1e-13)
    np.testing.assert_allclose(fitted.apply(data, batch), by_hand(data, batch), atol=1e-8)


def test_the_nonparametric_estimate_is_the_mean_weighted_by_likelihoods():
    generator = np.random.default_rng(1)
    data = generator.normal(0.4, 1.3, (25, 6))
    data[3, 2] = data[7, :2] = np.nan
    gamma, delta = np.nanmean(data, 1), np.nanvar(data, 1, ddof=1)
    g_star, d_star = nonparametric(data, gamma, delta)
    for i in range(25):
        x = data[i][~np.isnan(data[i])]
        others = [j for j in range(25) if j != i]
        weight = np.array(
            [
                np.prod(
                    np.exp(-((x - gamma[j]) ** 2) / (2 * delta[j])) / np.sqrt(2 * np.pi * delta[j])
                )
                for j in others
            ]
        )
        assert g_star[i] == pytest.approx((weight * gamma[others]).sum() / weight.sum())
        assert d_star[i] == pytest.approx((weight * delta[others]).sum() / weight.sum())


def test_a_gene_far_from_all_others_gets_a_number_and_not_nan():
    data = np.random.default_rng(2).normal(size=(50, 8))
    data[0] += 1e3
    g_star, d_star = nonparametric(data, data.mean(1), data.var(1, ddof=1))
    assert np.isfinite(g_star).all()
    assert np.isfinite(d_star).all()


def test_without_a_prior_every_batch_gets_the_same_mean_and_variance():
    data, batch, _ = drawn()
    corrected = fit_combat(data, batch, prior="none").apply(data, batch)
    for moment in (np.mean, np.var):
        found = [moment(corrected[:, batch == b], axis=1) for b in "abc"]
        np.testing.assert_allclose(found[0], found[1], rtol=1e-9)
        np.testing.assert_allclose(found[0], found[2], rtol=1e-9)


@pytest.mark.parametrize("prior", ["parametric", "nonparametric", "none"])
@pytest.mark.parametrize("mean_only", [True, False])
def test_the_batches_shift_goes_and_the_covariates_effect_stays(prior, mean_only):
    data, batch, covariates = drawn()
    fitted = fit_combat(data, batch, covariates, prior=prior, mean_only=mean_only)
    corrected = fitted.apply(data, batch, covariates)
    sick = covariates["sick"] == "yes"

    def effect(table):
        return (table[:, sick] - table[:, ~sick]).mean(1)

    assert np.corrcoef(effect(corrected), effect(data))[0, 1] > 0.85
    means = np.stack([corrected[:, batch == b].mean(1) for b in "abc"])
    before = np.stack([data[:, batch == b].mean(1) for b in "abc"])
    # As published, the prior of a mean alone takes each gene's shift for one observation.
    left = 0.5 if prior == "parametric" and mean_only else 0.1
    assert np.ptp(means, axis=0).mean() < left * np.ptp(before, axis=0).mean()


def test_the_reference_batch_keeps_its_bits_and_draws_the_others_to_it():
    data, batch, covariates = drawn()
    fitted = fit_combat(data, batch, covariates, reference="c")
    corrected = fitted.apply(data, batch, covariates)
    np.testing.assert_array_equal(corrected[:, batch == "c"], data[:, batch == "c"])
    shift = corrected[:, batch == "a"].mean() - data[:, batch == "c"].mean()
    assert abs(shift) < 0.2


# --- fit here, apply there -------------------------------------------------------------------


def test_a_new_sample_is_corrected_by_what_was_fitted_without_it():
    data, batch, covariates = drawn(samples=36)
    train = np.arange(36) < 30
    fitted = fit_combat(data[:, train], batch[train], {"sick": covariates["sick"][train]})
    new = {"sick": covariates["sick"][~train]}
    together = fitted.apply(data[:, ~train], batch[~train], new)
    for at in range(6):
        alone = fitted.apply(
            data[:, ~train][:, [at]], batch[~train][[at]], {"sick": new["sick"][[at]]}
        )
        np.testing.assert_allclose(alone[:, 0], together[:, at], rtol=1e-13)
    means = [together[:, batch[~train] == b].mean() for b in "abc"]
    assert np.ptp(means) < 0.2 * np.ptp([data[:, batch == b].mean() for b in "abc"])


def test_a_batch_level_or_covariate_that_was_not_fitted_is_an_error():
    data, batch, covariates = drawn()
    fitted = fit_combat(data, batch, covariates)
    with pytest.raises(InputError, match="batch d was not fitted, only a, b, c"):
        fitted.apply(data[:, :1], ["d"], {"sick": ["no"]})
    with pytest.raises(InputError, match="level maybe of sample 1 was not there"):
        fitted.apply(data[:, :1], ["a"], {"sick": ["maybe"]})
    with pytest.raises(InputError, match="covariates are sick, got none"):
        fitted.apply(data[:, :1], ["a"])
    with pytest.raises(InputError, match="399 genes, but 400 were fitted"):
        fitted.apply(data[1:], batch, covariates)


# --- missing, constant, scarce ---------------------------------------------------------------


def test_missing_values_are_solved_gene_by_gene_and_stay_missing():
    data, batch, covariates = drawn(50)
    holes = np.random.default_rng(3).random(data.shape) < 0.1
    data[holes] = np.nan
    design = np.column_stack([np.ones(30), np.arange(30), np.arange(30) % 3])
    for gene, found in zip(data, solve(design, data).T, strict=True):
        known = ~np.isnan(gene)
        np.testing.assert_allclose(found, np.linalg.lstsq(design[known], gene[known])[0], atol=1e-9)
    fitted = fit_combat(data, batch, covariates)
    corrected = fitted.apply(data, batch, covariates)
    np.testing.assert_array_equal(np.isnan(corrected), holes)
    means = [np.nanmean(corrected[:, batch == b]) for b in "abc"]
    assert np.ptp(means) < 0.1


def test_genes_that_cannot_be_fitted_stay_and_are_counted():
    data, batch, _ = drawn()
    data[5, batch == "b"] = 0
    data[6, batch == "c"] = np.nan
    data[7, np.flatnonzero(batch == "a")[1:]] = np.nan
    fitted = fit_combat(data, batch)
    assert np.flatnonzero(~fitted.adjusted).tolist() == [5, 6, 7]
    assert list(fitted.notes) == [
        "1 genes constant within a batch are left as they are",
        "2 genes with too few values are left as they are",
    ]
    corrected = fitted.apply(data, batch)
    np.testing.assert_array_equal(corrected[5:8], data[5:8])
    others = np.delete(np.arange(400), [5, 6, 7])
    alone = fit_combat(data[others], batch).apply(data[others], batch)
    np.testing.assert_allclose(corrected[others], alone)


def test_a_gene_that_the_design_explains_wholly_stays_and_is_counted():
    data, batch, covariates = drawn()
    data[4] = (covariates["sick"] == "yes") * 2.0 + (batch == "a")
    fitted = fit_combat(data, batch, covariates)
    assert not fitted.adjusted[4]
    assert fitted.notes[-1] == "1 genes without residual variance are left as they are"


def test_a_batch_of_one_sample_makes_it_means_alone_and_says_so():
    data, batch, _ = drawn()
    batch = batch.copy().astype(object)
    batch[0] = "lonely"
    fitted = fit_combat(data, batch)
    assert fitted.notes == ("means alone are corrected: one sample in batch lonely",)
    assert (fitted.delta == 1).all()
    means = fit_combat(data, batch, mean_only=True)
    np.testing.assert_array_equal(fitted.apply(data, batch), means.apply(data, batch))


# --- confounding -----------------------------------------------------------------------------


def test_confounded_batches_are_refused_by_name_unless_forced():
    data, batch, _ = drawn()
    outcome = {"outcome": np.where(batch == "c", "dead", "alive")}
    message = (
        r"cannot be told apart \(outcome=alive occurs in batches a, b alone, which hold no other "
        r"level; outcome=dead occurs in batch c alone"
    )
    with pytest.raises(InputError, match=message):
        fit_combat(data, batch, outcome)
    forced = fit_combat(data, batch, outcome, force=True)
    assert "forced although batch and biology cannot be told apart" in forced.notes
    assert np.isfinite(forced.apply(data, batch, outcome)).all()


def test_covariates_that_only_together_give_the_batch_away_are_refused():
    data, batch, _ = drawn()
    generator = np.random.default_rng(5)
    first = generator.normal(size=30)
    both = {"first": first, "second": (batch == "a") - first}
    assert not confounding(batch, both).separable
    assert max(confounding(batch, both).erased.values()) < 1
    with pytest.raises(InputError, match="cannot be told apart"):
        fit_combat(data, batch, both)


def test_the_share_between_batches_is_the_r2_of_a_regression_on_them():
    generator = np.random.default_rng(6)
    batch = generator.choice(list("abcd"), 50)
    age = generator.normal(50, 9, 50) + 5 * (batch == "d")
    between = sum((batch == b).sum() * (age[batch == b].mean() - age.mean()) ** 2 for b in "abcd")
    found = confounding(batch, {"age": age})
    assert found.erased["age"] == pytest.approx(between / ((age - age.mean()) ** 2).sum())
    assert found.lines() == [
        f"age: {found.erased['age']:.0%} of its variation lies between batches"
    ]


def test_what_the_share_says_is_what_a_blind_correction_erases():
    """Genes that are the covariate and nothing else lose this share of their variation."""
    generator = np.random.default_rng(7)
    batch = np.repeat(["a", "b"], 100)
    level = generator.random(200) < np.where(batch == "a", 0.2, 0.8)
    data = level + generator.normal(0, 0.01, (200, 200))
    corrected = fit_combat(data, batch, mean_only=True, prior="none").apply(data, batch)
    left = corrected.mean(0).var() / data.mean(0).var()
    assert 1 - left == pytest.approx(confounding(batch, {"level": level}).erased["level"], abs=0.01)


# --- counts and mistakes ---------------------------------------------------------------------


def test_log_cpm_is_voom_and_warns_of_low_counts():
    counts = np.array([[5, 0, 3], [900, 20, 1000], [40, 60, 7000]])
    with pytest.warns(LowCountWarning, match="1 of 3 genes have fewer than 10 reads"):
        found = log_cpm(counts)
    np.testing.assert_allclose(found, np.log2((counts + 0.5) / (counts.sum(0) + 1) * 1e6))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"data": np.zeros(5)}, r"shape \(genes, samples\), got \(5,\)"),
        ({"data": np.full((3, 4), np.inf)}, "gene 1 of sample 1 is infinite"),
        ({"data": np.zeros((3, 4))}, "0 of 3 genes vary in every batch"),
        ({"batch": list("aab")}, "3 batches for 4 samples"),
        ({"batch": ["a", "a", None, "b"]}, "sample 3 has no batch"),
        ({"batch": list("aaaa")}, "all samples are of batch a"),
        ({"prior": "flat"}, "prior 'flat' does not exist; choose one of parametric, nonparam"),
        ({"reference": "c"}, "reference batch c is none of a, b"),
        ({"tolerance": 0}, "between 0 and 1, not 0"),
        ({"covariates": {"age": [1, 2, 3]}}, "covariates of 3 samples for data of 4"),
        ({"covariates": {"age": [1, 2, 3, np.nan]}}, "age: no value for sample 4"),
        ({"covariates": {"age": [1, 2, 3, np.inf]}}, "inf of sample 4 is no finite number"),
    ],
)
def test_a_mistake_is_an_error_that_names_it(change, fault):
    good = {"data": np.random.default_rng(0).normal(size=(3, 4)), "batch": list("aabb")}
    with pytest.raises(InputError, match=fault):
        fit_combat(**(good | change))


@pytest.mark.parametrize(
    ("counts", "prior", "fault"),
    [
        ([[1, -2]], 0.5, "count -2 of gene 1 in sample 2"),
        ([[1, 0]], 0.5, "sample 2 has no read"),
        ([[1, 1]], 0, "above 0, not 0"),
        ([1, 2], 0.5, r"shape \(genes, samples\)"),
    ],
)
def test_counts_that_are_none_are_an_error(counts, prior, fault):
    with pytest.raises(InputError, match=fault):
        log_cpm(counts, prior)


# --- the command -----------------------------------------------------------------------------


def call(*arguments):
    return subprocess.run(
        [Path(sys.executable).with_name("data-tools"), "combat", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def files(tmp_path):
    data, batch, covariates = drawn(40)
    names = [f"s{number}" for number in range(30)]
    pd.DataFrame(data, [f"g{i}" for i in range(40)], names).to_csv(tmp_path / "genes.csv")
    table = pd.DataFrame({"batch": batch, "sick": covariates["sick"], "late": batch == "c"}, names)
    table["train"] = (np.arange(30) < 24).astype(int)
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "samples.csv")
    return tmp_path


def test_the_command_fits_on_the_training_samples_and_corrects_all(files):
    out = files / "out.csv"
    arguments = ["--batch", "batch", "--keep", "sick", "--fit-on", "train", "--out", out]
    finished = call(files / "genes.csv", files / "samples.csv", *arguments)
    assert (finished.returncode, finished.stdout) == (0, "")
    assert finished.stderr.splitlines() == [
        "sick: 0% of its variation lies between batches",
        "40 of 40 genes corrected in 3 batches, fitted on 24 of 30 samples",
    ]
    data, batch, covariates = drawn(40)
    fitted = fit_combat(data[:, :24], batch[:24], {"sick": covariates["sick"][:24]})
    found = pd.read_csv(out, index_col=0)
    assert list(found.columns) == [f"s{number}" for number in range(30)]
    np.testing.assert_allclose(found, fitted.apply(data, batch, covariates), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("--batch batch --keep late", "cannot be told apart (late=False occurs in batches a, b"),
        ("--batch batch --check late", "cannot be told apart"),
        ("--batch plate", "samples.csv: no column plate; it has batch, sick, late, train"),
        ("--batch batch --fit-on sick", "column sick must hold 1 (to fit on) and 0"),
        ("--batch batch --counts", "counts are 0 or more"),
        ("--batch batch --out .", "cannot be written"),
    ],
)
def test_the_commands_mistakes_are_one_line(files, arguments, fault):
    finished = call(files / "genes.csv", files / "samples.csv", *arguments.split())
    assert (finished.returncode, finished.stdout) == (2, "")
    assert fault in finished.stderr.splitlines()[-1]
    assert finished.stderr.splitlines()[-1].startswith("data-tools: error: ")
