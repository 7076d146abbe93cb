"""Windows of a genome and its peaks: a fixed evaluation set, a training set a seed and kind.

Every window of a training set lies in the training regions with its jitter margin; validation
and test windows lie in their own regions. So no two parts share a base.
"""

import zlib
from dataclasses import dataclass

import pandas as pd

from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.intervals import read_intervals
from data_tools.negatives import background_windows
from data_tools.splits import block_split, check_chromosomes, whole_chromosomes
from data_tools.windows import inside, summit_windows, window_codes
from seqnorm.holdout.design import Fold
from seqnorm.holdout.shuffled import with_shuffles
from seqnorm.holdout.spec import Data, Kind, Spec, Split
from seqnorm.holdout.windows import VALIDATION, WindowSet, window_set


@dataclass(frozen=True)
class Regions:
    """Where each part of the experiment lives."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame


class GenomeSource:
    """Draws the windows of an experiment; open it once, in the main process."""

    def __init__(self, spec: Spec, data: Data, genome: Genome) -> None:
        self.spec, self.data, self.genome = spec, data, genome
        self.counts: dict[str, int] = {}
        split = spec.split
        used = {*split.train, *split.validation, *split.test}
        check_chromosomes(sorted(used), genome.lengths)
        peaks = read_intervals(data.peaks, genome, score=data.score)
        self.counts["peaks on other chromosomes"] = int((~peaks["chrom"].isin(used)).sum())
        self.peaks = peaks[peaks["chrom"].isin(used)].reset_index(drop=True)
        self.positives = summit_windows(self.peaks, genome.lengths, data.width, on_edge="drop")
        self.counts["positives dropped at a chromosome end"] = len(self.peaks) - len(self.positives)
        forbidden = [self.peaks]
        if data.exclude is not None:
            forbidden.append(read_intervals(data.exclude, genome, score=data.score))
        self.forbidden = pd.concat([table[["chrom", "start", "end"]] for table in forbidden])

    def evaluation(self, fold: Fold) -> WindowSet:
        """Validation windows, then the test windows of each chromosome in the spec's order."""
        regions = self._regions(fold)
        learnt = self.positives[self.positives["chrom"].isin(fold.train)]
        kept = inside(learnt, regions.train, self.data.jitter) | inside(learnt, regions.validation)
        self.counts[_of(fold, "positives dropped at a border of training and validation")] = int(
            (~kept).sum()
        )
        parts = [self._part(fold, VALIDATION, regions.validation)]
        for chrom in fold.test:
            mine = regions.test[regions.test["chrom"] == chrom]
            parts.append(self._part(fold, "test", mine))
        return self._encode(pd.concat(parts, ignore_index=True), margin=0)

    def training(self, fold: Fold, kind: Kind, seed: int) -> WindowSet:
        """Training windows of a seed: its own background, the same for every norm."""
        regions = self._regions(fold).train
        margin = self.data.jitter
        positives = self._positives("training", regions, margin)
        if kind == "shuffled":
            return self._with_shuffles(positives, seed)
        per_positive = self.spec.negatives.per_positive
        drawn = background_windows(
            self.genome,
            positives,
            regions,
            kind,
            count=per_positive * len(positives) if kind == "random" else per_positive,
            width=self.data.width,
            forbidden=pd.concat([self.forbidden, self.positives]),
            margin=margin,
            seed=self.data.seed * 1_000_003 + seed + 1,
        )
        label = _of(fold, f"training negatives ({kind}, seed {seed})")
        self.counts[f"{label} drawn"] = len(drawn.windows)
        self.counts[f"{label} missing"] = drawn.wanted - len(drawn.windows)
        if kind != "random":
            # A positive without its partners would bring back the shift that matching removes.
            positives = positives.drop(index=positives.index[drawn.unmatched])
            without = _of(fold, f"positives without a match ({kind}, seed {seed})")
            self.counts[without] = len(drawn.unmatched)
            if positives.empty:
                raise InputError(
                    f"no training peak has its {per_positive} {kind} windows (seed {seed}); lower "
                    "negatives.per_positive or choose another kind"
                )
        table = _labelled("train", positives, drawn.windows)
        return self._encode(table, margin)

    def _with_shuffles(self, positives: pd.DataFrame, seed: int) -> WindowSet:
        own = self._encode(_labelled("train", positives, positives.head(0)), self.data.jitter)
        return with_shuffles(own, self.spec.negatives.per_positive, self.data.seed, seed)

    def _regions(self, fold: Fold) -> Regions:
        return _regions(self.spec.split, fold, self.genome)

    def _positives(self, name: str, regions: pd.DataFrame, margin: int) -> pd.DataFrame:
        here = self.positives[self.positives["chrom"].isin(regions["chrom"])]
        keep = inside(here, regions, margin)
        if name == "training" and not keep.any():
            raise InputError(
                f"no peak with room for a window of {self.data.width} bases lies in the "
                "training regions; check data.width and split.train"
            )
        return here[keep].reset_index(drop=True)

    def _part(self, fold: Fold, part: str, regions: pd.DataFrame) -> pd.DataFrame:
        positives = self._positives(part, regions, margin=0)
        # Each chromosome has a seed of its own: taking one out leaves the others as they were.
        name = f"{part}/{','.join(dict.fromkeys(regions['chrom']))}"
        wanted = self.spec.negatives.evaluation
        if part == VALIDATION and positives.empty:
            raise InputError(
                f"no peak with room for a window of {self.data.width} bases lies in the "
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
                width=self.data.width,
                forbidden=pd.concat([self.forbidden, self.positives]),
                seed=self.data.seed * 1_000_003 + zlib.crc32(name.encode()),
            )
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        label = _of(fold, name)
        self.counts[f"{label} positives"] = len(positives)
        self.counts[f"{label} negatives drawn"] = len(drawn.windows)
        self.counts[f"{label} negatives missing"] = wanted - len(drawn.windows)
        return _labelled(part, positives, drawn.windows)

    def _encode(self, table: pd.DataFrame, margin: int) -> WindowSet:
        codes = window_codes(self.genome, table, margin)
        return window_set(table, codes, margin, self.spec.split.block)


def _of(fold: Fold, name: str) -> str:
    """Name of a count; a fold that is not the only one is named."""
    return name if fold.name == "all" else f"fold {fold.name}: {name}"


def _regions(split: Split, fold: Fold, genome: Genome) -> Regions:
    test = whole_chromosomes(fold.test, genome.lengths)
    train = whole_chromosomes(fold.train, genome.lengths)
    if fold.validation:
        return Regions(train, whole_chromosomes(fold.validation, genome.lengths), test)
    train, validation = block_split(
        fold.train,
        genome.lengths,
        block=split.block,
        every=split.validation_every,
        offset=split.validation_offset,
    )
    return Regions(train, validation, test)


def _labelled(part: str, positives: pd.DataFrame, negatives: pd.DataFrame) -> pd.DataFrame:
    table = pd.concat([positives.assign(label=1), negatives.assign(label=0)], ignore_index=True)
    return table.assign(part=part)[["part", "chrom", "start", "end", "label"]]
