"""What the filters of the first layer look for, and how much it is like the known motif.

A filter's motif is made of the subsequences that excite it most, as Alipanahi et al. (2015,
Nature Biotechnology 33, 831-838) and Kelley et al. (2016, Genome Research 26, 990-999) do: of
each evaluation window the best site on either strand, and of these the best. Two motifs are
alike by the correlation of their columns, each centred and weighted by its information; see
`likeness`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from data_tools.errors import InputError
from data_tools.motifs import Motif, read_motif
from seqnorm.composition import BackgroundNorm
from seqnorm.holdout.design import folds_of
from seqnorm.holdout.draw import evaluation_file
from seqnorm.holdout.filter_matches import match_filters
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import Section, Tables, only
from seqnorm.holdout.trial import BASELINE, Trial, model_of
from seqnorm.holdout.windows import WindowSet
from seqnorm.kinds import parse_choice
from seqnorm.models import reverse_complement

Floats = NDArray[np.float64]

WINDOWS = 1500
"""At most so many windows are looked at, half of them positives where there are enough."""
BASES = 1_500_000
"""At most so many bases."""
SITES = 100
"""Subsequences that make a motif."""
FEWEST = 10
"""With fewer subsequences a filter has no motif."""
SHUFFLES = 100
"""Shuffles of the motif's columns that say what chance would reach."""
OVERLAP = 5
"""Columns that two motifs share at least."""


@dataclass(frozen=True)
class FilterMotif:
    """The filter of a model that is most like the motif; without a motif, the most informative.

    Attributes
    ----------
    number : int
        Of the filter, from 0.
    counts : numpy.ndarray
        Shape (4, K), on the strand that fits the motif.
    sites : int
        Subsequences that it was made of.
    score, chance : float or None
        `likeness` to the motif, and what the best filter reaches in 95 of 100 cases with a
        motif whose columns are shuffled.
    """

    number: int
    counts: Floats
    sites: int
    score: float | None = None
    chance: float = 0.0


@dataclass(frozen=True)
class Found:
    """Filters of one section, or why there are none.

    Attributes
    ----------
    motif : Motif or None
        What they were compared with.
    best : dict
        One filter of each norm.
    skipped : tuple of str
        What could not be done, in words.
    matches : pandas.DataFrame or None
        Where the spec names a collection: the filters of each norm, see `match_filters`.
    """

    motif: Motif | None
    best: dict[str, FilterMotif]
    skipped: tuple[str, ...]
    matches: pd.DataFrame | None = None


def find_filters(spec: Spec, folder: Path, tables: Tables, section: Section) -> Found:
    """Take the filters of a section's chosen trials, of the first seed and fold.

    Parameters
    ----------
    spec
        The experiment.
    folder
        Of the run.
    tables
        Of the section.
    section
        Which.

    Returns
    -------
    Found
        Where weights or windows are gone, that is told and nothing is raised.
    """
    skipped: list[str] = []
    motif = _motif(spec, skipped)
    fold = folds_of(spec)[0].name
    try:
        codes = _codes(evaluation_file(folder, section.task, fold))
    except FileNotFoundError:
        return Found(motif, {}, ("The evaluation windows are gone.",))
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        return Found(motif, {}, (f"The evaluation windows cannot be read ({error}).",))
    best: dict[str, FilterMotif] = {}
    every: dict[str, dict[int, tuple[Floats, int]]] = {}
    for trial in _trials(tables, section, fold):
        try:
            weights = (folder / "trials" / trial.id / "model.safetensors").read_bytes()
            filters = _filters(spec, trial, weights, codes)
        except OSError:
            skipped.append(f"{trial.norm}: the weights are gone.")
            continue
        except Exception as error:  # safetensors and torch raise kinds of their own.
            skipped.append(f"{trial.norm}: the weights do not fit the model ({_why(error)}).")
            continue
        chosen = _choose(filters, motif)
        if chosen is None:
            skipped.append(f"{trial.norm}: no filter responds to anything.")
        else:
            best[trial.norm] = chosen
            every[trial.norm] = filters
    matches = _matches(spec, every, skipped)
    return Found(motif, best, tuple(skipped), matches)


