"""Windows of tables and simulations, their folds, their negatives and the controls."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_tools.errors import InputError
from data_tools.genome import Genome
from seqnorm.holdout.baselines import OPTIMUM, baseline_names
from seqnorm.holdout.design import Cell, Fold, cells_of, folds_of, task_of
from seqnorm.holdout.distinct import Distinct
from seqnorm.holdout.genome_source import GenomeSource
from seqnorm.holdout.labelled_source import LabelledSource, simulated_windows, table_windows
from seqnorm.holdout.load import load_spec
from seqnorm.holdout.sources import open_source
from seqnorm.holdout.spec import Spec, SpecError, Task
from seqnorm.holdout.windows import VALIDATION, WindowSet
from seqnorm.metrics import Scored, auroc

WIDTH = 40
TRAINING = """
[training]
learning_rates = [0.01]
seeds = [0, 1]
epochs = 2
threads = 1

[[models]]
name = "cnn"
options = { channels = 8, kernel_size = 11 }
"""
TABLE = f"""
name = "loco"
question = "Does it?"
norms = ["batch", "layer"]
[table]
file = "windows.tsv"
sequence = "seq"
start = "begin"
[split]
design = "leave_one_out"
test = ["c1", "c2", "c3"]
primary = ["c1", "c2", "c3"]
validation_every = 4
block = 10_000
few_positives = 5
[[tasks]]
name = "A"
label = "y_a"
where = {{ cell = "one" }}
[[tasks]]
name = "B"
label = "y_b"
[negatives]
kinds = ["random", "gc_matched", "shuffled"]
per_positive = 1
{TRAINING}
"""
SIMULATION = f"""
name = "dose"
question = "Does it?"
norms = ["batch"]
[simulation]
motif = "{Path(__file__).parents[3] / "examples" / "data" / "MA0139.2.jaspar"}"
gc = {{ train = 0.41, "+0" = 0.41, "+8" = 0.49 }}
bases = 200_000
training_bases = 400_000
confounding = 0.6
[split]
train = ["train"]
test = ["+0", "+8"]
primary = ["+8"]
[[tasks]]
name = "confounded"
[[tasks]]
name = "free"
confounding = 0.0
{TRAINING}
"""


@pytest.fixture
def table_spec(tmp_path: Path) -> Spec:
    rng = np.random.default_rng(0)
    count = 900
    gc = rng.uniform(0.3, 0.7, count)
    letters = [
        "".join(rng.choice(list("GCAT"), WIDTH, p=[g / 2, g / 2, (1 - g) / 2, (1 - g) / 2]))
        for g in gc
    ]
    begin = np.sort(rng.integers(0, 400_000, count))
    pd.DataFrame(
        {
            "chrom": rng.choice(["c1", "c2", "c3", "c4"], count),
            "begin": begin,
            "end": begin + WIDTH,
            "cell": rng.choice(["one", "two"], count),
            "y_a": rng.choice([0, 1, -1], count),
            "y_b": rng.binomial(1, np.clip(gc - 0.2, 0, 1)),
            "seq": letters,
        }
    ).to_csv(tmp_path / "windows.tsv", sep="\t", index=False)
    (tmp_path / "spec.toml").write_text(TABLE)
    return load_spec(tmp_path / "spec.toml")


@pytest.fixture
def simulated(tmp_path: Path) -> Spec:
    (tmp_path / "spec.toml").write_text(SIMULATION)
    return load_spec(tmp_path / "spec.toml")


def source_of(spec: Spec, task: str) -> LabelledSource:
    assert spec.table is not None
    return LabelledSource(spec, table_windows(spec, spec.table, task_of(spec, task)), 0)


def places(windows: WindowSet) -> set[tuple[str, int]]:
    table = windows.table
    return set(zip(table["chrom"], table["start"], strict=True))


def test_each_test_chromosome_is_left_out_once_and_learnt_from_in_all_other_folds(
    table_spec: Spec,
) -> None:
    assert folds_of(table_spec) == [
        Fold("c1", ("c2", "c3"), (), ("c1",)),
        Fold("c2", ("c1", "c3"), (), ("c2",)),
        Fold("c3", ("c1", "c2"), (), ("c3",)),
    ]


def test_a_fold_shares_its_windows_out_and_none_is_in_two_parts(table_spec: Spec) -> None:
    source = source_of(table_spec, "B")
    every = places(source.windows)
    for fold in folds_of(table_spec):
        evaluation = source.evaluation(fold)
        chooses = places(
            WindowSet(evaluation.table.query("part == 'validation'"), evaluation.codes, 0)
        )
        tests = places(WindowSet(evaluation.table.query("part == 'test'"), evaluation.codes, 0))
        learns = places(source.training(fold, "random", 0))
        assert not learns & chooses
        assert not (learns | chooses) & tests
        assert {chrom for chrom, _ in tests} == set(fold.test)
        wanted = {place for place in every if place[0] in (*fold.train, *fold.test)}
        assert learns | chooses | tests == wanted
        assert all(start // 10_000 % 4 == 0 for _, start in {(c, s + 20) for c, s in chooses})


def test_a_task_takes_the_rows_of_its_cells_whose_label_is_known(table_spec: Spec) -> None:
    assert table_spec.table is not None
    raw = pd.read_csv(table_spec.table.file, sep="\t")
    found = source_of(table_spec, "A").windows
    wanted = raw[(raw["cell"] == "one") & (raw["y_a"] != -1)]
    assert found.table["label"].tolist() == wanted["y_a"].tolist()
    assert found.table["start"].tolist() == wanted["begin"].tolist()
    assert "".join("ACGT"[code] for code in found.codes[0]) == wanted["seq"].iloc[0]


def test_matched_negatives_have_the_gc_of_the_positives_and_all_of_them_do_not(
    table_spec: Spec,
) -> None:
    source, fold = source_of(table_spec, "B"), folds_of(table_spec)[0]

    def skill_of_gc(windows: WindowSet) -> float:
        table = windows.table
        labels, gc = table["label"].to_numpy(), table["gc"].to_numpy()
        scored = Scored(gc, labels, gc, np.zeros(len(table), np.int64))
        return float(auroc(scored, np.ones((1, 1)))[0])

    whole = source.training(fold, "random", 0)
    matched = source.training(fold, "gc_matched", 0)
    assert skill_of_gc(whole) > 0.6
    assert skill_of_gc(matched) == pytest.approx(0.5, abs=0.02)
    labels = matched.table["label"]
    assert (labels == 1).sum() == (labels == 0).sum()
    dropped = source.counts["fold c1: positives without a match (seed 0)"]
    assert (labels == 1).sum() + dropped == (whole.table["label"] == 1).sum()


def test_shuffled_negatives_have_the_dinucleotides_of_their_positives(table_spec: Spec) -> None:
    source, fold = source_of(table_spec, "B"), folds_of(table_spec)[1]
    found = source.training(fold, "shuffled", 0)
    positive = found.codes[(found.table["label"] == 1).to_numpy()]
    negative = found.codes[(found.table["label"] == 0).to_numpy()]

    def pairs(codes: np.ndarray) -> np.ndarray:
        return np.sort(4 * codes[:, :-1].astype(int) + codes[:, 1:], axis=1)

    assert (pairs(positive) == pairs(negative)).all()
    assert (positive != negative).any(axis=1).mean() > 0.99
    other = source.training(fold, "shuffled", 1).codes
    assert (found.codes != other).any()


def test_a_simulation_knows_the_best_score_there_is(simulated: Spec) -> None:
    assert simulated.simulation is not None
    task = task_of(simulated, "confounded")
    windows = simulated_windows(simulated, simulated.simulation, task)
    table = windows.table

    def skill(score: str) -> float:
        blocks = np.zeros(len(table), np.int64)
        values = table[score].to_numpy()
        scored = Scored(values, table["label"].to_numpy(), table["gc"].to_numpy(), blocks)
        return float(auroc(scored, np.ones((1, 1)))[0])

    assert skill("optimum") > max(0.9, skill("gc"))
    assert windows.table.groupby("chrom")["gc"].mean().round(2).to_dict() == pytest.approx(
        {"train": 0.41, "+0": 0.41, "+8": 0.49}, abs=0.03
    )
    free = simulated_windows(simulated, simulated.simulation, task_of(simulated, "free")).table
    within = [part[["gc", "label"]].corr().iloc[0, 1] for _, part in free.groupby("chrom")]
    # The motif is GC-rich itself.
    assert np.abs(within).max() < 0.25
    follow = [part[["gc", "label"]].corr().iloc[0, 1] for _, part in table.groupby("chrom")]
    assert all(more > less + 0.15 for more, less in zip(follow, within, strict=True))


def test_nothing_is_known_of_the_best_score_in_a_control(simulated: Spec) -> None:
    controls = (Task("mixed", control="permuted"), Task("bare", control="composition"))
    spec = replace(simulated, tasks=(*simulated.tasks, *controls))
    assert OPTIMUM in baseline_names(spec, "confounded")
    assert OPTIMUM not in baseline_names(spec, "mixed") + baseline_names(spec, "bare")


@pytest.mark.parametrize("control", ["permuted", "composition"])
def test_controls_leave_nothing_to_learn(table_spec: Spec, tmp_path: Path, control: str) -> None:
    text = TABLE.replace('label = "y_b"', f'label = "y_b"\ncontrol = "{control}"')
    (tmp_path / "control.toml").write_text(text)
    spec = load_spec(tmp_path / "control.toml")
    fold = folds_of(spec)[0]
    plain = source_of(spec, "B")
    with open_source(spec, task_of(spec, "B")) as source:
        given, changed = plain.evaluation(fold), source.evaluation(fold)
        first, again = (source.training(fold, "random", seed) for seed in (0, 0))
        learnt = plain.training(fold, "random", 0)
    assert (first.codes == again.codes).all()
    if control == "permuted":
        assert (changed.codes == given.codes).all()
        test = given.table["part"] == "test"
        for part in (test, ~test):
            pair = [found.table[part] for found in (changed, given)]
            now, before = (table.groupby("chrom")["label"].sum().tolist() for table in pair)
            assert now == before
            assert (pair[0]["label"] != pair[1]["label"]).mean() > 0.2
        # What goes along with the true labels must not with these.
        scattered = changed.table[test]["label"].corr(given.table[test]["label"])
        assert abs(scattered) < 4 / np.sqrt(test.sum())
        assert (first.table["label"] != learnt.table["label"]).mean() > 0.2
        assert first.table["label"].sum() == learnt.table["label"].sum()
    else:
        assert (changed.table["label"] == given.table["label"]).all()
        assert (np.sort(changed.codes) == np.sort(given.codes)).all()
        assert changed.table["gc"].tolist() == given.table["gc"].tolist()
        assert (changed.codes != given.codes).any(axis=1).mean() > 0.95


def test_shuffled_negatives_of_a_genome_keep_their_margins(demo: Path, small: list[str]) -> None:
    spec = load_spec(demo, [*small, "negatives.kinds=['shuffled']"])
    assert spec.data is not None
    (fold,) = folds_of(spec)
    with Genome(spec.data.genome) as genome:
        found = GenomeSource(spec, spec.data, genome).training(fold, "shuffled", 0)
    assert found.codes.shape[1] == spec.data.width + 2 * spec.data.jitter
    labels = found.table["label"]
    assert (labels == 0).sum() == 2 * (labels == 1).sum() > 100


def test_cells_are_those_that_a_study_names(table_spec: Spec, tmp_path: Path) -> None:
    assert len(cells_of(table_spec)) == 2 * 3 * 2
    wanted = (
        '[[cells]]\ntasks = ["A"]\nnegatives = ["random"]\n'
        '[[cells]]\nnegatives = ["shuffled"]\nnorms = ["batch"]\n'
    )
    (tmp_path / "some.toml").write_text(TABLE + wanted)
    assert cells_of(load_spec(tmp_path / "some.toml")) == [
        Cell("A", "cnn", "random", "batch"),
        Cell("A", "cnn", "random", "layer"),
        Cell("A", "cnn", "shuffled", "batch"),
        Cell("B", "cnn", "shuffled", "batch"),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[table]", "[simulation]\nmotif='m'\ngc={c1=0.5}\n[table]"), "has table and simulation"),
        (('label = "y_b"\n', ""), "key 'tasks.1.label' is missing; name a column"),
        (('label = "y_b"', "confounding = 0.5"), "key 'tasks.1.confounding' is of a simulation"),
        (('name = "B"', 'name = "A"'), "key 'tasks' names something twice"),
        (('"gc_matched"', '"flank"'), "flanks are drawn from a genome's bases alone"),
        (('test = ["c1", "c2", "c3"]', 'test = ["c1"]'), "primary chromosome 'c2'"),
        (("[negatives]", "[[cells]]\nnorms=['rms']\n[negatives]"), "names 'rms'; the spec has"),
    ],
)
def test_a_spec_that_does_not_fit_its_source_is_refused(
    table_spec: Spec, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    assert change[0] in TABLE
    (tmp_path / "wrong.toml").write_text(TABLE.replace(*change))
    with pytest.raises(SpecError, match=said):
        load_spec(tmp_path / "wrong.toml", runnable=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("y_b", "y_c"), "no column 'y_c'"),
        (("y_b", "begin"), "labels are 0, 1 and -1"),
        (('cell = "one"', 'cell = "three"'), "no row for task 'A'"),
        (('start = "begin"', 'start = "from"'), "no column 'from'"),
    ],
)
def test_a_table_that_does_not_hold_what_the_spec_says_is_refused(
    table_spec: Spec, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    (tmp_path / "wrong.toml").write_text(TABLE.replace(*change))
    spec = load_spec(tmp_path / "wrong.toml")
    with pytest.raises(InputError, match=said):
        [source_of(spec, task.name) for task in spec.tasks]


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("begin", "NA", "column 'begin' holds 'NA'"),
        ("begin", "12.5", "column 'begin' holds '12.5'"),
        ("end", "x", "column 'end' holds 'x'"),
        ("begin", "-10", "a window from -10 to"),
        ("end", "5", "to 5 cannot hold"),
    ],
)
def test_places_that_cannot_be_are_refused_with_the_window(
    table_spec: Spec, column: str, value: str, said: str
) -> None:
    assert table_spec.table is not None
    file = Path(table_spec.table.file)
    table = pd.read_csv(file, sep="\t", dtype=str)
    row = table.index[(table["cell"] == "one") & (table["y_a"] == "1")][0]
    table.loc[row, column] = value
    table.to_csv(file, sep="\t", index=False)
    with pytest.raises(InputError, match=said) as caught:
        [source_of(table_spec, task.name) for task in table_spec.tasks]
    assert str(table.loc[row, "seq"])[:20] in str(caught.value)


def test_validation_windows_of_one_label_are_refused(table_spec: Spec) -> None:
    windows = source_of(table_spec, "B").windows
    windows = WindowSet(windows.table.assign(label=1), windows.codes, 0)
    with pytest.raises(InputError, match="are not of both labels"):
        LabelledSource(table_spec, windows, 0).evaluation(folds_of(table_spec)[0])
    assert VALIDATION == "validation"


def test_training_windows_that_nearly_equal_a_test_window_are_left_out(table_spec: Spec) -> None:
    source, fold = source_of(table_spec, "B"), folds_of(table_spec)[0]
    rng = np.random.default_rng(0)
    count = len(source.windows.table)
    wide = rng.integers(0, 4, (count, 200), dtype=np.uint8)
    source.windows = WindowSet(source.windows.table, wide, 0)
    learns = source.training(fold, "random", 0)
    evaluation = source.evaluation(fold)
    learns.codes[3] = 3 - evaluation.codes[-1, ::-1]
    learns.codes[5, :150] = evaluation.codes[0, 50:]
    kept, dropped = Distinct(evaluation, 0.5).left(learns)
    assert dropped == 2
    wanted = np.setdiff1d(np.arange(len(learns.table)), [3, 5])
    assert (kept.codes == learns.codes[wanted]).all()
    assert kept.table["start"].tolist() == learns.table["start"][wanted].tolist()
