"""The rows on which FLamby's figures stand. The data are not in the repository."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from data_tools.errors import InputError
from federated.spec import load_spec
from federated.tasks.table import Held, TableTask

FLAMBY = Path(__file__).parents[3] / "benchmarks" / "flamby"


def script(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"flamby_{name}", FLAMBY / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source() -> Path:
    named = os.environ.get("SEQNORM_FED_TABULAR")
    if named is None:
        pytest.skip("SEQNORM_FED_TABULAR does not name the folder of FLamby's source files")
    return Path(named)


@pytest.fixture(scope="module")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("flamby")
    script("prepare").prepare(source, target)
    return target


@pytest.mark.parametrize("name", ["heart", "brca"])
def test_the_specs_of_the_benchmark_are_valid(name: str) -> None:
    spec = load_spec(FLAMBY / f"{name}.toml", runnable=False)
    assert spec.name == f"flamby_{name}"


def test_clients_hold_as_many_rows_as_flamby_says(prepared: Path, tmp_path: Path) -> None:
    expected = {
        "heart": [(199, 104), (172, 89), (30, 16), (85, 45)],
        "brca": [(248, 63), (156, 40), (164, 42), (129, 33), (129, 33), (40, 11)],
    }
    for name, counts in expected.items():
        spec = load_spec(FLAMBY / f"{name}.toml", [f"table.path={prepared / name}.csv"])
        task = TableTask.prepare(spec, tmp_path)
        held = [(task.examples(c, "train"), task.examples(c, "test")) for c in task.clients]
        assert held == counts


def test_each_hospital_is_scaled_by_its_own_training_rows(prepared: Path) -> None:
    table = pd.read_csv(prepared / "heart.csv")
    features = table.drop(columns=["site", "part", "disease"])
    assert features.shape[1] == 13
    for site, rows in features[table["part"] == "train"].groupby(table["site"]):
        spread = rows.std().round(6)
        np.testing.assert_allclose(rows.mean(), 0, atol=1e-6, err_msg=str(site))
        assert set(spread) <= {0.0, 1.0}
    everyone = pd.read_csv(prepared / "heart_pooled.csv")
    trained = everyone[everyone["part"] == "train"].drop(columns=["site", "part", "disease"])
    np.testing.assert_allclose(trained.std(), 1, rtol=1e-6)
    pd.testing.assert_frame_equal(
        everyone[["site", "part", "disease"]], table[["site", "part", "disease"]]
    )


def test_the_two_classes_are_split_alike_where_there_are_two(prepared: Path) -> None:
    table = pd.read_csv(prepared / "heart.csv")
    ill = table.groupby(["site", "part"])["disease"].mean().unstack()
    large = ill.loc[["cleveland", "hungarian", "va"]]
    assert ((large["train"] - large["test"]).abs() < 0.02).all()


def test_no_patient_of_the_test_is_trained_on(prepared: Path) -> None:
    table = pd.read_csv(prepared / "brca.csv")
    assert len(table) == 1088
    assert table["part"].value_counts().to_dict() == {"train": 866, "test": 222}


def test_the_split_does_not_hang_on_the_order_of_the_copy_at_hand(
    source: Path, prepared: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(source / "heart_disease_4sites.csv")
    hungarian = np.flatnonzero(table["site"] == "hungarian")
    order = np.arange(len(table))
    order[hungarian] = hungarian[::-1]
    table.iloc[order].to_csv(tmp_path / "heart_disease_4sites.csv", index=False)
    again = script("prepare").heart(tmp_path)["heart"]
    pd.testing.assert_frame_equal(again, pd.read_csv(prepared / "heart.csv"))


def test_other_rows_than_flambys_are_refused(source: Path, tmp_path: Path) -> None:
    table = pd.read_csv(source / "heart_disease_4sites.csv")
    at = np.flatnonzero((table["site"] == "hungarian") & table["chol"].notna())[0]
    table.loc[at, "chol"] += 1
    table.to_csv(tmp_path / "heart_disease_4sites.csv", index=False)
    with pytest.raises(InputError, match="site hungarian are not those of UCI"):
        script("prepare").heart(tmp_path)


def test_folds_hold_out_every_training_row_once_a_repeat_and_no_test_row() -> None:
    with_fold, rng = script("folds").with_fold, np.random.default_rng(0)
    number = 203
    held = Held(
        np.array(["row"]),
        np.arange(number, dtype=np.float32)[:, None],
        rng.integers(0, 2, (number, 1)).astype(np.float64),
        rng.choice(["a", "b", "c"], number, p=[0.6, 0.3, 0.1]),
        rng.choice(["train", "test"], number, p=[0.8, 0.2]),
    )
    train = np.flatnonzero(held.part == "train")
    out = []
    for fold in range(10):
        rows = with_fold(held, fold)
        assert rows.inputs[:, 0].tolist() == train.tolist()
        out.append(set(rows.inputs[rows.part == "validation", 0].astype(int).tolist()))
        for client in "abc":
            for label in (0, 1):
                mine = (rows.client == client) & (rows.target[:, 0] == label)
                share = (rows.part[mine] == "validation").sum()
                assert abs(share - mine.sum() / 5) < 1
    for repeat in (out[:5], out[5:]):
        assert sorted(row for rows in repeat for row in rows) == train.tolist()
    assert out[:5] != out[5:]
