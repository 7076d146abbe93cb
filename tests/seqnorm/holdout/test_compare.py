"""Tables of differences, slopes and verdicts say what the measures of made-up cells hold."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from seqnorm.holdout.compare import Comparison
from seqnorm.holdout.design import claims_of
from seqnorm.holdout.inference import holm, mean_over_seeds
from seqnorm.holdout.load import load_spec
from seqnorm.holdout.measures import DECILES, METRICS, POINTS, Measures, merged
from seqnorm.holdout.spec import Spec, SpecError
from seqnorm.holdout.titles import METRIC_TITLES
from seqnorm.holdout.trial import BASELINE, Trial

PARTS = ["validation", "chr4", "chr3", "chr19"]
RESAMPLES = 100
NORMS = ["batch", "layer", "rms", "batch+again"]


@pytest.fixture
def spec(demo: Path, small: list[str]) -> Spec:
    more = [f"norms={NORMS}", "training.seeds=[0, 1, 2, 3, 4]"]
    return load_spec(demo, [*small, *more])


def measures(rates: np.ndarray, noise: np.ndarray) -> Measures:
    """Every metric of a part is its rate; the same noise on all resamples."""
    resampled = np.repeat(rates[:, None, None], len(METRICS), 1) + np.zeros(RESAMPLES + 1)
    resampled[..., 1:] += noise
    by_gc = np.full((2, DECILES, RESAMPLES + 1), 10.0)
    return Measures(resampled, np.zeros((len(PARTS), len(POINTS))), by_gc, np.zeros(1))


def compared(
    spec: Spec, effects: dict[str, float], seed: int = 0, of_parts: float = 0.0
) -> Comparison:
    rng = np.random.default_rng(seed)
    chromosomes = pd.DataFrame(
        {
            "task": "main",
            "chrom": PARTS,
            "gc_negatives": [0.4, 0.35, 0.4, 0.5],
            "blocks": [30, 40, 50, 20],
        }
    )
    measured = {}
    noise = rng.normal(scale=0.01, size=RESAMPLES)
    for kind, norm in product(spec.negatives.kinds, spec.norms):
        for number in spec.training.seeds:
            rates = np.array([0.01, 0.02, 0.04, 0.08])
            rates += effects.get(norm, 0.0) + effects.get(kind, 0.0)
            rates += rng.normal(scale=0.002)
            if of_parts:
                rates += rng.normal(scale=of_parts, size=len(PARTS))
            measured[Trial("cnn", kind, norm, 0.01, number)] = measures(rates, noise)
    for number in spec.training.seeds:
        gc = Trial(BASELINE, "random", "gc", 0.0, number)
        measured[gc] = measures(np.array([0.01, 0.0, 0.1, 0.3]), noise)
    return Comparison(spec, measured, chromosomes)


def test_a_difference_has_the_interval_and_p_value_of_its_seeds(spec: Spec) -> None:
    found = compared(spec, {"layer": -0.03})
    table = found.differences()
    assert set(table["norm"]) == {"layer", "rms", "batch+again"}
    row = table.query("norm == 'layer' and chrom == 'primary' and metric == 'recall'").iloc[0]
    cells = {cell.norm: values for cell, values in found.cells.items() if cell.model == "cnn"}
    place = METRICS.index("recall")
    plain = np.stack(
        [
            (a.resampled - b.resampled)[[2, 3], place].mean(axis=0)
            for a, b in zip(cells["layer"], cells["batch"], strict=True)
        ]
    )
    wanted = mean_over_seeds(plain, 20)
    assert row["estimate"] == pytest.approx(float(wanted.estimate))
    assert (row["low"], row["high"]) == pytest.approx(tuple(map(float, wanted.interval(0.95))))
    assert row["p"] == pytest.approx(float(wanted.p_value()))
    assert row["low_adjusted"] < row["low"] < row["high"] < row["high_adjusted"]
    assert row["blocks"] == 20


def test_p_values_are_adjusted_over_the_norms_and_not_over_the_control(spec: Spec) -> None:
    table = compared(spec, {"layer": -0.03, "rms": 0.004}).differences()
    part = table.query("chrom == 'primary' and metric == 'false_alarm_rate'").set_index("norm")
    norms = ["layer", "rms"]
    assert part.loc[norms, "p_holm"].tolist() == pytest.approx(
        holm(part.loc[norms, "p"].to_numpy()).tolist()
    )
    assert part.loc["batch+again", "p_holm"] == part.loc["batch+again", "p"]
    assert part["family"].to_dict() == {"layer": 2, "rms": 2, "batch+again": 1}


def test_other_negatives_are_compared_with_the_first_of_the_same_norm(
    demo: Path, small: list[str]
) -> None:
    more = [f"norms={NORMS}", "training.seeds=[0, 1, 2]"]
    spec = load_spec(demo, [*small, *more, "negatives.kinds=['random', 'gc_matched']"])
    found = compared(spec, {"layer": -0.01, "gc_matched": -0.03})
    table = found.factors().query("metric == 'false_alarm_rate'")
    assert table["norm"].tolist() == NORMS
    assert set(table["factor"]) == {"negatives"}
    assert set(table["negatives"]) == {"gc_matched"}
    assert set(table["against"]) == {"random"}
    cells = {(cell.negatives, cell.norm): values for cell, values in found.cells.items()}
    place = METRICS.index("false_alarm_rate")
    plain = np.stack(
        [
            (a.resampled - b.resampled)[[2, 3], place].mean(axis=0)
            for a, b in zip(cells["gc_matched", "layer"], cells["random", "layer"], strict=True)
        ]
    )
    wanted = mean_over_seeds(plain, 20)
    row = table.set_index("norm").loc["layer"]
    assert row["estimate"] == pytest.approx(float(wanted.estimate))
    assert (row["low"], row["high"]) == pytest.approx(tuple(map(float, wanted.interval())))
    assert compared(load_spec(demo, [*small, *more]), {}).factors().empty


def test_with_chromosomes_as_units_a_mean_has_the_t_test_of_the_chromosomes(
    demo: Path, small: list[str]
) -> None:
    more = [f"norms={NORMS}", "training.seeds=[0]", "evaluation.unit='chromosome'"]
    more += ["split.design='leave_one_out'", f"split.primary={PARTS[1:]}"]
    spec = load_spec(demo, [*small, *more])
    found = compared(spec, {"layer": -0.03}, of_parts=0.004)
    place = METRICS.index("false_alarm_rate")
    cells = {cell.norm: values[0] for cell, values in found.cells.items() if cell.model == "cnn"}
    change = (cells["layer"].resampled - cells["batch"].resampled)[:, place, 0]
    table = found.differences().query("norm == 'layer' and metric == 'false_alarm_rate'")
    row = table.set_index("chrom").loc["primary"]
    wanted = stats.ttest_1samp(change[1:], 0.0)
    assert row["p"] == pytest.approx(wanted.pvalue)
    assert (row["low"], row["high"]) == pytest.approx(tuple(wanted.confidence_interval()))
    assert row["blocks"] == 3
    # Of one chromosome the blocks are all that there is.
    assert table.set_index("chrom").loc["chr19", "blocks"] == 20
    slope = found.slopes().query("norm == 'layer' and kind == 'difference'").iloc[0]
    assert slope["p"] == pytest.approx(stats.linregress([0.35, 0.4, 0.5], change[1:]).pvalue)
    assert "One seed" not in found.hypotheses()["sentence"].item()


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [
        (-0.05, "rejected, guard metric changed"),
        (0.0, "rejected, no difference"),
        (0.05, "opposite"),
    ],
)
def test_the_built_in_claim_is_judged(spec: Spec, effect: float, verdict: str) -> None:
    """Every metric moves together here, the guard's too."""
    table = compared(spec, {"layer": effect}).hypotheses()
    assert table[["name", "verdict"]].to_numpy().tolist() == [["H1", verdict]]


