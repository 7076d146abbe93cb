import json
from pathlib import Path

import pytest

from federated.spec import Spec, SpecError, as_json, as_toml, data_files, from_json, load_spec

EXAMPLES = Path(__file__).parents[2] / "examples"
DEMO = EXAMPLES / "federated_ctcf.toml"

HOSPITALS = """
name = "hospitals"
question = "Does it help to train together?"
norms = ["none", "batch"]
policies = ["fedavg"]

[table]
path = "rows.csv"
label = "ill"

[partition]
scheme = "by_site"
column = "hospital"

[model]
name = "linear"

[training]
rounds = 3
learning_rates = [0.1, 0.01]
seeds = [0]
"""

COX = "table={path='rows.csv', time='days', event='died'}"


@pytest.fixture
def hospitals(tmp_path: Path) -> Path:
    path = tmp_path / "hospitals.toml"
    path.write_text(HOSPITALS)
    (tmp_path / "rows.csv").write_text("hospital,age,ill\na,1,0\n")
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith((f"{path}: ", "override "))
    return message


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("federated_*.toml")))
def test_every_example_is_a_valid_spec(name: str) -> None:
    assert load_spec(EXAMPLES / name).name == Path(name).stem


def test_there_is_an_example() -> None:
    assert DEMO.is_file()


def windows_spec() -> Spec:
    return load_spec(
        DEMO,
        [
            "strategy={name='fedprox', options={mu=0.1}}",
            "model.options={channels=8, pool=2}",
            "participation.start='adapt:64'",
            "question='Say \"no\"\\n\\tµ'",
        ],
    )


def test_a_spec_written_as_toml_reads_back_as_the_same_spec(
    tmp_path: Path, hospitals: Path
) -> None:
    steps = load_spec(hospitals, ["training.local_steps=100"])
    for spec in (windows_spec(), load_spec(hospitals), load_spec(hospitals, [COX]), steps):
        (tmp_path / "again.toml").write_text(as_toml(spec))
        assert load_spec(tmp_path / "again.toml") == spec


def test_a_spec_written_as_json_reads_back_as_the_same_spec(hospitals: Path) -> None:
    features = load_spec(hospitals, ["table.features=['age', 'weight']"])
    steps = load_spec(hospitals, ["training.local_steps=100"])
    for spec in (windows_spec(), features, steps):
        assert from_json(as_json(spec)) == spec


def test_a_list_of_chromosomes_for_each_client_survives_both_forms(tmp_path: Path) -> None:
    held = [["chr21", "chr22"], ["chr1"]]
    spec = load_spec(
        DEMO, [f"partition={{scheme='by_chromosome', chromosomes={json.dumps(held)}}}"]
    )
    (tmp_path / "again.toml").write_text(as_toml(spec))
    assert spec.partition.chromosomes == (("chr21", "chr22"), ("chr1",))
    assert load_spec(tmp_path / "again.toml") == from_json(as_json(spec)) == spec


def test_an_override_replaces_one_key_and_leaves_the_rest() -> None:
    plain = load_spec(DEMO)
    spec = load_spec(DEMO, ["training.rounds=3", "norms=['batch']", "name=other"])
    assert (spec.training.rounds, spec.norms, spec.name) == (3, ("batch",), "other")
    assert spec.training.seeds == plain.training.seeds