def _motif(spec: Spec, skipped: list[str]) -> Motif | None:
    if spec.motif is None:
        return None
    try:
        return read_motif(spec.motif)
    except InputError as error:
        skipped.append(f"The motif cannot be read, so nothing is compared with it ({error}).")
        return None


def _matches(
    spec: Spec, filters: dict[str, dict[int, tuple[Floats, int]]], skipped: list[str]
) -> pd.DataFrame | None:
    if spec.evaluation.motifs is None:
        return None
    try:
        return match_filters(filters, spec.evaluation.motifs)
    except Exception as error:  # Compiling, or its cache, may fail where a run has succeeded.
        skipped.append(f"The filters are not looked up in the collection ({_why(error)}).")
        return None


def _why(error: Exception) -> str:
    """What it says, in one line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _trials(tables: Tables, section: Section, fold: str) -> list[Trial]:
    """The chosen trial of each norm; what is adapted or trained again has the same first layer."""
    rows = only(tables.trials, fold=fold)
    rows = rows[rows["model"] != BASELINE].drop_duplicates("norm")
    columns = zip(rows["norm"], rows["learning_rate"], rows["seed"], strict=True)
    return [
        Trial(section.model, section.negatives, str(n), float(rate), int(s), section.task, fold)
        for n, rate, s in columns
        if parse_choice(str(n)).variant is None
    ]


def _codes(file: Path) -> NDArray[np.uint8]:
    """Some of the test windows, spread evenly over their places, half of them positives."""
    windows = WindowSet.load(file)
    test = (windows.table["part"] == "test").to_numpy()
    label = windows.table["label"].to_numpy()
    most = max(2, min(WINDOWS, BASES // windows.codes.shape[1]))
    rows = []
    for value in (1, 0):
        mine = np.flatnonzero(test & (label == value))
        rows.append(mine[np.linspace(0, len(mine) - 1, min(len(mine), most // 2)).astype(int)])
    kept = np.concatenate(rows)
    if not len(kept):
        raise ValueError("no test window")
    width = windows.codes.shape[1]
    return windows.codes[kept, windows.margin : width - windows.margin]


def _filters(
    spec: Spec, trial: Trial, weights: bytes, codes: NDArray[np.uint8]
) -> dict[int, tuple[Floats, int]]:
    """Counts (4, K) of every filter that has a motif, and of how many sites."""
    model = model_of(spec, trial)
    model.load_state_dict(load(weights))
    strands, width = _responses(model.eval().model, codes)
    both = np.stack([strands[0].max(1), strands[1].max(1)])
    at = np.stack([strands[0].argmax(1), strands[1].argmax(1)])
    scores, reverse = both.max(0), both.argmax(0)
    found: dict[int, tuple[Floats, int]] = {}
    complement = np.array([3, 2, 1, 0, 4], dtype=np.uint8)
    read = np.stack([codes, complement[codes[:, ::-1]]])
    for number in range(scores.shape[1]):
        mine = scores[:, number]
        if not np.isfinite(mine).all() or np.ptp(mine) == 0:
            continue
        top = np.argsort(-mine, kind="stable")[:SITES]
        strand = reverse[top, number]
        start = at[strand, top, number]
        sites = read[strand[:, None], top[:, None], start[:, None] + np.arange(width)]
        counts = np.stack([(sites == base).sum(0) for base in range(4)]).astype(np.float64)
        if len(top) >= FEWEST:
            found[number] = (counts, len(top))
    return found


def _responses(model: nn.Module, codes: NDArray[np.uint8]) -> tuple[list[Floats], int]:
    """Responses (N, P, F) on both strands, where a whole filter fits; and the filter's width."""
    parts: list[list[NDArray[Any]]] = [[], []]
    layer, norm = _first_layer(model)
    scored = isinstance(norm, BackgroundNorm)
    width = int((norm.filters if scored else layer.weight).shape[-1])
    inside = slice(width // 2, codes.shape[1] - (width - 1 - width // 2))
    eye = torch.cat([torch.eye(4), torch.zeros(1, 4)])
    with torch.inference_mode():
        for first in range(0, len(codes), 256):
            x = eye[torch.from_numpy(codes[first : first + 256].astype(np.int64))].transpose(1, 2)
            for strand, given in enumerate((x, reverse_complement(x))):
                read: Tensor = model.get_submodule("input_norm")(given, None)
                out: Tensor = norm(read) if scored else layer(read)
                parts[strand].append(out[:, :, inside].transpose(1, 2).numpy())
    return [np.concatenate(strand) for strand in parts], width


def _first_layer(model: nn.Module) -> tuple[Any, Any]:
    names = ("stem", "stem_norm") if hasattr(model, "stem") else ("convs.0", "norms.0")
    return model.get_submodule(names[0]), model.get_submodule(names[1])


def _choose(filters: dict[int, tuple[Floats, int]], motif: Motif | None) -> FilterMotif | None:
    if not filters:
        return None
    if motif is None:
        number = max(filters, key=lambda n: Motif("", filters[n][0]).information().sum())
        return FilterMotif(number, *filters[number])
    known = weighted(motif.counts)
    columns = {number: weighted(counts) for number, (counts, _) in filters.items()}
    scores = {number: likeness(own, known) for number, own in columns.items()}
    number = max(scores, key=lambda n: scores[n][0])
    rng = np.random.default_rng(0)
    shuffled = [known[:, rng.permutation(known.shape[1])] for _ in range(SHUFFLES)]
    own = np.stack(list(columns.values()))
    reached = _correlations(own, np.stack(shuffled)).max((0, 2))
    score, reverse = scores[number]
    counts, sites = filters[number]
    turned = counts[::-1, ::-1] if reverse else counts
    return FilterMotif(number, turned, sites, score, float(np.quantile(reached, 0.95)))


def weighted(counts: Floats) -> Floats:
    """Columns of a motif, centred and weighted by their information in bits. Shape (4, K)."""
    motif = Motif("", counts)
    frequency = counts + 0.8
    return np.asarray((frequency / frequency.sum(0) - 0.25) * motif.information())


def likeness(own: Floats, known: Floats) -> tuple[float, bool]:
    """Likeness of two motifs, -1 to 1, and whether it is that of the reverse complement.

    The largest correlation over all offsets, with an overlap of at least 5 columns, and both
    strands. Columns that only one of the two has count as columns without information in the
    other, so that a small overlap does not reach 1.

    Parameters
    ----------
    own, known
        Columns as from `weighted`, of shapes (4, J) and (4, K).

    Examples
    --------
    >>> site = weighted(np.array([[9.0, 0, 9, 0, 0, 9], [0, 9, 0, 0, 0, 0],
    ...                           [0, 0, 0, 9, 0, 0], [0, 0, 0, 0, 9, 0]]))
    >>> likeness(site[::-1, ::-1], site)
    (1.0, True)
    """
    given, turned = _correlations(own[None], known[None])[:, 0, 0]
    return float(max(given, turned)), bool(turned > given)


def _correlations(own: Floats, known: Floats) -> Floats:
    """Largest over all offsets of many (F, 4, J) with many (S, 4, K): (2, S, F), by strand."""
    overlap = min(OVERLAP, own.shape[2], known.shape[2])
    room = own.shape[2] - overlap
    padded = np.pad(known, ((0, 0), (0, 0), (room, room)))
    views = np.lib.stride_tricks.sliding_window_view(padded, own.shape[2], axis=2)
    strands = np.stack([own, own[:, ::-1, ::-1]])
    best = np.einsum("sbok,zfbk->zsfo", views, strands, optimize=True).max(-1)
    size = np.sqrt((known**2).sum((1, 2))[:, None] * (own**2).sum((1, 2)))
    shares = np.divide(best, size, out=np.zeros_like(best), where=size > 0)
    return np.asarray(shares.round(12))
