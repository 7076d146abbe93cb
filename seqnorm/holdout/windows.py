"""From the spec to labelled windows: one fixed evaluation set, one training set a seed and kind.

Every window of a training set lies in the training regions with its jitter margin; validation
and test windows lie in their own regions. So no two parts share a base.
"""

import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.atomic import write_atomic
from data_tools.encode import gc_fraction
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.intervals import read_intervals
from data_tools.negatives import Background, background_windows
from data_tools.splits import block_split, check_chromosomes, whole_chromosomes
from data_tools.windows import inside, summit_windows, window_codes
from seqnorm.holdout.spec import Spec

VALIDATION = "validation"
"""Name of the part that chooses, in the windows and in every table."""


@dataclass(frozen=True)
class WindowSet:
    """Labelled windows with their base codes.

    Attributes
    ----------
    table : pandas.DataFrame
        ``part`` ("train", "validation" or "test"), ``chrom``, ``start``, ``end``, ``label``,
        ``gc`` and ``block`` (number of the block that holds the window's middle).
    codes : numpy.ndarray
        uint8 of shape (N, width + 2 * margin).
    margin : int
        Bases on both sides of a window.
    """

    table: pd.DataFrame
    codes: NDArray[np.uint8]
    margin: int

    def save(self, path: Path) -> None:
        """Write what a trial needs, whole or not at all and without pickle."""
        columns: dict[str, Any] = {str(n): _plain(column) for n, column in self.table.items()}
        stream = io.BytesIO()
        np.savez(stream, codes=self.codes, margin=self.margin, **columns)
        write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> "WindowSet":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            columns = {n: stored[n] for n in stored.files if n not in ("codes", "margin")}
            return cls(pd.DataFrame(columns), stored["codes"], int(stored["margin"]))


def _plain(column: "pd.Series[float]") -> NDArray[np.generic]:
    values = column.to_numpy()
    return values.astype(np.str_) if values.dtype.kind not in "iuf" else values


