"""``data-tools split``."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from data_tools.commands.output import note, write
from data_tools.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from data_tools.duplicates import Hashes
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
        genome: FASTA (plain or compressed with bgzip) or 2bit file.
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
        compared = None if table is None else _Compared(source, table, folds, similar)
        for i, one in enumerate(folds):
            write_fold(out / f"fold_{i}.json", one)
            if compared is not None:
                shared, told = _shared_out(compared, one)
                write(shared, out / f"fold_{i}.csv")
                note(f"fold {i}: {told}")
    note(f"{len(folds)} folds in {out}")


def _folds(source: "Genome", lengths: dict[str, int], scheme: str, k: int) -> "list[Fold]":
    from data_tools.composition import composition
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


class _Compared:
    """Windows of which each is read once, however many folds compare it with others."""

    def __init__(
        self, source: "Genome", table: "pd.DataFrame", folds: "list[Fold]", similar: float
    ) -> None:
        self.source, self.table, self.folds, self.similar = source, table, folds, similar

    @cached_property
    def minimizers(self) -> "dict[int, Hashes]":
        """Those of each row on a chromosome of any fold."""
        from data_tools.duplicates import check_threshold, minimizers
        from data_tools.windows import equal_width, window_codes_in_parts

        check_threshold(self.similar)
        chroms = {name for fold in self.folds for name in fold.train + fold.valid + fold.test}
        mine = self.table[self.table["chrom"].isin(chroms)]
        equal_width(mine)
        parts = (minimizers(codes) for codes in window_codes_in_parts(self.source, mine))
        return dict(zip(mine.index, (row for part in parts for row in part), strict=True))

    def like(self, rows: "pd.Index[int]", others: "pd.Index[int]") -> "pd.Index[int]":
        """Give those of the rows that nearly equal one of the others."""
        from data_tools.duplicates import alike

        left, right = ([self.minimizers[row] for row in side] for side in (rows, others))
        return rows[alike(left, right, self.similar)["window"]]


def _shared_out(compared: _Compared, fold: "Fold") -> "tuple[pd.DataFrame, str]":
    """Give the windows of the fold with their part, near-duplicates left out, and what was done."""
    from data_tools.folds import PARTS

    table = compared.table
    part = table["chrom"].map({name: fold.part_of(name) for name in table["chrom"].unique()})
    used = table.assign(part=part)[part.notna()]
    told = []
    for later in ("test", "valid") if compared.similar else ():
        earlier = used.index[used["part"].isin(PARTS[: PARTS.index(later)])]
        held = used.index[used["part"] == later]
        if earlier.empty or held.empty:
            continue
        lost = compared.like(earlier, held)
        told.append(f"{len(lost)} near-duplicates of {later} windows left out")
        used = used.drop(index=lost)
    counts = ", ".join(f"{int((used['part'] == name).sum())} {name}" for name in PARTS)
    outside = f"{int(part.isna().sum())} on other chromosomes"
    return used, "; ".join([counts, *told, outside])
