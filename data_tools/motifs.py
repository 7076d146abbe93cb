"""Motif matrices: read JASPAR counts, turn them into log-odds, scan both strands.

References
----------
Stormo (2000), DNA binding sites: representation and discovery. Bioinformatics 16, 16-23.
Rauluseviciute et al. (2024), JASPAR 2024. Nucleic Acids Research 52, D174-D182.
"""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from Bio import motifs as bio_motifs
from numpy.typing import NDArray

from data_tools.encode import as_codes
from data_tools.errors import InputError, MissingFileError


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

    def log_odds(self, pseudocount: float = 0.8) -> NDArray[np.float32]:
        """Log2 odds against equal base frequencies.

        Parameters
        ----------
        pseudocount
            Added to each count, so that a base that was never seen stays possible. The default
            matters little for the hundreds of sites that a JASPAR matrix counts.

        Returns
        -------
        numpy.ndarray
            Shape (4, K), in bits.

        Raises
        ------
        InputError
            Where a count of 0 stays 0, which has no logarithm.

        Examples
        --------
        >>> Motif("x", np.array([[8.0], [0.0], [0.0], [0.0]])).log_odds(1.0).ravel().round(2)
        array([ 1.58, -1.58, -1.58, -1.58], dtype=float32)
        """
        frequency = self.counts + pseudocount
        if not (np.isfinite(frequency) & (frequency > 0)).all():
            raise InputError(
                f"motif {self.name}: pseudocount {pseudocount} leaves a frequency without a "
                "logarithm; give one above 0"
            )
        bits: NDArray[np.float64] = np.log2(4 * frequency / frequency.sum(0))
        return bits.astype(np.float32)


def read_motif(path: str | Path) -> Motif:
    """Read the one matrix of a JASPAR file.

    Raises
    ------
    InputError
        When the file is missing, is no JASPAR file, holds none or several matrices, or a matrix
        with a count that is negative or no number, or with a column without a count.
    """
    path = Path(path)
    text = _one_matrix(path)
    try:
        matrix = bio_motifs.parse(StringIO(text), "jaspar")[0]  # type: ignore[no-untyped-call]
        counts = np.array([matrix.counts[base] for base in "ACGT"], dtype=np.float64)
    except Exception as error:  # Biopython raises bare Exceptions, too.
        raise InputError(f"{path}: not a JASPAR matrix ({error})") from error
    _check_counts(path, counts)
    return Motif(f"{matrix.matrix_id} {matrix.name}", counts)


def _one_matrix(path: Path) -> str:
    """Text of a file that has the lines of one matrix; Biopython drops what is over."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file; give the path of a JASPAR matrix") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a JASPAR matrix ({error})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    headers = sum(line.startswith(">") for line in lines)
    if headers != 1:
        raise InputError(f"{path}: holds {headers} matrices; give a file with exactly one")
    if len(lines) != 5:
        raise InputError(
            f"{path}: not a JASPAR matrix ({len(lines)} lines; a matrix has a line with '>' and "
            "one line each for A, C, G, T)"
        )
    return text


def _check_counts(path: Path, counts: NDArray[np.float64]) -> None:
    if counts.shape[1] == 0:
        raise InputError(f"{path}: the matrix has no column; check that the file is whole")
    wrong = ~(np.isfinite(counts) & (counts >= 0))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            f"{path}: count {counts[row, column]:g} of {'ACGT'[row]} in column {column + 1}; "
            "give counts, which are 0 or more"
        )
    if (empty := counts.sum(axis=0) == 0).any():
        raise InputError(
            f"{path}: column {int(empty.argmax()) + 1} has no count; remove it or fill it"
        )


def best_match(codes: NDArray[np.uint8], log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score of the best site on either strand of each window.

    Parameters
    ----------
    codes
        Base codes of shape (N, L) or (L,); an ambiguous base (4) scores as the worst base of its
        column.
    log_odds
        Matrix of shape (4, K), 1 <= K <= L.

    Returns
    -------
    numpy.ndarray
        Shape (N,), in bits.

    Raises
    ------
    InputError
        For other shapes, a window shorter than the motif, or codes outside 0 to 4.

    Examples
    --------
    >>> weights = np.array([[1, -1], [-1, 1], [-1, -1], [-1, -1]], dtype=np.float32)
    >>> best_match(np.array([[2, 0, 1, 3], [2, 2, 3, 3], [2, 2, 2, 0]], dtype=np.uint8), weights)
    array([2., 2., 0.], dtype=float32)
    """
    codes = np.atleast_2d(as_codes(codes))
    if codes.ndim != 2:
        raise InputError(f"codes have shape (N, L), got {codes.shape}")
    if log_odds.ndim != 2 or log_odds.shape[0] != 4 or log_odds.shape[1] == 0:
        raise InputError(f"log-odds have shape (4, K) with K >= 1, got {log_odds.shape}")
    width = log_odds.shape[1]
    if codes.shape[1] < width:
        raise InputError(
            f"a window of {codes.shape[1]} bases is shorter than the motif of {width}; "
            "use wider windows"
        )
    extended = np.vstack([log_odds, log_odds.min(axis=0)])
    # The reverse strand is the same scan with the matrix turned round and complemented.
    reverse = np.vstack([log_odds[::-1, ::-1], extended[4:, ::-1]])
    best = np.empty(len(codes), dtype=np.float32)
    rows = max(1, 4_000_000 // codes.shape[1])
    for first in range(0, len(codes), rows):
        part = codes[first : first + rows]
        best[first : first + rows] = np.maximum(_scan(part, extended), _scan(part, reverse))
    return best


def _scan(codes: NDArray[np.uint8], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    positions = codes.shape[1] - weights.shape[1] + 1
    score = np.zeros((len(codes), positions), dtype=np.float32)
    for k in range(weights.shape[1]):
        score += weights[:, k][codes[:, k : k + positions]]
    best: NDArray[np.float32] = score.max(axis=1)
    return best
