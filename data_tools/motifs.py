"""Motif matrices: read JASPAR, MEME and HOCOMOCO files, turn counts into log-odds.

References
----------
Stormo (2000), DNA binding sites: representation and discovery. Bioinformatics 16, 16-23.
Rauluseviciute et al. (2024), JASPAR 2024. Nucleic Acids Research 52, D174-D182.
"""

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
from Bio import motifs as bio_motifs
from numpy.typing import NDArray

from data_tools.errors import InputError
from data_tools.formats.text import opened

_LARGEST = 1 << 28
_MANY_SITES = 10**9
_AT_MANY = rf"\1 nsites= {_MANY_SITES}\3"
_MEME_SITES = 20.0
_SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class Motif:
    """A position frequency matrix.

    Attributes
    ----------
    name : str
        Matrix identifier and factor, such as ``"MA0139.2 CTCF"``.
    counts : numpy.ndarray
        Counts of shape (4, K), rows A, C, G, T.
    """

    name: str
    counts: NDArray[np.float64]

    def log_odds(
        self, pseudocount: float = 0.8, background: Sequence[float] = (0.25,) * 4
    ) -> NDArray[np.float32]:
        """Log2 odds against base frequencies.

        Parameters
        ----------
        pseudocount
            Added to each count, so that a base that was never seen stays possible; with an uneven
            background four times this number is shared out over the bases as the background is.
            The default matters little for the hundreds of sites that a JASPAR matrix counts.
        background
            Frequencies of A, C, G, T, above 0; they are scaled to sum to 1.

        Returns
        -------
        numpy.ndarray
            Shape (4, K), in bits.

        Raises
        ------
        InputError
            Where a count of 0 stays 0, which has no logarithm, or for a background that is none.

        Examples
        --------
        >>> Motif("x", np.array([[8.0], [0.0], [0.0], [0.0]])).log_odds(1.0).ravel().round(2)
        array([ 1.58, -1.58, -1.58, -1.58], dtype=float32)
        """
        base = np.asarray(background, dtype=np.float64)
        if base.shape != (4,) or not (np.isfinite(base) & (base > 0)).all():
            raise InputError(
                f"a background has four frequencies above 0, for A, C, G, T, not {background}"
            )
        share = (base / base.sum())[:, None]
        frequency = self.counts + 4 * pseudocount * share
        if not (np.isfinite(frequency) & (frequency > 0)).all():
            raise InputError(
                f"motif {self.name}: pseudocount {pseudocount} leaves a frequency without a "
                "logarithm; give one above 0"
            )
        bits: NDArray[np.float64] = np.log2(frequency / frequency.sum(0) / share)
        return bits.astype(np.float32)

    def information(self, pseudocount: float = 0.8) -> NDArray[np.float64]:
        """Information content of each column against equal base frequencies.

        Parameters
        ----------
        pseudocount
            As in `log_odds`.

        Returns
        -------
        numpy.ndarray
            Shape (K,), in bits, 0 to 2: the relative entropy to equal frequencies, without a
            correction for few sites (Schneider & Stephens 1990, Nucleic Acids Research 18, 6097).

        Examples
        --------
        >>> Motif("x", np.array([[8.0, 1], [0, 1], [0, 1], [0, 1]])).information(0)
        array([2., 0.])
        """
        frequency = self.counts + pseudocount
        frequency = frequency / frequency.sum(0)
        logarithm = np.log2(4 * frequency, out=np.zeros_like(frequency), where=frequency > 0)
        bits: NDArray[np.float64] = (frequency * logarithm).sum(0)
        return bits


def read_motif(path: str | Path) -> Motif:
    """Read the one matrix of a JASPAR or MEME file.

    Raises
    ------
    InputError
        When the file is missing, is no file of matrices, holds none or several, or a matrix
        with a count that is negative or no number, or with a column without a count.
    """
    found = read_motifs(path)
    if len(found) != 1:
        raise InputError(f"{path}: holds {len(found)} matrices; give a file with exactly one")
    return found[0]


