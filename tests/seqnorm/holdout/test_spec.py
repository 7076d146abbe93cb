from dataclasses import replace
from pathlib import Path

import pytest

from seqnorm.holdout.load import as_toml, load_spec
from seqnorm.holdout.spec import SpecError
from seqnorm.holdout.trial import Trial

EXAMPLES = Path(__file__).parents[3] / "examples"
DEMO = EXAMPLES / "human_ctcf.toml"


@pytest.mark.parametrize(
    "name", ["human_ctcf", "human_ctcf_full", "human_ctcf_reverse", "gc_dose_response"]
)
def test_every_example_is_a_valid_spec(name: str) -> None:
    spec = load_spec(EXAMPLES / f"{name}.toml")
    assert spec.name == name
    assert len(spec.training.seeds) >= 3


def test_a_spec_written_as_toml_reads_back_as_the_same_spec(tmp_path: Path) -> None:
    spec = load_spec(DEMO, ["models=[{name='cnn', options={channels=8, pool=2}}]"])
    (tmp_path / "again.toml").write_text(as_toml(spec))
    assert load_spec(tmp_path / "again.toml") == spec


def test_an_override_replaces_one_key_and_leaves_the_rest() -> None:
    plain = load_spec(DEMO)
    spec = load_spec(DEMO, ["training.epochs=3", "norms=['batch']", "name=other"])
    assert (spec.training.epochs, spec.norms, spec.name) == (3, ("batch",), "other")
    assert spec.training.seeds == plain.training.seeds


def test_files_are_relative_to_the_spec_and_not_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(load_spec(DEMO).data.genome).is_file()


def test_a_collection_that_cannot_be_looked_up_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = f"evaluation.motifs={EXAMPLES / 'data' / 'MA0139.2.jaspar'}"
    with pytest.raises(SpecError, match=r"key 'evaluation.motifs': a collection of 1 motifs"):
        load_spec(DEMO, [one])
    assert load_spec(DEMO, [one], runnable=False).evaluation.motifs is not None
    with pytest.raises(SpecError, match=r"key 'evaluation.motifs': no such file"):
        load_spec(DEMO, ["evaluation.motifs=none.jaspar"])
    genome = f"evaluation.motifs={EXAMPLES / 'data' / 'human_demo' / 'exclude.bed'}"
    with pytest.raises(SpecError, match=r"key 'evaluation.motifs'"):
        load_spec(DEMO, [genome])
    monkeypatch.setattr("data_tools.motif_matches.find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"pip install 'seqnorm\[motifs\]'"):
        load_spec(EXAMPLES / "human_ctcf_full.toml")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["evaluation.unit='chromosome'"], "leave_one_out design alone"),
        (
            [
                "evaluation.unit='chromosome'",
                "split.design='leave_one_out'",
                "split.primary=['chr1', 'chr19']",
            ],
            "three primary ones",
        ),
        (["training.epoch=3"], "unknown key 'training.epoch'; did you mean 'epochs'?"),
        (["trainings.epochs=3"], "unknown key 'trainings'; did you mean 'training'?"),
        (["training.epochs=0"], "key 'training.epochs'"),
        (["training.epochs='many'"], "key 'training.epochs'"),
        (["training.epochs=2.5"], "key 'training.epochs'"),
        (["training.learning_rates=[0.1, -1]"], "key 'training.learning_rates.1'"),
        (["training.learning_rates=[]"], "key 'training.learning_rates'"),
        (["training.learning_rates=[inf]"], "key 'training.learning_rates.0'"),
        (["training.precision=half"], "key 'training.precision'"),
        *(
            ([f"training.batch_size={size}"], "a whole number of at least 2, or 'auto', got ")
            for size in ("1", "2.5", "true", "big")
        ),
        (["training.seeds=[1, 1]"], "key 'training.seeds' names something twice"),
        (["training.seeds=[9000000000000000]"], "key 'training.seeds.0'"),
        (["split.primary=['chr1', 'chr1']"], "key 'split.primary' names something twice"),
        (["negatives.kinds=['flank', 'flank']"], "key 'negatives.kinds' names something twice"),
        (["training.tuning_seeds=9"], "key 'training.tuning_seeds'"),
        (["norms=['bacth']"], "did you mean 'batch'"),
        (["norms=['group:7']"], "group"),
        (["norms=[]"], "key 'norms'"),
        (["negatives.kinds=['shuffle']"], "key 'negatives.kinds.0'"),
        (["split.test=['chr21']"], "chromosome 'chr21' is in both train and test"),
        (["split.validation=['chr22']"], "chromosome 'chr22' is in both validation and test"),
        (["split.primary=['chrX']"], "primary chromosome 'chrX' must be one of the test"),
        (["split.validation_offset=5"], "split.validation_offset"),
        (["models=[{name='rnn'}]"], "model 'rnn' does not exist; choose one of cnn, residual, tra"),
        (["models=[{name='cnn', options={depth=3}}]"], "depth"),
        (["models=[{name='cnn', options={kernel_size=4}}]"], "kernel_size"),
        (["models=[{name='cnn', options={norm='rms'}}]"], "'norm' is no option of a model"),
        (["data.genome=nowhere.fa"], "key 'data.genome': no such file"),
        (["name='../escape'"], "key 'name'"),
        (["training"], "not of the form key=value"),
        (["name.x=1"], "'name' is not a table"),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(DEMO, overrides)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert "human_ctcf.toml" in message or "override" in message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    text = DEMO.read_text().replace("[data]", "[old_data]")
    (tmp_path / "spec.toml").write_text(text)
    with pytest.raises(SpecError, match=r"old_data|'data' is missing"):
        load_spec(tmp_path / "spec.toml")


def test_a_file_that_is_not_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text("name = = 3")
    with pytest.raises(SpecError, match=r"not a TOML file: .*line 1"):
        load_spec(tmp_path / "spec.toml")
    with pytest.raises(SpecError, match="no such spec"):
        load_spec(tmp_path / "nothing.toml")


def test_each_fold_and_each_repetition_begins_with_numbers_of_its_own() -> None:
    trials = [
        Trial("cnn", "random", norm, 0.01, seed, fold=fold)
        for norm in ("batch", "batch+again")
        for seed in (0, 1)
        for fold in ("all", *(f"chr{name}" for name in [*range(1, 23), "X", "Y"]))
    ]
    assert len({trial.random_seed for trial in trials}) == len(trials)
    assert trials[0].random_seed == 0
    assert replace(trials[1], norm="layer").random_seed == trials[1].random_seed
