"""FLamby's two tabular sets as CSV files that a spec's `[table]` reads: same rows, same split.

Written from the description and the source of FLamby (Ogier du Terrail et al. 2022,
https://arxiv.org/abs/2210.04620, github.com/owkin/FLamby, commit edacf54); no code is copied.

**The data are not in this repository**, neither the source files nor what is made of them. They
have terms of their own: UCI Heart Disease is CC BY 4.0, TCGA's open tier forbids to identify
patients. What it needs is a folder SOURCE with three files:

- ``heart_disease_4sites.csv``: UCI Heart Disease (archive.ics.uci.edu/dataset/45), the files
  ``processed.{cleveland,hungarian,switzerland,va}.data`` under one header: ``site`` with those
  names, ``age, sex, cp, trestbps, chol, fbs, restecg, thalach, exang, oldpeak, slope, ca, thal``
  and ``num``; a missing value is an empty cell;
- ``brca.csv``: ``flamby/datasets/fed_tcga_brca/brca.csv`` of FLamby's repository;
- ``brca_train_test_split.csv``: ``dataset_creation_scripts/train_test_split.csv`` beside it.

The rows of each client are counted, and Hungary's are compared with a digest, so that other files
are refused. Run from the repository root, with a folder outside of it to write to::

    python benchmarks/flamby/prepare.py SOURCE FOLDER
"""

import argparse
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from data_tools.atomic import write_atomic
from data_tools.errors import FormatError, MissingFileError

HEART_ROWS = {
    "cleveland": (199, 104),
    "hungarian": (172, 89),
    "switzerland": (30, 16),
    "va": (85, 45),
}
"""Training and test rows of each site, as FLamby's page of the set has them."""

BRCA_ROWS = ((248, 63), (156, 40), (164, 42), (129, 33), (129, 33), (40, 11))
"""The same, of FLamby's six regions."""

HUNGARIAN = "b59ffc34f6a48c79492f26c0767b322bdc4ff4724482e28457b3cc84c41426fb"
"""SHA-256 of Hungary's complete rows, ten features each, in the order of UCI's file."""

HEART_SEED = 43  # FLamby's random_state
TRAIN_FRACTION = 0.66


def heart(source: Path) -> dict[str, pd.DataFrame]:
    """Make the rows of Heart Disease.

    Left out are slope, ca and thal, then every row with a gap. Chest pain and resting ECG become
    indicators (the first level of each is dropped), over all sites at once: 13 features. Each site
    is split 66 : 34 by itself, stratified by disease where both classes have more than two rows.

    Parameters
    ----------
    source : path

    Returns
    -------
    dict of str to DataFrame
        ``heart``: features standardized by the site's training rows. ``heart_pooled``: by the
        training rows of all sites, which is how FLamby trains on pooled data, and how it makes
        the "Pooled Test" of every method, federated ones as well.
    """
    table = _in_order_of_uci(_read(source / "heart_disease_4sites.csv"))
    table = table.drop(columns=["slope", "ca", "thal"]).dropna().reset_index(drop=True)
    _check_order(table)
    disease = (table["num"] > 0).astype(int)
    part = pd.Series("train", index=table.index)
    for _, rows in table.groupby("site"):
        part[_heart_test(rows.index.to_numpy(), disease[rows.index])] = "test"
    features = pd.get_dummies(
        table.drop(columns=["site", "num"]), columns=["cp", "restecg"], drop_first=True
    ).astype(np.float64)
    _check(HEART_ROWS, table["site"], part)
    first = {"site": table["site"], "part": part, "disease": disease}
    everywhere = pd.Series("all", index=table.index)
    return {
        "heart": pd.DataFrame(first | dict(_standardized(features, table["site"], part))),
        "heart_pooled": pd.DataFrame(first | dict(_standardized(features, everywhere, part))),
    }