def test_the_slope_is_false_alarms_against_gc(spec: Spec) -> None:
    table = compared(spec, {}).slopes()
    slope = table.query("norm == 'batch' and kind == 'slope'").iloc[0]
    expected = np.polyfit([0.35, 0.4, 0.5], [0.02, 0.04, 0.08], 1)[0]
    assert slope["estimate"] == pytest.approx(expected, abs=1e-9)
    assert set(table.query("kind == 'difference'")["norm"]) == {"layer", "rms", "batch+again"}


def test_slopes_are_adjusted_over_the_norms_and_not_over_the_control(spec: Spec) -> None:
    table = compared(spec, {"layer": -0.01}, of_parts=0.004).slopes()
    part = table.query("kind == 'difference'").set_index("norm")
    norms = ["layer", "rms"]
    assert part.loc[norms, "p_holm"].tolist() == pytest.approx(
        holm(part.loc[norms, "p"].to_numpy()).tolist()
    )
    assert (part.loc[norms, "low_adjusted"] < part.loc[norms, "low"]).all()
    assert (part.loc[norms, "high_adjusted"] > part.loc[norms, "high"]).all()
    alone = pd.concat([part.loc[["batch+again"]], table.query("kind == 'slope'")])
    assert (alone["p_holm"] == alone["p"]).all()
    assert (alone["low_adjusted"] == alone["low"]).all()


def test_folds_together_are_one_after_another_and_their_alarms_add_up() -> None:
    one = measures(np.array([0.01, 0.2, 0.3, 0.4]), np.zeros(RESAMPLES))
    other = measures(np.array([0.03, 0.5, 0.6, 0.7]), np.zeros(RESAMPLES))
    both = merged([one, other])
    rates = both.resampled[:, 0, 0]
    assert rates == pytest.approx([0.02, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert (both.by_gc == one.by_gc + other.by_gc).all()
    assert len(both.thresholds) == 2


def test_metrics_have_titles() -> None:
    assert set(METRIC_TITLES) == set(METRICS)


CLAIM = (
    "[{name='A', text='t', norm='%s', reference='batch', metric='%s', direction='lower', "
    "smallest_effect=%s, margin=0.01}]"
)


def test_claims_of_the_spec_take_the_place_of_the_built_in_one(
    demo: Path, small: list[str]
) -> None:
    claim = CLAIM % ("layer", "recall", "0.05")
    found = claims_of(load_spec(demo, [*small, f"hypotheses={claim}"]))
    assert [(claim.name, claim.metric, cell.norm) for claim, cell in found] == [
        ("A", "recall", "layer")
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("rms", "recall", "0.05"), "no cell of the spec compares 'rms' with 'batch'"),
        (("layer", "precision", "0.05"), "no metric 'precision'"),
        (("layer", "recall", "0.005"), "must lie above 0 and not above smallest_effect"),
        (("batch", "recall", "0.05"), "norm and reference are both 'batch'"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(
    demo: Path, small: list[str], values: tuple[str, str, str], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        load_spec(demo, [*small, f"hypotheses={CLAIM % values}"])
