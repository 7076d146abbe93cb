"""The figures of a card, against scikit-learn and against scores whose faults are known."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

import seqnorm
from data_tools.errors import InputError
from data_tools.genome import Genome
from seqnorm.robustness import audit
from seqnorm.robustness.words import figures, sentences

CHROMS = {"valid1": 0.42, "poor": 0.38, "middle": 0.45, "rich": 0.55}


def made_up(per_chrom=4000, seed=0):
    """Windows whose GC differs by chromosome; 'valid1' sets the threshold."""
    rng = np.random.default_rng(seed)
    parts = []
    for chrom, mean in CHROMS.items():
        label = (rng.random(per_chrom) < 0.2).astype(int)
        parts.append(
            pd.DataFrame(
                {
                    "chrom": chrom,
                    "start": np.arange(per_chrom) * 5000,
                    "end": np.arange(per_chrom) * 5000 + 200,
                    "label": label,
                    "gc": np.clip(rng.normal(mean, 0.05, per_chrom), 0, 1),
                    "part": "valid" if chrom == "valid1" else "test",
                }
            )
        )
    return pd.concat(parts, ignore_index=True), rng


@pytest.fixture(scope="module")
def drawn():
    return made_up()


def noise(rng, table):
    return rng.normal(size=len(table))


def test_plain_figures_are_those_of_sklearn_and_of_counting(drawn):
    table, rng = drawn
    scores = 2 * table["label"] + noise(rng, table)
    card = audit(scores, table, false_alarm_rate=0.05, resamples=50)
    valid = scores[(table["part"] == "valid") & (table["label"] == 0)]
    threshold = card.threshold.value
    assert (valid > threshold).mean() <= 0.05 < (valid >= threshold).mean() + 1e-12
    found = figures(card)
    for chrom in ("poor", "middle", "rich"):
        mine = table["chrom"] == chrom
        label, score, gc = table.loc[mine, "label"], scores[mine], table.loc[mine, "gc"]
        assert found[chrom, "auroc"].estimate == pytest.approx(roc_auc_score(label, score))
        alone = roc_auc_score(label, gc)
        assert found[chrom, "auroc_of_gc_alone"].estimate in (
            pytest.approx(alone), pytest.approx(1 - alone),
        )  # fmt: skip
        called = score > threshold
        assert found[chrom, "false_alarm_rate"].estimate == pytest.approx(called[label == 0].mean())
        assert found[chrom, "recall"].estimate == pytest.approx(called[label == 1].mean())
    assert ("valid1", "auroc") not in found


def test_a_score_that_follows_gc_shifts_the_threshold_and_not_the_ranking(drawn):
    table, rng = drawn
    means = table["chrom"].map(CHROMS)
    scores = 3 * table["label"] + noise(rng, table) + 12 * (means - 0.42)
    card = audit(scores, table, false_alarm_rate=0.05, resamples=200)
    found = figures(card)
    assert found["rich", "threshold_shift"].low > 0.1
    assert found["poor", "threshold_shift"].high < 0
    for chrom in ("poor", "rich"):
        assert abs(found[chrom, "ranking_shift"].estimate) < 0.06
    assert card.deciles.iloc[-1]["low"] > 0
    assert any("false alarms rise with GC" in line for line in sentences(card))


def test_a_score_that_is_noise_on_a_rich_chromosome_shifts_the_ranking_there_alone(drawn):
    table, rng = drawn
    seen = table["chrom"] != "rich"
    scores = 3 * table["label"] * seen + noise(rng, table)
    found = figures(audit(scores, table, false_alarm_rate=0.05, resamples=200))
    assert found["rich", "ranking_shift"].high < -0.5
    assert abs(found["rich", "threshold_shift"].estimate) < 0.03
    assert found["middle", "ranking_shift"].low < 0.05


def test_gc_as_the_score_has_no_skill_above_itself_and_none_at_equal_gc(drawn):
    table, _ = drawn
    table = table.assign(gc=np.round(table["gc"] + 0.03 * table["label"], 2))
    found = figures(audit(table["gc"], table, resamples=100))
    for chrom in ("poor", "middle", "rich"):
        assert found[chrom, "auroc"].estimate > 0.6
        assert found[chrom, "skill_above_gc"].estimate == 0
        assert found[chrom, "auroc_at_equal_gc"].estimate == pytest.approx(0.5)
    assert any("Not surely better than GC" in line for line in sentences(audit(table["gc"], table)))


def test_probabilities_that_are_true_are_calibrated_and_logits_are_told_from_them(drawn):
    table, rng = drawn
    truth = rng.random(len(table))
    table = table.assign(label=(rng.random(len(table)) < truth).astype(int))
    card = audit(truth, table, resamples=100)
    assert card.scale == "probability"
    found = figures(card)
    for chrom in ("poor", "rich"):
        assert found[chrom, "calibration_gap"].low < 0 < found[chrom, "calibration_gap"].high
        assert found[chrom, "calibration_error"].estimate < 0.05
    logits = audit(np.log(truth / (1 - truth)), table, resamples=100)
    assert logits.scale == "logit"
    assert figures(logits)["poor", "calibration_gap"] == pytest.approx(
        found["poor", "calibration_gap"]
    )
    bare = audit(truth, table, resamples=10, scale="score")
    assert bare.calibration.empty
    assert ("poor", "calibration_gap") not in figures(bare)


def test_the_intervals_hold_the_truth_about_as_often_as_they_say():
    held = []
    for seed in range(60):
        table, rng = made_up(per_chrom=800, seed=seed)
        scores = table["label"] + noise(rng, table)
        card = audit(scores, table, resamples=200, block=20_000, confidence=0.9)
        for chrom in ("poor", "middle", "rich"):
            low, high = figures(card)[chrom, "auroc"][1:]
            held.append(low <= 0.7602 <= high)  # Phi(1 / sqrt(2))
    assert 0.82 < np.mean(held) < 0.97


def test_the_tenths_are_equal_parts_of_the_negatives_and_their_rates_are_counted(drawn):
    table, rng = drawn
    scores = noise(rng, table) + 5 * table["gc"]
    card = audit(scores, table, false_alarm_rate=0.1, resamples=20)
    parts = card.deciles[card.deciles["decile"].str.isdigit()]
    test = table[(table["part"] == "test") & (table["label"] == 0)]
    assert parts["negatives"].sum() == len(test)
    assert parts["negatives"].max() - parts["negatives"].min() <= 2
    richest = test["gc"] >= parts["gc_low"].iloc[-1]
    called = scores[test.index] > card.threshold.value
    assert parts["estimate"].iloc[-1] == pytest.approx(called[richest].mean())


def test_windows_of_the_same_gc_make_one_part_and_no_claim(drawn):
    table, rng = drawn
    card = audit(noise(rng, table), table.assign(gc=0.4), resamples=20)
    assert card.deciles["decile"].tolist()[:-2] == ["10"]
    assert not any("GC-poorest" in line for line in sentences(card))


# --- what can be audited -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genome")
    letters = "".join(np.random.default_rng(1).choice(list("ACGT"), 40_000))
    (folder / "small.fa").write_text(f">a\n{letters}\n>b\n{letters[::-1]}\n")
    places = [*range(0, 30_000, 100)] * 2
    table = pd.DataFrame({"chrom": ["a"] * 300 + ["b"] * 300, "start": places})
    table = table.assign(end=table["start"] + 50, label=np.arange(600) % 3 == 0)
    with Genome(folder / "small.fa", cache_dir=folder) as genome:
        yield genome, table.astype({"label": int})


def test_a_module_a_function_and_their_scores_give_one_card(small):
    genome, table = small
    pool = nn.AdaptiveMaxPool1d(1)
    model = nn.Sequential(nn.Conv1d(4, 3, 5), nn.Dropout(0.5), pool, nn.Flatten(), nn.Linear(3, 1))
    model.train()
    by_module = audit(model, table, genome=genome, resamples=10, batch_size=70)
    assert model.training
    model.eval()
    codes = genome.windows(table["chrom"], table["start"], 50)
    hot = (codes[:, None] == np.arange(4)[None, :, None]).astype(np.float32)
    with torch.no_grad():
        scores = model(torch.from_numpy(hot)).numpy()[:, 0]

    def function(batch):
        assert isinstance(batch, np.ndarray)
        with torch.no_grad():
            return model(torch.from_numpy(batch)).numpy()

    by_function = audit(function, table, genome=genome, resamples=10)
    by_scores = audit(scores, table, genome=genome, resamples=10)
    for card in (by_function, by_scores):
        np.testing.assert_allclose(
            card.chromosomes["estimate"], by_module.chromosomes["estimate"], atol=1e-6
        )


def test_audit_stands_in_the_package_itself():
    assert seqnorm.audit is audit


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"predict": np.zeros(3)}, r"scores have shape \(3,\), the windows are 16000"),
        ({"predict": np.full(16_000, np.nan)}, "the score of window 0 is nan"),
        ({"predict": lambda x: x}, "give the genome"),
        ({"reference": ["none"]}, "unknown chromosome 'none'"),
        ({"false_alarm_rate": 1}, "false_alarm_rate lies between 0 and 1"),
        ({"confidence": 0}, "confidence lies between 0 and 1"),
        ({"block": 0}, "block is at least 1"),
        ({"resamples": 0}, "resamples is at least 1"),
        ({"scale": "odds"}, "choose one of auto, probability, logit, score"),
    ],
)
def test_a_wrong_argument_is_an_error_that_states_it(drawn, change, fault):
    table, _ = drawn
    options = {"predict": np.zeros(len(table)), "windows": table} | change
    with pytest.raises(InputError, match=fault):
        audit(options.pop("predict"), options.pop("windows"), **options)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t.drop(columns="label"), "no column 'label'"),
        (lambda t: t.drop(columns="gc"), "no column 'gc': add it or give the genome"),
        (lambda t: t.assign(label=2), "labels are 0 or 1"),
        (lambda t: t.assign(gc=np.nan), "16000 windows have no GC fraction"),
        (lambda t: t[:0], "there are no windows"),
    ],
)
def test_windows_that_cannot_be_audited_are_refused(drawn, change, fault):
    table = change(drawn[0])
    with pytest.raises(InputError, match=fault):
        audit(np.zeros(len(table)), table)


def test_a_model_that_gives_two_scores_is_refused(small):
    genome, table = small
    with pytest.raises(InputError, match=r"gives shape \(512, 2\) for 512 windows"):
        audit(lambda x: np.zeros((len(x), 2)), table, genome=genome)
