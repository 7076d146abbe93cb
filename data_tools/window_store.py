"""Windows of one width on disk, more of them than memory holds: written once, read at any index.

How they lie there is told in `data_tools.formats.window_files`. Two bits a base take a quarter of
the disk, and of the memory that the system keeps files in, that a byte would.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from data_tools.encode import AMBIGUOUS, Codes
from data_tools.errors import ChangedFileError, InputError, RangeError, unknown_chromosome
from data_tools.formats.packed_bases import pack, unpack
from data_tools.formats.window_files import NewFolder, WindowFiles, new_folder, read_window_files
from data_tools.genome import Genome
from data_tools.windows import window_codes

_BYTES = 1 << 25


def write_window_store(
    path: str | os.PathLike[str],
    genome: Genome,
    windows: pd.DataFrame,
    *,
    margin: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    r"""Write the bases of windows, and their table, as a store for `WindowStore`.

    Parameters
    ----------
    path : path
        The folder to make; it must not exist. It appears when it is complete.
    genome : Genome
        Where the bases come from.
    windows : pandas.DataFrame, N rows
        ``chrom``, ``start``, ``end``, all of one width, and any columns of numbers or text, such
        as ``label``.
    margin : int, default 0
        Bases to keep on both sides of a window, for jitter.
    progress : callable, optional
        Is told, now and then, how many of how many windows are written.

    Raises
    ------
    InputError
        If the folder exists or cannot be made, there is no window, widths differ, or a column is
        neither of numbers nor of text.
    RangeError
        If a window with its margins is not inside its chromosome.

    Notes
    -----
    Beyond the table and a few copies of one of its columns, memory stays within some 200 MB.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "tiny.fa").write_text(">chr1\nACGTNACGTT\n")
    >>> table = pd.DataFrame({"chrom": "chr1", "start": [5, 2], "end": [9, 6], "label": [1, 0]})
    >>> with Genome(folder / "tiny.fa", cache_dir=folder) as genome:
    ...     write_window_store(folder / "tiny.windows", genome, table)
    >>> store = WindowStore(folder / "tiny.windows")
    >>> store.codes([0, 1]).tolist(), store.column("label").tolist()
    ([[0, 1, 2, 3], [2, 3, 4, 0]], [1, 0])
    """
    place = Path(path)
    width = _width(place, windows)
    if margin < 0:
        raise InputError(f"{place}: margin {margin}: it is 0 or more")
    columns = {str(name): _plain(place, str(name), windows[name]) for name in windows}
    order = _order(place, genome, windows, margin)
    rows = np.empty(len(order), dtype=np.int64)
    rows[order] = np.arange(len(order))
    with new_folder(place) as folder:
        folder.save("rows.npy", rows)
        _write_bases(folder, genome, windows, order, margin, progress)
        for number, column in enumerate(columns.values()):
            folder.save(f"column_{number}.npy", column)
        folder.finish(
            count=len(order),
            width=width,
            margin=margin,
            source={"path": str(genome.path), "digest": genome.digest},
            columns=list(columns),
        )


def _write_bases(
    folder: NewFolder,
    genome: Genome,
    windows: pd.DataFrame,
    order: NDArray[np.intp],
    margin: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the bases, as many windows at a time as fit into some tens of MB."""
    width = int(windows["end"].iloc[0] - windows["start"].iloc[0]) + 2 * margin
    step = max(1, _BYTES // width)
    holes = []
    with folder.part("bases.bin") as bases, folder.part("unknown.bin") as unknown:
        for first in range(0, len(order), step):
            codes = window_codes(genome, windows.iloc[order[first : first + step]], margin)
            ambiguous = codes == AMBIGUOUS
            some = np.flatnonzero(ambiguous.any(axis=1))
            holes.append(first + some)
            unknown.write(np.packbits(ambiguous[some], axis=1).tobytes())
            bases.write(pack(np.where(ambiguous, 0, codes)).tobytes())
            if progress is not None:
                progress(min(first + step, len(order)), len(order))
    folder.save("unknown_rows.npy", np.concatenate(holes))


def _order(place: Path, genome: Genome, windows: pd.DataFrame, margin: int) -> NDArray[np.intp]:
    """Give the order of the genome, in which each of its bases is read once."""
    lengths = genome.lengths
    ranks = windows["chrom"].map({name: rank for rank, name in enumerate(lengths)})
    limits = windows["chrom"].map(lengths)
    starts, ends = windows["start"].to_numpy(), windows["end"].to_numpy()
    inside = (starts >= margin) & (ends + margin <= limits.to_numpy())
    if not inside.all():
        row = int(inside.argmin())
        name = windows["chrom"].iloc[row]
        if name not in lengths:
            what = unknown_chromosome(name, lengths)
        else:
            what = (
                f"{name}:{starts[row]}-{ends[row]} with a margin of {margin} leaves {name} "
                f"({lengths[name]} bases): shift or drop it"
            )
        raise RangeError(f"{place}: row {row}: {what} ({np.sum(~inside)} such rows in all)")
    return np.lexsort((starts, ranks.to_numpy()))


def _width(place: Path, windows: pd.DataFrame) -> int:
    if windows.empty:
        raise InputError(f"{place}: there is no window to write")
    widths = (windows["end"] - windows["start"]).to_numpy()
    if (widths != widths[0]).any():
        odd = int((widths != widths[0]).argmax())
        raise InputError(
            f"{place}: windows are of one width: row 0 has {widths[0]} bases, row {odd} has "
            f"{widths[odd]}"
        )
    if widths[0] < 1:
        raise InputError(f"{place}: row 0 has {widths[0]} bases: a window has at least 1")
    return int(widths[0])


def _plain(place: Path, name: str, column: pd.Series[Any]) -> NDArray[Any]:
    """Give a column as numbers or as text of fixed width, which need no pickle."""
    values = column.to_numpy()
    if values.dtype.kind in "biuf":
        return values
    if all(isinstance(value, str) for value in values):
        return values.astype(np.str_)
    raise InputError(
        f"{place}: column {name!r} is neither of numbers nor of text alone: fill or drop it"
    )


class WindowStore:
    """Windows that `write_window_store` wrote, for reading at any index.

    Parameters
    ----------
    path : path
        The folder.

    Attributes
    ----------
    path : Path
        The folder, as given.
    width, margin : int
        Bases of a window, and those kept on either side of it.
    source : dict of str to str
        ``path`` and ``digest`` of the genome, see `Genome.digest`.
    columns : tuple of str
        Names of the columns of the table.

    Raises
    ------
    InputError
        If there is no such folder; `FormatError` if it is no store, or a part of it is lacking,
        cut or of another store.

    Notes
    -----
    Safe in threads and forked workers. Pickling sends the path; the other process opens the
    folder itself and refuses another store. The files are mapped: do not change them in place.

    Examples
    --------
    See `write_window_store`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._use(read_window_files(Path(os.path.abspath(path)), self.path))  # noqa: PTH100

    def _use(self, files: WindowFiles) -> None:
        self._files = files
        header = files.header
        self.width, self.margin, self.source = header.width, header.margin, header.source
        self.columns = tuple(header.columns)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "place": self._files.place, "digest": self._files.digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._use(read_window_files(state["place"], self.path))
        if self._files.digest != state["digest"]:
            raise ChangedFileError(f"{self.path}: another store than it was: open it again")

    def __len__(self) -> int:
        return self._files.header.count

    def __repr__(self) -> str:
        return (
            f"WindowStore({str(self.path)!r}: {len(self):,} windows of {self.width} bases, "
            f"margin {self.margin})"
        )

    def codes(self, index: ArrayLike) -> Codes:
        """Give windows with their margins as codes.

        Parameters
        ----------
        index : array of int, shape (n,)
            Rows of the table, in any order, also more than once.

        Returns
        -------
        ndarray of uint8, shape (n, width + 2 * margin)

        Raises
        ------
        RangeError
            If an index is no integer, below 0 or not below the number of windows.
        """
        files = self._files
        rows = files.rows[self._checked(index)]
        length = self.width + 2 * self.margin
        codes = unpack(files.bases[rows])[:, :length]
        if len(files.unknown_rows):
            at = np.minimum(files.unknown_rows.searchsorted(rows), len(files.unknown_rows) - 1)
            hit = np.flatnonzero(files.unknown_rows[at] == rows)
            ambiguous = np.unpackbits(files.unknown[at[hit]], axis=1, count=length).view(np.bool_)
            codes[hit] = np.where(ambiguous, AMBIGUOUS, codes[hit])
        return codes

    def _checked(self, index: ArrayLike) -> NDArray[np.intp]:
        places = np.asarray(index)
        if places.ndim != 1 or (places.size and places.dtype.kind not in "iu"):
            raise RangeError(
                f"{self.path}: an index is an array of integers, shape (n,), got {places.dtype} "
                f"of shape {places.shape}"
            )
        wrong = (places < 0) | (places >= len(self))
        if wrong.any():
            raise RangeError(
                f"{self.path}: index {places[wrong][0]}: the windows are 0 to {len(self) - 1}"
            )
        return places.astype(np.intp)

    def column(self, name: str) -> NDArray[Any]:
        """Give a column of the table, mapped from the disk: shape (N,).

        Raises
        ------
        InputError
            If there is no such column.
        """
        if name not in self.columns:
            known = ", ".join(repr(column) for column in self.columns)
            raise InputError(f"{self.path}: no column {name!r}: it has {known}")
        return self._files.columns[self.columns.index(name)]

    def table(self) -> pd.DataFrame:
        """Give the table of the windows as it was written."""
        return pd.DataFrame({name: self.column(name) for name in self.columns})

    def verify(self) -> None:
        """Read all files and compare their checksums, which opening does not.

        Raises
        ------
        FormatError
            If a file is not as it was written; names it.
        """
        self._files.verify()
