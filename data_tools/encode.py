"""DNA letters to numbers and back: one byte per base, one-hot, reverse complement.

Codes are ``A, C, G, T = 0, 1, 2, 3``, and 4 for N and every other IUPAC ambiguity letter, in
either case. One byte per base is what to keep in memory; the one-hot array is four to sixteen
times as large and is made from the codes by comparison, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from data_tools.errors import InputError

Codes = NDArray[np.uint8]

BASES = "ACGT"
AMBIGUOUS = 4
ILLEGAL = 255
LETTERS = b"ACGTRYSWKMBDHVNacgtryswkmbdhvn"
_COMPLEMENT = b"TGCAYRSWMKVHDBNtgcayrswmkvhdbn"


def _code_table() -> bytes:
    table = bytearray([ILLEGAL]) * 256
    for letter in LETTERS:
        table[letter] = AMBIGUOUS
    for code, base in enumerate(BASES):
        table[ord(base)] = table[ord(base.lower())] = code
    return bytes(table)


#: For ``bytes.translate``: letter to code, `ILLEGAL` for what is not a DNA letter.
CODE_TABLE = _code_table()
_COMPLEMENT_TABLE = str.maketrans(LETTERS.decode(), _COMPLEMENT.decode())
_COMPLEMENT_CODES = np.array([3, 2, 1, 0, 4], dtype=np.uint8)


def encode(seq: str | bytes) -> Codes:
    """Turn DNA letters into codes.

    Parameters
    ----------
    seq : str or bytes
        IUPAC nucleotide letters in either case.

    Returns
    -------
    ndarray of uint8, shape (L,)
        0, 1, 2, 3 for A, C, G, T; 4 for N and the other ambiguity letters.

    Raises
    ------
    InputError
        At a character that is no DNA letter (gaps, digits, U); names it and its position.

    Examples
    --------
    >>> encode("ACGTNacgtR").tolist()
    [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    """
    if not isinstance(seq, str | bytes):
        raise InputError(f"expected a str or bytes of DNA letters, got {type(seq).__name__}")
    # Replacing keeps one byte per character, so positions stay those of the caller's string.
    raw = seq.encode("ascii", "replace") if isinstance(seq, str) else seq
    # A bytearray, unlike bytes, gives NumPy memory that the caller may write to.
    codes = np.frombuffer(bytearray(raw).translate(CODE_TABLE), dtype=np.uint8)
    if codes.size and codes.max() == ILLEGAL:
        at = int(codes.argmax())
        raise InputError(illegal_letter(seq[at] if isinstance(seq, str) else chr(seq[at]), at))
    return codes


def illegal_letter(letter: str, position: int) -> str:
    """Say that a letter is not DNA, where it stands (0-based) and what to do.

    Examples
    --------
    >>> illegal_letter("U", 3)
    "illegal character 'U' at position 3 (0-based): this is RNA, write T for U"
    """
    if letter in "Uu":
        remedy = "this is RNA, write T for U"
    elif letter in "-.*":
        remedy = "remove gaps and stops"
    else:
        remedy = "use A, C, G, T, N or another IUPAC nucleotide letter"
    return f"illegal character {letter!r} at position {position} (0-based): {remedy}"


def decode(codes: NDArray[np.integer[Any]]) -> str:
    """Turn codes into upper-case letters; 4 becomes N.

    Parameters
    ----------
    codes : ndarray of integers, shape (L,)
        Values 0 to 4.

    Returns
    -------
    str
        L letters.

    Raises
    ------
    InputError
        If the array is not one-dimensional or holds another value.

    Examples
    --------
    >>> decode(encode("acgtRn"))
    'ACGTNN'
    """
    checked = as_codes(codes)
    if checked.ndim != 1:
        raise InputError(f"decode takes one sequence, shape (L,), got shape {checked.shape}")
    return checked.tobytes().translate(b"ACGTN" + bytes(251)).decode("ascii")


def as_codes(codes: NDArray[np.integer[Any]]) -> Codes:
    """Check that an array holds codes only and give it as uint8.

    Raises
    ------
    InputError
        If it is no integer array or holds a value outside 0 to 4.

    Examples
    --------
    >>> as_codes(np.array([0, 4])).dtype
    dtype('uint8')
    """
    array = np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise InputError(f"codes are integers 0 to 4, got an array of {array.dtype}")
    below = array.dtype.kind == "i" and array.size and array.min() < 0
    if array.size and (below or array.max() > AMBIGUOUS):
        wrong = array[(array > AMBIGUOUS) | (array < 0)].flat[0]
        raise InputError(f"codes are integers 0 to 4, got the value {wrong}")
    return array.astype(np.uint8, copy=False)


def one_hot(
    seq: str | bytes | NDArray[np.integer[Any]] | Iterable[str], dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """One-hot encode DNA, channels first, channel order A, C, G, T.

    Parameters
    ----------
    seq : str, bytes, ndarray of codes, or list of str
        One sequence as letters or as codes of shape (L,); many as codes of shape (N, L) or as
        strings of one length.
    dtype : dtype, default float32
        The type of the result.

    Returns
    -------
    ndarray, shape (4, L) for one sequence, (N, 4, L) for many
        1 in the row of the base; N and other ambiguity letters are all zero.

    Raises
    ------
    InputError
        At an illegal letter or code, strings of unequal length, or an empty list.

    Examples
    --------
    >>> one_hot("ACN").tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    >>> one_hot(["ACGT", "TTTT"]).shape
    (2, 4, 4)
    """
    if np.dtype(dtype).kind not in "biufc":
        raise InputError(f"one-hot arrays hold numbers, not {np.dtype(dtype)}")
    if isinstance(seq, str | bytes):
        codes = encode(seq)
    elif isinstance(seq, np.ndarray) and seq.dtype.kind not in "OUST":
        codes = as_codes(seq)
    elif isinstance(seq, Iterable):
        codes = _encode_many(list(seq))
    else:
        raise InputError(f"expected DNA letters, codes or a list of str, got {seq!r}")
    if codes.ndim not in (1, 2):
        raise InputError(f"codes have shape (L,) or (N, L), got {codes.shape}")
    out = np.empty((*codes.shape[:-1], 4, codes.shape[-1]), dtype=dtype)
    if codes.ndim == 1:
        _expand(codes[None], out[None])
    else:
        _expand(codes, out)
    return out


def _expand(codes: Codes, out: NDArray[Any]) -> None:
    """Write the one-hot form of codes (N, L) into out (N, 4, L)."""
    # A bool is one byte, 0 or 1: comparing straight into such an output saves a pass.
    flags = out.view(np.bool_) if out.dtype.itemsize == 1 else None
    # Blocks that fit the cache: the codes are read four times, a comparison once more.
    rows = max(1, (1 << 17) // max(1, codes.shape[1]))
    for lo in range(0, len(codes), rows):
        block = codes[lo : lo + rows]
        for base in range(4):
            if flags is None:
                out[lo : lo + rows, base] = block == base
            else:
                np.equal(block, base, out=flags[lo : lo + rows, base])


def _encode_many(seqs: list[Any]) -> Codes:
    """Encode strings of one length to (N, L)."""
    if not seqs:
        raise InputError("no sequence to encode: the list is empty")
    for i, seq in enumerate(seqs):
        if not isinstance(seq, str | bytes):
            raise InputError(f"sequence {i} is no string but {type(seq).__name__}")
        if len(seq) != len(seqs[0]):
            raise InputError(
                f"sequence {i} has length {len(seq)}, sequence 0 has {len(seqs[0])}: "
                "cut or pad them to one length"
            )
    rows = []
    for i, seq in enumerate(seqs):
        try:
            rows.append(encode(seq))
        except InputError as err:
            raise InputError(f"sequence {i}: {err}") from None
    return np.stack(rows)


@overload
def reverse_complement(x: str) -> str: ...
@overload
def reverse_complement(x: NDArray[np.integer[Any]]) -> Codes: ...
def reverse_complement(x: str | NDArray[np.integer[Any]]) -> str | Codes:
    """Reverse complement of letters or of codes.

    Parameters
    ----------
    x : str, or ndarray of codes, shape (..., L)
        A string keeps its case, and ambiguity letters are complemented too (R becomes Y).

    Returns
    -------
    str, or ndarray of uint8, shape (..., L)
        Arrays are reversed along the last axis.

    Raises
    ------
    InputError
        At an illegal letter or code.

    Examples
    --------
    >>> reverse_complement("AACgR")
    'YcGTT'
    >>> reverse_complement(np.array([[0, 0, 1], [4, 2, 3]], dtype=np.uint8)).tolist()
    [[2, 3, 3], [0, 1, 4]]
    """
    if isinstance(x, str):
        encode(x)
        return x.translate(_COMPLEMENT_TABLE)[::-1]
    return _COMPLEMENT_CODES[as_codes(x)[..., ::-1]]


def gc_fraction(codes: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Fraction of G and C among the bases that are known.

    Parameters
    ----------
    codes : ndarray of codes, shape (..., L)
        Ambiguous bases (4) count neither above nor below the line.

    Returns
    -------
    ndarray of float64, shape (...)
        Between 0 and 1; nan where a sequence has no known base.

    Examples
    --------
    >>> gc_fraction(np.stack([encode("GCAT"), encode("GGNN"), encode("NNNN")])).tolist()
    [0.5, 1.0, nan]
    """
    checked = as_codes(codes)
    if checked.ndim == 0:
        raise InputError("codes have shape (..., L), got a single number")
    known = np.asarray(np.count_nonzero(checked < AMBIGUOUS, axis=-1))
    gc = np.asarray(np.count_nonzero((checked == 1) | (checked == 2), axis=-1))
    out = np.full(known.shape, np.nan)
    np.divide(gc, known, out=out, where=known > 0)
    return out