@dataclass(frozen=True)
class Regions:
    """Where each part of the experiment lives."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame


class WindowSource:
    """Draws the windows of an experiment; open it once, in the main process."""

    def __init__(self, spec: Spec, genome: Genome) -> None:
        self.spec = spec
        self.genome = genome
        self.counts: dict[str, int] = {}
        split = spec.split
        check_chromosomes([*split.train, *split.validation, *split.test], genome.lengths)
        self.regions = _regions(spec, genome)
        used = {*split.train, *split.validation, *split.test}
        peaks = read_intervals(spec.data.peaks, genome)
        self.counts["peaks on other chromosomes"] = int((~peaks["chrom"].isin(used)).sum())
        self.peaks = peaks[peaks["chrom"].isin(used)].reset_index(drop=True)
        self.positives = summit_windows(self.peaks, genome.lengths, spec.data.width, on_edge="drop")
        self.counts["positives dropped at a chromosome end"] = len(self.peaks) - len(self.positives)
        learnt = self.positives[self.positives["chrom"].isin(split.train)]
        kept = inside(learnt, self.regions.train, spec.data.jitter)
        kept |= inside(learnt, self.regions.validation)
        self.counts["positives dropped at a border of training and validation"] = int((~kept).sum())
        if spec.data.exclude is not None:
            forbidden = [self.peaks, read_intervals(spec.data.exclude, genome)]
        else:
            forbidden = [self.peaks]
        self.forbidden = pd.concat([table[["chrom", "start", "end"]] for table in forbidden])

    def evaluation(self) -> WindowSet:
        """Validation windows, then the test windows of each chromosome in the spec's order."""
        parts = [self._part(VALIDATION, self.regions.validation)]
        for chrom in self.spec.split.test:
            mine = self.regions.test[self.regions.test["chrom"] == chrom]
            parts.append(self._part("test", mine))
        return self._encode(pd.concat(parts, ignore_index=True), margin=0)

    def training(self, kind: Background, seed: int) -> WindowSet:
        """Training windows of a seed: its own background, the same for every norm."""
        margin = self.spec.data.jitter
        positives = self._positives("training", self.regions.train, margin)
        per_positive = self.spec.negatives.per_positive
        drawn = background_windows(
            self.genome,
            positives,
            self.regions.train,
            kind,
            count=per_positive * len(positives) if kind == "random" else per_positive,
            width=self.spec.data.width,
            forbidden=pd.concat([self.forbidden, self.positives]),
            margin=margin,
            seed=self.spec.data.seed * 1_000_003 + seed + 1,
        )
        label = f"training negatives ({kind}, seed {seed})"
        self.counts[f"{label} drawn"] = len(drawn.windows)
        self.counts[f"{label} missing"] = drawn.wanted - len(drawn.windows)
        if kind != "random":
            # A positive without its partners would bring back the shift that matching removes.
            positives = positives.drop(index=positives.index[drawn.unmatched])
            self.counts[f"positives without a match ({kind}, seed {seed})"] = len(drawn.unmatched)
            if positives.empty:
                raise InputError(
                    f"no training peak has its {per_positive} {kind} windows (seed {seed}); lower "
                    "negatives.per_positive or choose another kind"
                )
        table = _labelled("train", positives, drawn.windows)
        return self._encode(table, margin)

    def _positives(self, name: str, regions: pd.DataFrame, margin: int) -> pd.DataFrame:
        here = self.positives[self.positives["chrom"].isin(regions["chrom"])]
        keep = inside(here, regions, margin)
        if name == "training" and not keep.any():
            raise InputError(
                f"no peak with room for a window of {self.spec.data.width} bases lies in the "
                "training regions; check data.width and split.train"
            )
        return here[keep].reset_index(drop=True)

    def _part(self, part: str, regions: pd.DataFrame) -> pd.DataFrame:
        positives = self._positives(part, regions, margin=0)
        # Each chromosome has a seed of its own: taking one out leaves the others as they were.
        name = f"{part}/{','.join(dict.fromkeys(regions['chrom']))}"
        wanted = self.spec.negatives.evaluation
        if part == VALIDATION and positives.empty:
            raise InputError(
                f"no peak with room for a window of {self.spec.data.width} bases lies in the "
                "validation regions, so nothing could choose epochs and rates; check data.width, "
                "split.validation, split.validation_every and split.block"
            )
        try:
            drawn = background_windows(
                self.genome,
                positives,
                regions,
                "random",
                count=wanted,
                width=self.spec.data.width,
                forbidden=pd.concat([self.forbidden, self.positives]),
                seed=self.spec.data.seed * 1_000_003 + zlib.crc32(name.encode()),
            )
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        self.counts[f"{name} positives"] = len(positives)
        self.counts[f"{name} negatives drawn"] = len(drawn.windows)
        self.counts[f"{name} negatives missing"] = wanted - len(drawn.windows)
        return _labelled(part, positives, drawn.windows)

    def _encode(self, table: pd.DataFrame, margin: int) -> WindowSet:
        codes = window_codes(self.genome, table, margin)
        centre = codes[:, margin : codes.shape[1] - margin]
        middle = (table["start"] + table["end"]) // 2
        table = table.assign(gc=gc_fraction(centre), block=middle // self.spec.split.block)
        return WindowSet(table, codes, margin)


def _regions(spec: Spec, genome: Genome) -> Regions:
    split = spec.split
    test = whole_chromosomes(split.test, genome.lengths)
    if split.validation:
        return Regions(
            whole_chromosomes(split.train, genome.lengths),
            whole_chromosomes(split.validation, genome.lengths),
            test,
        )
    train, validation = block_split(
        split.train,
        genome.lengths,
        block=split.block,
        every=split.validation_every,
        offset=split.validation_offset,
    )
    return Regions(train, validation, test)


def _labelled(part: str, positives: pd.DataFrame, negatives: pd.DataFrame) -> pd.DataFrame:
    table = pd.concat([positives.assign(label=1), negatives.assign(label=0)], ignore_index=True)
    return table.assign(part=part)[["part", "chrom", "start", "end", "label"]]
