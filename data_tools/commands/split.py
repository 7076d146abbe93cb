"""``data-tools split``."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from data_tools.commands.gc import composition
from data_tools.commands.output import note, write
from data_tools.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from data_tools.folds import Fold
    from data_tools.genome import Genome


def split(
    genome: tyro.conf.Positional[Path],
    out: Path,
    scheme: Literal["k_fold", "leave_one_out", "gc_stress", "gc_stress_reverse"] = "k_fold",
    k: int = 5,
    chroms: tuple[str, ...] = (),
    fold: Path | None = None,
    windows: Path | None = None,
    similar: float = 0.5,
) -> None:
    """Share chromosomes, and the windows on them, out over train, valid and test.

    Example: data-tools split genome.fa.gz --out folds --scheme k_fold --k 5
    Example: data-tools split genome.fa.gz --out folds --windows windows.csv --similar 0.5
    Example: data-tools split genome.fa.gz --out mine --fold fold_0.json --windows windows.csv

    Writes fold_<i>.json, as ENCODE and ChromBPNet read them, and with --windows also
    fold_<i>.csv: the windows with a column part. Training windows that nearly equal a window to be
    validated or tested, on either strand, are left out, as are validation windows that nearly
    equal one to be tested; how many is said on stderr.

    Args:
        genome: FASTA file, plain or compressed with bgzip.
        out: Folder to write to.
        scheme: gc_stress trains on GC-poor and tests on GC-rich chromosomes; the reverse is its
            control.
        k: Number of folds of k_fold.
        chroms: Chromosomes to use; all unless given.
        fold: Fold file to use in place of a scheme.
        windows: CSV or TSV of windows of equal width (chrom, start, end).
        similar: Least share of minimizers in common that makes two windows near-duplicates, above
            0 to 1; 0 looks for none.
    """
    from data_tools.folds import read_fold, write_fold
    from data_tools.genome import Genome
    from data_tools.splits import check_chromosomes
    from data_tools.window_table import read_windows

    table = None if windows is None else read_windows(windows)
    with Genome(genome) as source:
        check_chromosomes(list(chroms), source.lengths)
        lengths = {name: source.lengths[name] for name in chroms or source.lengths}
        if fold is None:
            folds = _folds(source, lengths, scheme, k)
        else:
            folds = [read_fold(fold, source.lengths)]
        _make(out)
        for i, one in enumerate(folds):
            write_fold(out / f"fold_{i}.json", one)
            if table is not None:
                shared, told = _shared_out(source, table, one, similar)
                write(shared, out / f"fold_{i}.csv")
                note(f"fold {i}: {told}")
    note(f"{len(folds)} folds in {out}")


def _folds(source: "Genome", lengths: dict[str, int], scheme: str, k: int) -> "list[Fold]":
    from data_tools.folds import gc_stress_fold, k_folds

    if scheme == "k_fold":
        return k_folds(lengths, k)
    if scheme == "leave_one_out":
        return k_folds(lengths, len(lengths))
    gc = {name: composition(source, name)["gc"] for name in lengths}
    return [gc_stress_fold(lengths, gc, train_on="rich" if "reverse" in scheme else "poor")]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from error


def _shared_out(
    source: "Genome", table: "pd.DataFrame", fold: "Fold", similar: float
) -> "tuple[pd.DataFrame, str]":
    """Give the windows of the fold with their part, near-duplicates left out, and what was done."""
    import pandas as pd

    from data_tools.duplicates import near_duplicates
    from data_tools.folds import PARTS
    from data_tools.windows import window_codes

    part = table["chrom"].map({name: fold.part_of(name) for name in table["chrom"].unique()})
    used = table.assign(part=part)[part.notna()].reset_index(drop=True)
    told = []
    for later in ("test", "valid") if similar else ():
        earlier = used["part"].isin(PARTS[: PARTS.index(later)]).to_numpy().nonzero()[0]
        held = used[used["part"] == later]
        if not len(earlier) or held.empty:
            continue
        codes = window_codes(source, pd.concat([used.loc[earlier], held]))
        found = near_duplicates(codes[: len(earlier)], codes[len(earlier) :], threshold=similar)
        lost = earlier[found["window"]]
        told.append(f"{len(lost)} near-duplicates of {later} windows left out")
        used = used.drop(index=used.index[lost]).reset_index(drop=True)
    counts = ", ".join(f"{int((used['part'] == name).sum())} {name}" for name in PARTS)
    outside = f"{int(part.isna().sum())} on other chromosomes"
    return used, "; ".join([counts, *told, outside])
