"""Exact random access to a genome: FASTA, plain or bgzip, and 2bit.

`Genome` gives the bases that stand in the file now, all that were asked for, or an error. One
object serves threads and forked workers alike, because no read moves a shared file position.
What is asked for is checked here; how the bytes of a format become bases is a
`data_tools.formats.store.Store`. What is kept between runs is the layout of FASTA files only,
see `data_tools.formats.fasta_index`.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

import data_tools.kernels
from data_tools.encode import Codes
from data_tools.errors import ChangedFileError, InputError, RangeError, unknown_chromosome
from data_tools.formats.fasta_index import cache_folder
from data_tools.formats.location import Location, Url, location
from data_tools.formats.store import Store, open_store
from data_tools.kernels import bases as compiled

# Windows this near to each other are read in one span: skipping less costs more than reading.
_GAP = 1 << 16
# Spans that fit the caches, of which the next uses the same memory again.
_SPAN = 1 << 22
_GATHER_BYTES = 1 << 22
_FEW = 1 << 11


class Genome:
    r"""A FASTA file, plain or bgzip, or a 2bit file, for exact reads at any place.

    Coordinates are 0-based and half-open. A FASTA file is scanned once and its layout kept in a
    cache; later opens check that the layout still holds and scan again where it does not. A 2bit
    file tells its layout itself, which is checked at every opening.

    Parameters
    ----------
    path : path or URL
        FASTA with lines of one length within a record, where ``.gz`` must be bgzip; or 2bit.
        The content tells which, not the name. Of ``http://`` and ``https://``, only what is
        needed is read; a FASTA must have its ``.fai``, and bgzip its ``.gzi``, beside it.
    cache_dir : path, optional
        Where layouts of FASTA files are kept. Default: ``$SEQNORM_CACHE``, else
        ``$XDG_CACHE_HOME/seqnorm``, else ``~/.cache/seqnorm``. A folder that cannot be written
        is no error.

    Attributes
    ----------
    path : Path or Url
        The file, as given; a URL shows neither password nor query.
    lengths : dict of str to int
        Chromosome lengths in bases, in the order of the file.

    Raises
    ------
    FormatError
        If the file is no strict FASTA (names record and line) and no strict 2bit (names the
        record and its part).
    InputError
        If it cannot be read.

    Notes
    -----
    Safe in threads and forked workers without a lock. Pickling sends the path and the layout;
    the other process opens the file itself and refuses one whose layout differs.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fasta = Path(folder) / "tiny.fa"
    ...     _ = fasta.write_text(">chr1\nACGTN\nacg\n")
    ...     with Genome(fasta, cache_dir=folder) as genome:
    ...         print(genome.lengths, genome.fetch("chr1", 3, 7))
    ...         print(genome.codes("chr1", 3, 7))
    ...         print(genome.windows(["chr1", "chr1"], [4, 0], 2).tolist())
    {'chr1': 8} TNac
    [3 4 0 1]
    [[4, 0], [0, 1]]
    """

    def __init__(
        self, path: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None
    ) -> None:
        self.path = location(path)
        self._place = self.path if isinstance(self.path, Url) else os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links
        self._use(open_store(self._place, self.path, cache_folder(cache_dir)))

    def _use(self, store: Store) -> None:
        self._store, self.lengths = store, dict(store.lengths)
        self._ranks = {name: rank for rank, name in enumerate(store.lengths)}
        self._sizes = np.fromiter(store.lengths.values(), np.int64, len(store.lengths))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "place": self._place, "layout": self._store.layout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self._place = state["path"], state["place"]
        self._use(open_store(self._place, self.path, None, state["layout"]))
        if self._store.layout != state["layout"]:
            self.close()
            raise ChangedFileError(f"{self.path}: changed since it was opened: open it again")

    def __enter__(self) -> Genome:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; later reads raise `InputError`."""
        self._store.close()

    def __repr__(self) -> str:
        total = sum(self.lengths.values())
        return f"Genome({str(self.path)!r}: {len(self.lengths)} chromosomes, {total:,} bases)"

    @property
    def digest(self) -> str:
        """What stands for the content of the file, for the record of what was read.

        bgzip: a digest of the checksums of all blocks, that is of every byte. 2bit: a digest of
        all but the packed bases. Plain FASTA has no checksum: size and times of the file. Remote:
        size and ETag or Last-Modified, and of FASTA the index beside it.
        """
        return self._store.digest

    def fetch(self, chrom: str, start: SupportsIndex, end: SupportsIndex) -> str:
        """Give the letters of a stretch exactly as they stand in the file, case kept.

        Parameters
        ----------
        chrom : str
            A name in `lengths`.
        start, end : int
            0-based, half-open, ``0 <= start <= end <= lengths[chrom]``.

        Returns
        -------
        str
            ``end - start`` letters.

        Raises
        ------
        RangeError
            If the chromosome is unknown or the stretch is not inside it.
        ChangedFileError
            If the file is no longer the one that was opened.
        """
        return self._store.letters(*self._stretch(chrom, start, end)).decode("ascii")

    def codes(self, chrom: str, start: SupportsIndex, end: SupportsIndex) -> Codes:
        """Give a stretch as codes: A, C, G, T = 0, 1, 2, 3 in either case, all else 4.

        Parameters
        ----------
        chrom : str
            A name in `lengths`.
        start, end : int
            0-based, half-open, ``0 <= start <= end <= lengths[chrom]``.

        Returns
        -------
        ndarray of uint8, shape (end - start,)

        Raises
        ------
        RangeError
            If the chromosome is unknown or the stretch is not inside it.
        ChangedFileError
            If the file is no longer the one that was opened.
        """
        return self._store.codes(*self._stretch(chrom, start, end)).copy()

    def windows(self, chroms: str | Iterable[str], starts: ArrayLike, width: int) -> Codes:
        """Give many windows of one width at once, in the order asked for.

        Parameters
        ----------
        chroms : str or iterable of str, length N
            The chromosome of each window, or one for all.
        starts : array of int, shape (N,)
            0-based starts, in any order.
        width : int
            Bases per window, at least 1.

        Returns
        -------
        ndarray of uint8, shape (N, width)
            Codes as from `codes`. Beyond the result, memory stays within some tens of MB.

        Raises
        ------
        RangeError
            If a chromosome is unknown or a window is not inside it; names the window.
        ChangedFileError
            If the file is no longer the one that was opened.
        """
        size = _integer(width, "width", self.path)
        if size < 1:
            raise RangeError(f"{self.path}: width {size}: a window has at least 1 base")
        places = self._checked_starts(starts)
        ranks = self._checked_ranks(chroms, places, size)
        out = np.empty((len(places), size), dtype=np.uint8)
        order = np.lexsort((places, ranks))
        places = places[order]
        for lo, hi in _spans(ranks[order], places, size):
            first = int(places[lo])
            codes = self._store.codes(int(ranks[order[lo]]), first, int(places[hi - 1]) + size)
            _gather(codes, places[lo:hi] - first, out, order[lo:hi])
        return out

    def _checked_starts(self, starts: ArrayLike) -> NDArray[np.int64]:
        places = np.asarray(starts)
        if places.ndim != 1:
            raise InputError(f"{self.path}: starts have shape (N,), got {places.shape}")
        if places.size and places.dtype.kind not in "iu":
            raise RangeError(f"{self.path}: starts are integers, got {places.dtype}")
        return places.astype(np.int64)

    def _checked_ranks(
        self, chroms: str | Iterable[str], starts: NDArray[np.int64], width: int
    ) -> NDArray[np.intp]:
        """Give the number of each window's record, having checked that the window is inside."""
        names = [chroms] * len(starts) if isinstance(chroms, str) else list(chroms)
        if len(names) != len(starts):
            raise InputError(
                f"{self.path}: {len(names)} chromosomes for {len(starts)} starts: give one each"
            )
        rank_of = self._ranks
        try:
            ranks = np.fromiter(map(rank_of.__getitem__, names), np.intp, len(names))
        except (KeyError, TypeError):
            i, name = next(
                (i, name)
                for i, name in enumerate(names)
                if not isinstance(name, str) or name not in rank_of
            )
            what = unknown_chromosome(name, rank_of)
            raise RangeError(f"{self.path}: window {i}: {what}") from None
        limits = self._sizes[ranks] - width
        inside = (starts >= 0) & (starts <= limits)
        if not inside.all():
            i = int(inside.argmin())
            try:
                self._stretch(names[i], int(starts[i]), int(starts[i]) + width)
            except RangeError as err:
                raise RangeError(f"{err} (window {i})") from None
        return ranks

    def _stretch(
        self, chrom: str, start: SupportsIndex, end: SupportsIndex
    ) -> tuple[int, int, int]:
        """Check a stretch and give its record's number and its ends as plain integers."""
        rank = self._ranks.get(chrom) if isinstance(chrom, str) else None
        if rank is None:
            raise RangeError(f"{self.path}: {unknown_chromosome(chrom, self.lengths)}")
        lo = start if type(start) is int else _integer(start, "start", self.path)
        hi = end if type(end) is int else _integer(end, "end", self.path)
        length = self._store.lengths[chrom]
        if not 0 <= lo <= hi <= length:
            where = f"{self.path}: {chrom}:{lo}-{hi}"
            if lo < 0:
                raise RangeError(f"{where}: start is below 0: coordinates are 0-based")
            if lo > hi:
                raise RangeError(f"{where}: start is above end: swap them")
            raise RangeError(
                f"{where}: past the end of {chrom} ({length} bases): "
                "shift or drop it, and check the assembly"
            )
        return rank, lo, hi


