"""Cells compared: means over seeds, differences of norms, verdicts.

Every trial sees the same resamples of the blocks, so a difference between two norms is paired by
seed and by block. Norms are compared with the reference on the primary chromosomes; over those
that are compared p values are Holm's and intervals Bonferroni's. The control ``again`` is no part
of that family: it is one comparison by itself.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seqnorm.holdout.curves import slopes
from seqnorm.holdout.design import Cell, claims_of
from seqnorm.holdout.inference import (
    Mean,
    holm,
    mean_over_parts,
    mean_over_seeds,
    slope_over_parts,
    variance_within,
)
from seqnorm.holdout.measures import DECILES, METRICS, Measures, merged
from seqnorm.holdout.spec import Claim, Spec
from seqnorm.holdout.tables import PRIMARY, PRIMARY_METRIC, reference_norm
from seqnorm.holdout.titles import metric_title, title
from seqnorm.holdout.trial import BASELINE, Trial
from seqnorm.holdout.verdicts import judge
from seqnorm.holdout.windows import VALIDATION
from seqnorm.kinds import parse_choice

Floats = NDArray[np.float64]
Row = dict[str, Any]


class Comparison:
    """The measured cells of a run.

    Parameters
    ----------
    spec
        The experiment.
    measured
        Measures of every final trial, baselines included.
    chromosomes
        What was tested on; see `seqnorm.holdout.build.chromosome_table`.
    """

    def __init__(
        self, spec: Spec, measured: Mapping[Trial, Measures], chromosomes: pd.DataFrame
    ) -> None:
        self.spec = spec
        self.reference = reference_norm(spec)
        self.by_chromosome = spec.evaluation.unit == "chromosome"
        self.parts = [VALIDATION, *spec.split.test]
        self.names = [*self.parts, PRIMARY]
        self.primary = [self.parts.index(chrom) for chrom in spec.split.primary]
        self.cells = _cells(measured)
        self.known: dict[Any, Any] = chromosomes.set_index(["task", "chrom"]).to_dict("index")

    def summary(self) -> pd.DataFrame:
        """Means over seeds of every metric on every part."""
        rows: list[Row] = []
        for cell, found in self.cells.items():
            mean = self._mean(cell.task, self._values(found))
            low, high = (np.clip(end, 0, 1) for end in mean.interval(self._confidence))
            rows += self._rows(cell, mean, {"low": low, "high": high})
        return pd.DataFrame(rows)

    def differences(self) -> pd.DataFrame:
        """Norm minus reference, paired by seed and block, within a task, model and negatives."""
        rows: list[Row] = []
        margin = self.spec.evaluation.margin
        for cell, found in self.cells.items():
            others = self.cells.get(cell._replace(norm=self.reference))
            if others is None or cell.norm == self.reference:
                continue
            mean = self._mean(cell.task, self._values(found) - self._values(others))
            family = 1 if _is_control(cell) else self._family(cell)
            low, high = mean.interval(self._confidence)
            wide = mean.interval(self._confidence, family)
            columns: Row = {
                "low": low,
                "high": high,
                "low_adjusted": wide[0],
                "high_adjusted": wide[1],
            }
            columns |= {"p": mean.p_value(), "p_equivalent": mean.p_equivalent(margin)}
            columns |= {"seed_variance": mean.seed_variance, "block_variance": mean.block_variance}
            columns |= {"blocks": mean.blocks, "dropped_resamples": mean.dropped}
            own = self._rows(cell, mean, columns)
            rows += [row | {"family": family, "reference": self.reference} for row in own]
        first = [*Cell._fields, "chrom", "metric", "estimate", "low", "high", "seeds"]
        table = pd.DataFrame(rows, columns=None if rows else [*first, "p", "family", "reference"])
        return _with_holm(table, "chrom", "metric")

    def factors(self) -> pd.DataFrame:
        """What other training negatives, or another model, make of the primary means of a norm.

        Against the first of the spec's that the norm has with all else the same; paired as the
        norms are, since every cell is tested on the same windows.
        """
        orders: dict[str, list[str]] = {
            "model": [model.name for model in self.spec.models],
            "negatives": list(self.spec.negatives.kinds),
        }
        rows: list[Row] = []
        for cell, factor in product(self.cells, orders):
            there = [
                level for level in orders[factor] if cell._replace(**{factor: level}) in self.cells
            ]
            own = getattr(cell, factor)
            if cell.model == BASELINE or own not in there[1:]:
                continue
            others = self.cells[cell._replace(**{factor: there[0]})]
            change = self._values(self.cells[cell]) - self._values(others)
            mean = self._of_primary(cell.task, change)
            low, high = mean.interval(self._confidence)
            figures = {"estimate": mean.estimate, "low": low, "high": high, "p": mean.p_value()}
            rows += [
                cell._asdict()
                | {"factor": factor, "against": there[0], "chrom": PRIMARY, "metric": metric}
                | {name: float(values[index]) for name, values in figures.items()}
                | {"seeds": mean.seeds}
                for index, metric in enumerate(METRICS)
                if not np.isnan(mean.estimate[index])
            ]
        columns = [*Cell._fields, "factor", "against", "chrom", "metric", "estimate", "low", "high"]
        return pd.DataFrame(rows, columns=None if rows else columns)

    def deciles(self, middles: "Mapping[str, pd.Series[float]]") -> pd.DataFrame:
        """False-alarm rate of the test negatives by GC decile."""
        rows: list[Row] = []
        for cell, found in self.cells.items():
            values = np.stack([measures.deciles for measures in found], axis=1)
            fewest = min(self._blocks(cell.task, chrom) for chrom in self.parts)
            mean = mean_over_seeds(values, fewest)
            low, high = (np.clip(end, 0, 1) for end in mean.interval(self._confidence))
            rows += [
                cell._asdict()
                | {"decile": decile + 1, "gc_median": float(middles[cell.task][decile])}
                | _interval(mean.estimate[decile], low[decile], high[decile])
                for decile in range(DECILES)
            ]
        return pd.DataFrame(rows)

    def slopes(self) -> pd.DataFrame:
        """Rise of the false-alarm rate with the GC of the test chromosomes' negatives.

        Per unit of GC fraction, so that 1 is one point of false alarms for one point of GC; of
        norms also the difference to the reference, adjusted as other differences are.
        """
        rows: list[Row] = []
        tests, place = self.spec.split.test, METRICS.index(PRIMARY_METRIC)
        if len(tests) < 2:
            first = [*Cell._fields, "kind", "estimate", "low", "high"]
            return pd.DataFrame(columns=[*first, "low_adjusted", "high_adjusted", "p", "family"])
        for cell, found in self.cells.items():
            dose = [float(self.known[cell.task, chrom]["gc_negatives"]) for chrom in tests]
            fewest = min(self._blocks(cell.task, chrom) for chrom in self.parts)
            kinds = {"slope": self._values(found)[1:-1, place]}
            others = self.cells.get(cell._replace(norm=self.reference))
            if others is not None and cell.norm != self.reference:
                kinds["difference"] = kinds["slope"] - self._values(others)[1:-1, place]
            for kind, values in kinds.items():
                if self.by_chromosome:
                    mean = slope_over_parts(values[..., 0].T, dose, variance_within(values))
                else:
                    mean = mean_over_seeds(slopes(np.moveaxis(values, 0, 1), dose), fewest)
                low, high = mean.interval(self._confidence)
                single = kind == "slope" or _is_control(cell)
                family = 1 if single else self._family(cell)
                wide = mean.interval(self._confidence, family)
                more = {"low_adjusted": float(wide[0]), "high_adjusted": float(wide[1])}
                more |= {"p": float(mean.p_value()), "family": family}
                rows.append(
                    cell._asdict() | {"kind": kind} | _interval(mean.estimate, low, high) | more
                )
        return _with_holm(pd.DataFrame(rows), "kind")

    def hypotheses(self) -> pd.DataFrame:
        """Verdict on every claim of the spec; their number is the family."""
        claims = claims_of(self.spec)
        rows = []
        for claim, cell in claims:
            effect = self._change(claim, cell, claim.metric)
            guard = self._change(claim, cell, claim.guard_metric)
            assert effect is not None
            found = judge(
                claim,
                effect,
                guard,
                confidence=self._confidence,
                family=len(claims),
                title=lambda name: metric_title(name) if name in METRICS else title(name),
            )
            low, high = effect.interval(self._confidence, len(claims))
            rows.append(
                cell._asdict()
                | {"name": claim.name, "claim": claim.text, "reference": claim.reference}
                | {"metric": claim.metric, "direction": claim.direction}
                | {"smallest_effect": claim.smallest_effect, "margin": claim.margin}
                | {"guard_metric": claim.guard_metric, "guard_margin": claim.guard_margin}
                | _interval(effect.estimate, low, high)
                | {"p": float(effect.p_value()), "verdict": found.label, "sentence": found.sentence}
            )
        columns = [*Cell._fields, "name", "claim", "verdict", "sentence"]
        return pd.DataFrame(rows, columns=None if rows else columns)

    def of_one_seed(self, values: Floats, task: str, chrom: str) -> dict[str, float]:
        """A rate of one trial on one part with its interval over blocks."""
        mean = mean_over_seeds(values[None], self._blocks(task, chrom))
        low, high = (np.clip(end, 0, 1) for end in mean.interval(self._confidence))
        return _interval(mean.estimate, low, high)

    @property
    def _confidence(self) -> float:
        return self.spec.evaluation.confidence

    def _change(self, claim: Claim, cell: Cell, metric: str | None) -> Mean | None:
        if metric is None:
            return None
        found, others = self.cells[cell], self.cells[cell._replace(norm=claim.reference)]
        values = self._values(found) - self._values(others)
        return self._of_primary(cell.task, values).at(METRICS.index(metric))

    def _family(self, cell: Cell) -> int:
        """How many norms are compared with the reference beside this one, itself included."""
        alike = [c for c in self.cells if c[:3] == cell[:3] and not _is_control(c)]
        return max(1, len(alike) - 1)

    def _blocks(self, task: str, chrom: str) -> int:
        """Blocks of the part that has the fewest of those that a figure rests on."""
        parts = self.spec.split.primary if chrom == PRIMARY else (chrom,)
        return min(int(self.known[task, part]["blocks"]) for part in (VALIDATION, *parts))

    def _values(self, found: list[Measures]) -> Floats:
        """Shape (parts + 1, metrics, seeds, resamples + 1); the last part is the primary mean."""
        stacked = np.stack([measures.resampled for measures in found], axis=2)
        return np.concatenate([stacked, stacked[self.primary].mean(axis=0)[None]])

    def _mean(self, task: str, values: Floats) -> Mean:
        blocks = np.array([self._blocks(task, name) for name in self.names])[:, None]
        mean = mean_over_seeds(values, blocks)
        # Of single parts the blocks are all that there is.
        return mean.with_last(self._of_primary(task, values)) if self.by_chromosome else mean

    def _of_primary(self, task: str, values: Floats) -> Mean:
        """Means over the primary chromosomes, of all metrics."""
        if self.by_chromosome:
            chosen = values[self.primary]
            within = np.moveaxis(variance_within(chosen), 0, -1)
            return mean_over_parts(np.moveaxis(chosen[..., 0], 0, -1), within)
        return mean_over_seeds(values[-1], self._blocks(task, PRIMARY))

    def _rows(self, cell: Cell, mean: Mean, columns: Mapping[str, Any]) -> list[Row]:
        return [
            cell._asdict()
            | {"chrom": chrom, "metric": metric, "estimate": float(mean.estimate[part, index])}
            | {name: float(values[part, index]) for name, values in columns.items()}
            | {"seeds": mean.seeds}
            for part, chrom in enumerate(self.names)
            for index, metric in enumerate(METRICS)
            if not np.isnan(mean.estimate[part, index])
        ]


def _cells(measured: Mapping[Trial, Measures]) -> dict[Cell, list[Measures]]:
    """Measures of each cell, of all folds together, in the order of the seeds."""
    folds: dict[tuple[Cell, int], list[Measures]] = {}
    for trial, measures in measured.items():
        folds.setdefault((trial.cell, trial.seed), []).append(measures)
    cells: dict[Cell, list[Measures]] = {trial.cell: [] for trial in measured}
    for cell, seed in sorted(folds, key=lambda key: key[1]):
        cells[cell].append(merged(folds[cell, seed]))
    return cells


def _is_control(cell: Cell) -> bool:
    return cell.norm.endswith("+again") and parse_choice(cell.norm).variant == "again"


def _interval(estimate: Any, low: Any, high: Any) -> dict[str, float]:
    return {"estimate": float(estimate), "low": float(low), "high": float(high)}


def _with_holm(table: pd.DataFrame, *same: str) -> pd.DataFrame:
    """Add Holm's p values over the norms that are compared by the same figure."""
    adjusted = table["p"].astype(np.float64).copy()
    family = table[table["family"] > 1]
    for rows in family.groupby(["task", "model", "negatives", *same]).groups.values():
        adjusted[rows] = holm(table.loc[rows, "p"].to_numpy(dtype=np.float64))
    return table.assign(p_holm=adjusted)