def brca(source: Path) -> dict[str, pd.DataFrame]:
    """Make the rows of TCGA-BRCA: 39 features as they are, split and regions from FLamby's file.

    Parameters
    ----------
    source : path

    Returns
    -------
    dict of str to DataFrame
        ``brca``; eight patients that the split does not name are left out, as FLamby leaves them.
    """
    table = _read(source / "brca.csv")
    split = _read(source / "brca_train_test_split.csv")
    region = split["fold2"].str.rpartition("_")[2].astype(int)
    split = split.assign(site=region)[["pid", "site", "fold"]].rename(columns={"fold": "part"})
    joined = table.merge(split, on="pid", how="inner", validate="one_to_one")
    _check(dict(enumerate(BRCA_ROWS)), joined["site"], joined["part"])
    first = joined[["site", "part"]].assign(days=joined["T"], died=joined["E"].astype(int))
    features = joined.drop(columns=["pid", "site", "part", "T", "E"])
    return {"brca": pd.concat([first, features], axis=1)}


def _in_order_of_uci(table: pd.DataFrame) -> pd.DataFrame:
    """Sort Hungary's rows as UCI's processed file has them, since the split goes by place.

    There they are sorted as text, by the five classes of disease and then by the features in their
    order, a gap being ``-9``; other copies have the order of UCI's raw file. Other sites are alike
    in both.
    """
    hungarian = table["site"] == "hungarian"
    keys = table.loc[hungarian, ["num", *table.columns.drop(["site", "num"])]]
    text = keys.map(lambda value: "-9" if pd.isna(value) else f"{value:g}").apply(tuple, axis=1)
    ordered = table.copy()
    ordered[hungarian] = table.loc[text.sort_values(kind="stable").index].to_numpy()
    return ordered.astype(table.dtypes.to_dict())


def _check_order(table: pd.DataFrame) -> None:
    """Compare Hungary's complete rows with those of UCI's file, which FLamby checks by its MD5."""
    rows = table[table["site"] == "hungarian"].drop(columns=["site", "num"])
    text = "\n".join(",".join(f"{value:g}" for value in row) for row in rows.to_numpy())
    if sha256(text.encode()).hexdigest() != HUNGARIAN:
        raise FormatError(
            "the rows of site hungarian are not those of UCI's processed.hungarian.data (MD5 "
            "22e96bee155b5973568101c93b3705f6), so FLamby's split cannot be made of them"
        )


def _heart_test(rows: NDArray[np.int64], disease: "pd.Series[int]") -> NDArray[np.int64]:
    counts = disease.value_counts()
    stratify = disease if len(counts) > 1 and counts.min() > 2 else None
    _, test = train_test_split(
        np.arange(len(rows)),
        test_size=1.0 - TRAIN_FRACTION,
        train_size=TRAIN_FRACTION,
        random_state=HEART_SEED,
        shuffle=True,
        stratify=stratify,
    )
    held_out: NDArray[np.int64] = rows[test]
    return held_out


def _standardized(
    features: pd.DataFrame, group: "pd.Series[str]", part: "pd.Series[str]"
) -> pd.DataFrame:
    done = []
    for _, rows in features.groupby(group):
        trained = rows[part[rows.index] == "train"]
        # As FLamby has it: a constant feature becomes 0, as nothing is added to its mean.
        done.append((rows - trained.mean()) / (trained.std(ddof=1) + 1e-9))
    return pd.concat(done).loc[features.index]


def _check(
    expected: Mapping[Any, tuple[int, int]], site: "pd.Series[Any]", part: "pd.Series[str]"
) -> None:
    counts = pd.crosstab(site, part)
    found = {name: (int(row["train"]), int(row["test"])) for name, row in counts.iterrows()}
    if found != expected:
        raise FormatError(
            f"training and test rows by site are {found}, FLamby has {expected}; the source files "
            "are others than FLamby's"
        )


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; see the top of {Path(__file__).name}")
    return pd.read_csv(path)


def prepare(source: Path, target: Path) -> list[Path]:
    """Write ``heart.csv``, ``heart_pooled.csv`` and ``brca.csv``."""
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, table in (heart(source) | brca(source)).items():
        paths.append(target / f"{name}.csv")
        write_atomic(paths[-1], table.to_csv(index=False, float_format="%.17g"))
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    for path in prepare(given.source, given.target):
        print(path)