def test_files_are_relative_to_the_spec_and_not_to_the_working_folder(
    tmp_path: Path, hospitals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    files = data_files(load_spec(DEMO)) | data_files(load_spec(hospitals))
    assert all(Path(name).is_absolute() and Path(name).is_file() for name in files.values())


def test_the_files_of_a_spec_are_those_it_names(hospitals: Path) -> None:
    assert set(data_files(load_spec(DEMO))) == {"data.genome", "data.peaks", "data.exclude"}
    (table,) = data_files(load_spec(hospitals)).items()
    assert table == ("table.path", str(hospitals.parent / "rows.csv"))


def test_a_report_needs_no_data_files(hospitals: Path) -> None:
    (hospitals.parent / "rows.csv").unlink()
    assert "key 'table.path': no such file" in refused(hospitals)
    assert load_spec(hospitals, runnable=False).table is not None


def test_client_processes_get_the_checks_of_a_file(hospitals: Path) -> None:
    raw = json.loads(as_json(load_spec(hospitals)))
    raw["training"]["round"] = 1
    with pytest.raises(
        SpecError, match=r"run: unknown key 'training.round'; did you mean 'rounds'"
    ):
        from_json(json.dumps(raw))
    with pytest.raises(SpecError, match="not JSON"):
        from_json("{")
    with pytest.raises(SpecError, match="no table of keys"):
        from_json("[]")


def test_shares_of_unequal_kinds_have_their_defaults(hospitals: Path) -> None:
    spec = load_spec(hospitals)
    assert spec.table is not None
    assert (spec.table.validation, spec.table.test, spec.table.part) == (0.15, None, None)
    assert (spec.training.timeout, spec.strategy.name) == (3600.0, "fedavg")
    assert spec.participation.start == "server"


def test_a_round_is_one_epoch_unless_epochs_or_steps_are_given(hospitals: Path) -> None:
    found = [
        (training.local_epochs, training.local_steps)
        for override in ([], ["training.local_epochs=3"], ["training.local_steps=100"])
        for training in (load_spec(hospitals, override).training,)
    ]
    assert found == [(1, None), (3, None), (None, 100)]


def test_every_strategy_can_be_named() -> None:
    from federated.strategies import STRATEGY_NAMES

    for name in STRATEGY_NAMES:
        spec = load_spec(DEMO, [f"strategy.name={name}", "training.optimizer=sgd"])
        assert spec.strategy.name == name


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.round=3", "unknown key 'training.round'; did you mean 'rounds'?"),
        ("trainings.rounds=3", "unknown key 'trainings'; did you mean 'training'?"),
        ("data.genom='x'", "unknown key 'data.genom'; did you mean 'genome'?"),
        ("data.zzz=1", "unknown key 'data.zzz'; known keys: genome, peaks"),
        ("data=3", "key 'data'"),
        ("training.rounds=0", "key 'training.rounds'"),
        ("training.rounds=2.5", "key 'training.rounds'"),
        ("training.rounds='many'", "key 'training.rounds'"),
        ("training.rounds=true", "key 'training.rounds'"),
        ("training.timeout=0", "key 'training.timeout'"),
        ("training.local_epochs=0", "key 'training.local_epochs'"),
        ("training.local_steps=0", "key 'training.local_steps'"),
        (
            "training.local_steps=9",
            "key 'training.local_steps' does not go with 'training.local_epochs'; leave one of th",
        ),
        ("training.batch_size=0", "key 'training.batch_size'"),
        ("training.learning_rates=[]", "key 'training.learning_rates'"),
        ("training.learning_rates=[0.1, 0.1]", "key 'training.learning_rates' names something tw"),
        ("training.learning_rates=[nan]", "key 'training.learning_rates.0'"),
        ("training.seeds=[-1]", "key 'training.seeds.0'"),
        ("training.seeds=[9000000000000000]", "key 'training.seeds.0'"),
        ("training.optimizer=adam", "key 'training.optimizer'"),
        ("training.momentum=0.9", "key 'training.momentum' is of optimizer 'sgd'"),
        ("training.clip=0", "key 'training.clip'"),
        ("data.chromosomes=['chr1', 'chr1']", "key 'data.chromosomes' names something twice"),
        ("data.unseen=['chr21']", "chromosome 'chr21' is in both chromosomes and unseen"),
        ("data.validation=0.8", "keys 'data.validation' and 'data.test' leave nothing"),
        ("data.genome=nowhere.fa", "key 'data.genome': no such file"),
        ("norms=['bacth']", "key 'norms': unknown norm 'bacth'; did you mean 'batch'"),
        ("norms=['batch', 'batch']", "key 'norms' names something twice"),
        ("norms=['group:7']", "table 'model': norm 'group:7' does not divide"),
        ("policies=['fedbm']", "key 'policies': unknown"),
        ("policies=[]", "key 'policies'"),
        ("policies=['fixbn:99']", "key 'policies': 'fixbn:99' changes in round 99, after the last"),
        ("partition.scheme=gc_skw", "key 'partition.scheme': unknown 'gc_skw'; did you mean 'gc_s"),
        ("partition.alpha=1.0", "key 'partition.alpha': scheme 'gc_skew' has no such dial"),
        ("partition.rho=2.0", "table 'partition': rho = 2.0"),
        ("partition={scheme='gc_skew', clients=3}", "key 'partition.rho' is missing"),
        ("model.name=rnn", "table 'model': model 'rnn' does not exist; choose one of cnn"),
        ("model.name=linear", "key 'model.name': 'linear' is the model of a [table]"),
        ("model.options={depth=3}", "table 'model': model 'cnn' has no option 'depth'"),
        ("model.options={norm='rms'}", "'norm' is no option of a model"),
        ("strategy.name=fedavh", "key 'strategy.name': unknown 'fedavh'; did you mean 'fedavg'?"),
        (
            "strategy={name='fedprox', options={nu=1}}",
            "key 'strategy.options': strategy 'fedprox' ",
        ),
        (
            "strategy={name='fedprox', options={mu=-1}}",
            "key 'strategy.options': strategy 'fedprox'",
        ),
        ("strategy={name='fedprox', options={mu='x'}}", "key 'strategy.options': strategy 'fedpro"),
        ("strategy.name=scaffold", "key 'training.optimizer': strategy 'scaffold' is defined for"),
        ("participation.fraction=0", "key 'participation.fraction'"),
        ("participation.fraction=1.5", "key 'participation.fraction'"),
        ("participation.dropout=1.0", "key 'participation.dropout'"),
        ("participation.minimum=6", "key 'participation.minimum' asks for 6 clients, there are 5"),
        ("participation.start=adapt", "key 'participation.start': unknown 'adapt'; give 'server'"),
        ("participation.start='adapt:0'", "key 'participation.start': unknown 'adapt:0'"),
        ("participation.start='shrink:1'", "key 'participation.start': unknown 'shrink:1'"),
        ("participation.start='server:3'", "key 'participation.start'"),
        ("participation.start='shrink'", "key 'participation.start'"),
        ("table={path='rows.csv', label='ill'}", "tables 'data' and 'table' are both there"),
        ("name='../escape'", "key 'name'"),
        ("training", "not of the form key=value"),
        ("name.x=1", "'name' is not a table"),
    ],
)
def test_a_mistake_in_a_spec_of_windows_is_one_line(override: str, said: str) -> None:
    assert said in refused(DEMO, override)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["table={path='rows.csv'}"], "key 'table.label' is missing"),
        (["table={path='rows.csv', time='days'}"], "key 'table.event' is missing; 'table.time'"),
        (["table={path='rows.csv', event='died'}"], "key 'table.time' is missing; 'table.event'"),
        (["table.time=days"], "key 'table.time' does not go with 'table.label'"),
        (["table.event=died"], "key 'table.event' does not go with 'table.label'"),
        (["table.lable=ill"], "unknown key 'table.lable'; did you mean 'label'?"),
        (["table.features=[]"], "key 'table.features'"),
        (["table.features=['age', 'age']"], "key 'table.features' names something twice"),
        (["table.features=['age', 'ill']"], "key 'table.features': column 'ill' is 'table.label'"),
        (["table.features=['hospital']"], "column 'hospital' is 'partition.column'"),
        (
            ["partition={scheme='by_site'}", "table.features=['site']"],
            "column 'site' is 'partition.column'",
        ),
        (["table.part=ill"], "key 'table.part': column 'ill' is already 'table.label'"),
        (["partition.column=ill"], "key 'partition.column': column 'ill' is already"),
        (["table.part=set", "table.test=0.2"], "key 'table.test' does not go with 'table.part'"),
        (["table.validation=0.0"], "key 'table.validation' is 0, so that nothing can choose"),
        (
            ["table.validation=0.0", "training.learning_rates=[0.1]", "training.patience=2"],
            "key 'table.validation' is 0, so that 'training.patience' sees nothing",
        ),
        (["table.validation=1.0"], "key 'table.validation'"),
        (["table.test=0.0"], "key 'table.test'"),
        (["table.seed=-1"], "key 'table.seed'"),
        (["table.path=nowhere.csv"], "key 'table.path': no such file"),
        (["model.name=cnn"], "key 'model.name': 'cnn' is none of a [table]; give 'linear'"),
        (["model.options={bias=true}"], "key 'model.options': model 'linear' has none"),
        (["norms=['instance']"], "key 'norms': norm 'instance' makes every feature"),
        (["norms=['group:0']"], "key 'norms'"),
        (["norms=['group:2']", "table.features=['a', 'b', 'c']"], "key 'norms': norm 'group:2'"),
    ],
)
def test_a_mistake_in_a_spec_of_a_table_is_one_line(
    hospitals: Path, overrides: list[str], said: str
) -> None:
    assert said in refused(hospitals, *overrides)


def test_rows_must_come_from_somewhere(tmp_path: Path) -> None:
    text = HOSPITALS.replace("[table]", "[tabel]")
    (tmp_path / "spec.toml").write_text(text)
    assert "unknown key 'tabel'; did you mean 'table'?" in refused(tmp_path / "spec.toml")
    begin, end = HOSPITALS.index("[table]"), HOSPITALS.index("[partition]")
    (tmp_path / "spec.toml").write_text(HOSPITALS[:begin] + HOSPITALS[end:])
    assert "tables 'data' and 'table' are both missing" in refused(tmp_path / "spec.toml")


def test_a_norm_whose_groups_only_the_file_can_check_is_let_through(hospitals: Path) -> None:
    assert load_spec(hospitals, ["norms=['group:4']"]).norms == ("group:4",)


def test_a_file_that_is_not_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text("name = = 3")
    assert "not a TOML file" in refused(tmp_path / "spec.toml")
    assert "line 1" in refused(tmp_path / "spec.toml")
    assert "no such spec" in refused(tmp_path / "nothing.toml")