def _integer(value: SupportsIndex, name: str, path: Location) -> int:
    if not isinstance(value, bool | np.bool_):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise RangeError(f"{path}: {name} is an integer, got {value!r}")


def _spans(
    ranks: NDArray[np.intp], starts: NDArray[np.int64], width: int
) -> Iterator[tuple[int, int]]:
    """Cut sorted windows into runs (lo, hi) that one read of bounded size covers."""
    if not len(starts):
        return
    apart = (np.diff(starts) > width + _GAP) | (np.diff(ranks) != 0)
    cuts = np.append(np.flatnonzero(apart) + 1, len(starts))
    most = max(_SPAN - width, 0)
    short = starts[cuts - 1] - starts[np.append(0, cuts[:-1])] <= most
    lo = 0
    for cut, whole in zip(cuts.tolist(), short.tolist(), strict=True):
        if whole:
            yield lo, cut
            lo = cut
        while lo < cut:
            hi = lo + int(np.searchsorted(starts[lo:cut], starts[lo] + most, side="right"))
            yield lo, hi
            lo = hi


def _gather(codes: Codes, offsets: NDArray[np.int64], out: Codes, rows: NDArray[np.intp]) -> None:
    """Copy the windows at these offsets of the codes into these rows of out."""
    width = out.shape[1]
    if len(rows) * width <= _FEW:
        # A view costs more than these few bases.
        out[rows] = codes[offsets[:, None] + np.arange(width)]
        return
    if data_tools.kernels.available():
        compiled.gather(codes, offsets, out, rows)
        return
    views = np.lib.stride_tricks.sliding_window_view(codes, width)
    # The copy in between stays small however many windows one span serves.
    step = max(1, _GATHER_BYTES // width)
    for lo in range(0, len(rows), step):
        out[rows[lo : lo + step]] = views[offsets[lo : lo + step]]
