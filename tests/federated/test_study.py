"""A study: every skew and participation, with references, choices from validation alone."""

import json

import numpy as np
import pandas as pd
import pytest

from data_tools.errors import InputError
from federated.references import Reference, references_of, run_reference
from federated.setting import settings_of
from federated.simulate import simulate
from federated.tasks.task import POOLED, TRAIN


@pytest.fixture(scope="module")
def spec(small):
    return small(
        'norms=["batch","none"]', 'policies=["fedavg","moment_merge"]', "study.skews=[0.0,0.9]",
        "study.participations=[1.0,0.34]", "training.learning_rates=[0.01]",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(spec, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    found = simulate(spec, folder, study=True, workers=2, say=lambda line: None)
    return folder, found


def test_settings_are_all_skews_and_participations(spec, tmp_path):
    settings = settings_of(spec, tmp_path, study=True)
    assert [setting.keys for setting in settings] == [
        {"skew": skew, "participation": fraction} for skew in (0.0, 0.9) for fraction in (1.0, 0.34)
    ]
    assert [setting.spec.partition.rho for setting in settings] == [0.0, 0.0, 0.9, 0.9]
    assert [setting.spec.participation.fraction for setting in settings] == [1.0, 0.34] * 2
    (alone,) = settings_of(spec, tmp_path, study=False)
    assert alone.spec == spec
    assert alone.keys == {}


def test_every_setting_is_in_every_table(run):
    folder, found = run
    clients = pd.read_csv(folder / "clients.csv")
    keys = clients.groupby(["skew", "participation", "norm", "policy"]).ngroups
    assert keys == 2 * 2 * 2 * 2 == len(found)
    rounds = pd.read_csv(folder / "rounds.csv")
    assert rounds.groupby("participation")["sampled"].unique().map(list).to_dict() == {
        1.0: [3],
        0.34: [1],
    }
    partition = pd.read_csv(folder / "partition.csv")
    spread = partition.groupby("skew")["gc_mean"].std()
    assert spread[0.9] > 5 * spread[0.0]
    assert json.loads((folder / "run.json").read_text())["status"] == "complete"


def test_references_are_there_for_each_skew_once(run, spec):
    folder, _ = run
    references = pd.read_csv(folder / "references.csv")
    assert "participation" not in references.columns
    assert references.groupby(["skew", "kind", "norm", "seed"]).ngroups == 2 * 2 * 2
    pooled = references[references["kind"] == "pooled"]
    assert set(pooled["client"]) == {"client-0", "client-1", "client-2", "unseen"}
    assert set(references.loc[references["kind"] == "local", "client"]) == {
        "client-0",
        "client-1",
        "client-2",
    }
    assert set(references["round"]) == set(range(1, spec.training.rounds + 1))


def test_a_reference_gives_its_rows_again(small, opened, tmp_path):
    spec = small()
    task, _ = opened(spec, tmp_path)
    steps = []
    reference = references_of(spec)[0]
    assert reference == Reference("pooled", "batch", 0.01, 0)
    first = run_reference(spec, reference, task, tmp_path, steps.append)
    assert steps == [1.0, 2.0]
    assert run_reference(spec, reference, task, tmp_path, steps.append) == first
    assert len(steps) == 2
    assert task.examples(POOLED, TRAIN) > task.examples("client-0", TRAIN)
    assert np.isfinite([row["loss"] for row in first]).all()


def test_the_patience_of_a_reference_is_that_of_the_rounds(small, opened, tmp_path):
    spec = small("training.rounds=6", "training.patience=1", "training.learning_rates=[1e-9]")
    task, _ = opened(spec, tmp_path)
    for reference in references_of(spec):
        rows = pd.DataFrame(run_reference(spec, reference, task, tmp_path))
        for client, own in rows.groupby("client" if reference.kind == "local" else "kind"):
            chosen = own[own["part"] == "validation"].groupby("round")["auprc"].mean()
            better = chosen.gt(chosen.cummax().shift(fill_value=-1.0))
            # Every round but the last was better than all before it.
            assert better.iloc[:-1].all(), client
            assert not better.iloc[-1] or len(better) == 6


def test_a_study_that_varies_nothing_is_refused(small, tmp_path):
    with pytest.raises(InputError, match="the spec has no table 'study'"):
        simulate(small(), tmp_path, study=True)
    with pytest.raises(InputError, match="table 'study' varies nothing"):
        small("study.references=true")
    with pytest.raises(InputError, match="scheme 'iid' has no dial"):
        small("study.skews=[0.1]", 'partition={scheme="iid",clients=3}')