def read_motifs(path: str | Path) -> list[Motif]:
    """Read all matrices of a JASPAR or MEME file, as JASPAR and HOCOMOCO give them; also gzipped.

    A MEME file holds frequencies; counts are these times its ``nsites`` (20 where it has none, as
    MEME itself has it), not rounded.

    Parameters
    ----------
    path : path
        Told by its content: MEME begins with ``MEME version``, JASPAR with ``>``.

    Returns
    -------
    list of Motif
        In the order of the file.

    Raises
    ------
    InputError
        When the file is missing, is no such file, holds no matrix, or one with a count that is
        negative or no number, a column without a count, or, in MEME, frequencies whose sum is not
        1.
    """
    path = Path(path)
    text = _text(path)
    found = _meme(path, text) if text.lstrip().startswith("MEME") else _jaspar(path, text)
    if not found:
        raise InputError(f"{path}: holds no matrix; check that the file is whole")
    for motif in found:
        _check_counts(path, motif)
    return found


def _jaspar(path: Path, text: str) -> list[Motif]:
    """Read a matrix at a time, because Biopython drops lines that are over."""
    return [_jaspar_matrix(path, part) for part in re.split(r"(?m)^(?=>)", text) if part.strip()]


def _jaspar_matrix(path: Path, text: str) -> Motif:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines[0].startswith(">") or len(lines) != 5:
        raise InputError(
            f"{path}: not a JASPAR matrix ({len(lines)} lines from {lines[0][:40]!r} on; a matrix "
            "has a line with '>' and one line each for A, C, G, T)"
        )
    try:
        matrix = bio_motifs.parse(StringIO(text), "jaspar")[0]  # type: ignore[no-untyped-call]
        counts = np.array([matrix.counts[base] for base in "ACGT"], dtype=np.float64)
    except Exception as error:  # Biopython raises bare Exceptions, too.
        raise InputError(f"{path}: not a JASPAR matrix ({error})") from error
    return Motif(f"{matrix.matrix_id} {matrix.name}", counts)


def _meme(path: Path, text: str) -> list[Motif]:
    # Biopython rounds frequencies times sites to whole counts: ask it for very many sites.
    heads = re.findall(r"(?m)^letter-probability matrix:.*$", text)
    sites = [re.search(r"nsites= *([0-9]+)", head) for head in heads]
    finer = re.sub(r"(?m)^(letter-probability matrix:.*?)(nsites= *[0-9]+)?( .*)?$", _AT_MANY, text)
    try:
        matrices = bio_motifs.parse(StringIO(finer), "minimal")  # type: ignore[no-untyped-call]
        counts = [np.array([m.counts[base] for base in "ACGT"], np.float64) for m in matrices]
    except Exception as error:  # Biopython raises bare Exceptions, too.
        raise InputError(f"{path}: not a MEME file ({error})") from error
    if len(counts) != len(heads) or any(part.ndim != 2 for part in counts):
        raise InputError(f"{path}: {len(heads)} matrices, of which {len(counts)} can be read")
    found = []
    for matrix, part, number in zip(matrices, counts, sites, strict=True):
        off = np.abs(part.sum(0) / _MANY_SITES - 1) > _SUM_TOLERANCE
        if off.any():
            raise InputError(
                f"{path}: {matrix.name}: the frequencies of column {int(off.argmax()) + 1} do not "
                "sum to 1; correct them"
            )
        times = float(number[1]) if number else _MEME_SITES
        found.append(Motif(matrix.name, part / _MANY_SITES * times))
    return found


def _text(path: Path) -> str:
    with opened(path) as stream:
        raw = stream.read()
    try:
        if raw[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=BytesIO(raw)) as inflated:
                raw = inflated.read(_LARGEST + 1)
            if len(raw) > _LARGEST:
                raise InputError(f"{path}: inflates to more than {_LARGEST >> 20} MiB; unpack it")
        return raw.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: broken gzip ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a file of matrices ({error})") from error


def _check_counts(path: Path, motif: Motif) -> None:
    counts = motif.counts
    if counts.shape[1] == 0:
        raise InputError(f"{path}: {motif.name} has no column; check that the file is whole")
    wrong = ~(np.isfinite(counts) & (counts >= 0))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            f"{path}: {motif.name}: count {counts[row, column]:g} of {'ACGT'[row]} in column "
            f"{column + 1}; give counts, which are 0 or more"
        )
    if (empty := counts.sum(axis=0) == 0).any():
        raise InputError(
            f"{path}: {motif.name}: column {int(empty.argmax()) + 1} has no count; remove it or "
            "fill it"
        )
