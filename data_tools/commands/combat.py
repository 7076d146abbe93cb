"""``data-tools combat``."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from data_tools.commands.output import note, write_text
from data_tools.errors import InputError, MissingFileError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing
    import pandas as pd


def combat(
    expression: tyro.conf.Positional[Path],
    samples: tyro.conf.Positional[Path],
    batch: str,
    keep: tuple[str, ...] = (),
    check: tuple[str, ...] = (),
    categorical: tuple[str, ...] = (),
    prior: Literal["parametric", "nonparametric", "none"] = "parametric",
    mean_only: bool = False,
    reference: str | None = None,
    fit_on: str | None = None,
    counts: bool = False,
    force: bool = False,
    out: Path | None = None,
) -> None:
    """Take the effects of assay batches out of an expression table (ComBat).

    Example: data-tools combat genes.csv samples.csv --batch batch --keep sex --out clean.csv

    It refuses where a column to keep or to check cannot be told from the batches. What was
    noticed, and how much of each such column lies between batches, goes to stderr.

    Args:
        expression: CSV table, a row for each gene and a column for each sample, names in the first
            row and column; additive, such as logarithms, unless --counts. Empty is missing.
        samples: CSV table with the samples' names in the first column.
        batch: Column of the samples that is the batch.
        keep: Columns whose effects stay in the data. Not what a model will predict from them:
            its answer would be in the data.
        check: Columns that must be separable from the batches, and are used no further.
        categorical: Of these, columns of numbers that are names.
        prior: Shrinkage of each gene's batch effect towards its batch's; none standardizes each
            gene in each batch.
        mean_only: Correct means and not variances.
        reference: Batch that stays as it is.
        fit_on: Column of the samples that is 1 for those to fit on (training) and 0 for others,
            which are corrected by what was fitted without them; all are fitted unless given.
        counts: The table holds counts of reads, and log2 of counts per million is to be made.
        force: Go on where batch and biology cannot be told apart.
        out: CSV table to write; stdout unless given.
    """
    import numpy as np

    from data_tools.combat import confounding, fit_combat, log_cpm

    genes, rows = _read(expression), _read(samples)
    table = _columns_of(rows, genes.columns, samples, (batch, *keep, *check), fit_on, categorical)
    data = _numbers(genes, expression)
    if counts:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data = log_cpm(data)
        for warning in caught:
            note(str(warning.message))
    fitted_on = np.ones(len(table), dtype=bool)
    if fit_on is not None:
        fitted_on = _truth(table, fit_on, samples)
    training = table[fitted_on]
    if check:
        found = confounding(training[batch].to_numpy(), training[list(check)])
        for line in found.lines():
            note(line)
        if not force:
            found.require_separable()
    kept = table[list(keep)] if keep else None
    fitted = fit_combat(
        data[:, fitted_on],
        training[batch].to_numpy(),
        None if kept is None else kept[fitted_on],
        prior=prior,
        mean_only=mean_only,
        reference=reference,
        force=force,
    )
    for line in fitted.notes:
        note(line)
    genes[:] = fitted.apply(data, table[batch].to_numpy(), kept)
    write_text([genes.to_csv()], out)
    note(
        f"{int(fitted.adjusted.sum()):,} of {len(genes):,} genes corrected in "
        f"{len(fitted.batches)} batches, fitted on {int(fitted_on.sum())} of {len(table)} samples"
    )


def _read(path: Path) -> "pd.DataFrame":
    """Read a table whose first column names its rows, each once."""
    import pandas as pd

    try:
        table = pd.read_csv(path, index_col=0, dtype={0: str})
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file; give a CSV table") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error
    table.index = table.index.astype(str)
    table.columns = table.columns.astype(str)
    for names, what in ((table.index, "row"), (table.columns, "column")):
        if not names.is_unique:
            twice = names[names.duplicated()][0]
            raise InputError(f"{path}: {what} {twice} is there twice; names must be unique")
    return table


def _columns_of(
    rows: "pd.DataFrame",
    names: "pd.Index[str]",
    path: Path,
    columns: tuple[str, ...],
    fit_on: str | None,
    categorical: tuple[str, ...],
) -> "pd.DataFrame":
    """The samples in the order of the expression table, with the columns that are asked for."""
    wanted = [*columns, *([] if fit_on is None else [fit_on])]
    for column in (*wanted, *categorical):
        if column not in rows:
            raise InputError(f"{path}: no column {column}; it has {', '.join(rows.columns)}")
    missing = names.difference(rows.index)
    if len(missing):
        raise InputError(
            f"{path}: no row for {missing[0]} ({len(missing)} of {len(names)} samples of the "
            "expression table have none); the first column holds the samples' names"
        )
    table = rows.loc[names].copy()
    for column in categorical:
        table[column] = table[column].astype(str).where(table[column].notna())
    return table


def _numbers(genes: "pd.DataFrame", path: Path) -> "np.typing.NDArray[np.float64]":
    import pandas as pd

    for column in genes:
        if not pd.api.types.is_numeric_dtype(genes[column]):
            numbers = pd.to_numeric(genes[column], errors="coerce")
            wrong = genes[column][numbers.isna() & genes[column].notna()]
            raise InputError(
                f"{path}: {wrong.iloc[0]!r} of {wrong.index[0]} in {column} is no number"
            )
    return genes.to_numpy(dtype="float64")


def _truth(table: "pd.DataFrame", column: str, path: Path) -> "np.typing.NDArray[np.bool_]":
    values = table[column]
    if not values.isin([0, 1]).all():
        raise InputError(f"{path}: column {column} must hold 1 (to fit on) and 0, nothing else")
    chosen: np.typing.NDArray[np.bool_] = values.to_numpy(dtype="int64") == 1
    if not chosen.any():
        raise InputError(f"{path}: column {column} has no 1: there is no sample to fit on")
    return chosen
