"""An explanation as files: arrays, a table, logos, and a page of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import seqnorm
from data_tools.atomic import write_atomic
from data_tools.encode import AMBIGUOUS, BASES, Codes
from data_tools.errors import InputError
from data_tools.logo import height_logo
from seqnorm.plot_style import embedded, svg
from seqnorm.runs.naming import safe_name
from seqnorm.runs.page import page_environment
from seqnorm.use.explain import Explanation
from seqnorm.use.files import made_whole, tsv

__all__ = ["check_folder", "write_explanation"]

_WORDS = {
    "ism": "In-silico mutagenesis: what the score loses, on average over the four bases, when the "
    "base that is there is replaced.",
    "gradient": "Slope of the score towards the base that is there, less the mean slope towards "
    "the four bases.",
}


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something, before there is anything to write."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder}: holds something already; give the name of a new folder")


def write_explanation(
    folder: Path,
    windows: pd.DataFrame,
    found: Explanation,
    *,
    model: str,
    method: str,
    logos: int,
    logo_width: int,
) -> None:
    """Write what was found.

    Parameters
    ----------
    folder : path
        Made if it does not exist; gets ``explanation.npz``, ``explanation.tsv``, ``index.html``
        and, in ``logos``, the pictures.
    windows : DataFrame
        ``chrom``, ``start``, ``end`` and, where there is one, ``name``, a row a window.
    found : Explanation
    model, method : str
        For the page.
    logos : int
        Of so many windows, from the first on.
    logo_width : int
        Bases in a logo: of wider windows, those where the contributions are largest.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    try:
        (folder / "logos").mkdir(parents=True, exist_ok=True)
        with made_whole(folder / "explanation.npz") as temporary:
            _write_arrays(temporary, windows, found)
        lines = tsv(_positions(windows, found))
        write_atomic(folder / "explanation.tsv", (line.encode() for line in lines))
        pictures = []
        for row, window in enumerate(windows.head(logos).to_dict("records")):
            picture = _picture(window, found, row, logo_width)
            write_atomic(folder / "logos" / f"{row + 1:03d}_{picture['file']}.svg", picture["svg"])
            pictures.append(picture)
        page = _page(pictures, model, method, len(windows), logo_width)
        write_atomic(folder / "index.html", page)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _write_arrays(path: Path, windows: pd.DataFrame, found: Explanation) -> None:
    np.savez(
        path,
        chrom=windows["chrom"].to_numpy().astype(np.str_),
        start=windows["start"].to_numpy(np.int64),
        end=windows["end"].to_numpy(np.int64),
        codes=found.codes,
        scores=found.scores,
        effects=found.effects,
        hypothetical=found.hypothetical,
        contributions=found.contributions,
    )


def _positions(windows: pd.DataFrame, found: Explanation) -> Iterator[pd.DataFrame]:
    """One line a base, a window at a time."""
    letters = np.array([*BASES, "N"])
    contributions = found.contributions
    for row, (chrom, start) in enumerate(zip(windows["chrom"], windows["start"], strict=True)):
        place = start + np.arange(found.codes.shape[1])
        yield pd.DataFrame(
            {
                "window": row + 1,
                "chrom": chrom,
                "start": place,
                "end": place + 1,
                "base": letters[found.codes[row]],
                "contribution": contributions[row],
                **{f"effect_{base}": found.effects[row, at] for at, base in enumerate(BASES)},
            }
        )


def _picture(
    window: dict[Hashable, Any], found: Explanation, row: int, logo_width: int
) -> dict[str, str]:
    """The logo of a window's contributions, and what to call it."""
    whole = found.contributions[row]
    first = best_stretch(whole, logo_width)
    part = slice(first, first + logo_width)
    start = int(window["start"])
    chrom, low, high = str(window["chrom"]), start + first, start + first + len(whole[part])
    title = f"{chrom}:{low:,}-{high:,}"
    figure = height_logo(_letters(found.codes[row, part], whole[part]), first=low, title=title)
    figure.axes[0].set_ylabel("contribution")
    drawn = svg(figure)
    name = window.get("name")
    return {
        "svg": drawn,
        "file": safe_name(f"{chrom}_{low}_{high}"),
        "source": embedded(drawn),
        "title": title if name is None or pd.isna(name) else f"{name}: {title}",
        "score": f"{found.scores[row]:.4g}",
    }


def best_stretch(contributions: NDArray[np.float32], width: int) -> int:
    """Where the stretch of so many bases begins whose contributions are largest, whatever sign.

    Examples
    --------
    >>> best_stretch(np.array([0, 1, 0, -3, 2, 0], dtype=np.float32), 2)
    3
    """
    if width >= len(contributions):
        return 0
    total = np.concatenate([[0.0], np.abs(contributions).cumsum(dtype=np.float64)])
    return int((total[width:] - total[:-width]).argmax())


def _letters(codes: Codes, contributions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Contributions (L,) as heights (4, L) of the letters that are there."""
    heights = np.zeros((4, len(codes)), dtype=np.float32)
    known = np.flatnonzero(codes != AMBIGUOUS)
    heights[codes[known], known] = contributions[known]
    return heights


def _page(
    pictures: list[dict[str, str]], model: str, method: str, windows: int, logo_width: int
) -> str:
    template = page_environment("seqnorm.use").get_template("explanation.html")
    return template.render(
        pictures=pictures,
        model=model,
        words=_WORDS[method],
        windows=windows,
        logo_width=logo_width,
        version=seqnorm.__version__,
    )
