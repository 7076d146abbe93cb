"""Draw every window of a run and keep them in its folder."""

import hashlib
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from data_tools.atomic import write_atomic
from data_tools.errors import InputError
from data_tools.motifs import read_motif
from seqnorm.holdout.design import folds_of
from seqnorm.holdout.distinct import Distinct
from seqnorm.holdout.measures import gc_decile_edges
from seqnorm.holdout.sources import Source, open_source
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.windows import WindowSet
from seqnorm.runs.naming import safe_name

_COLUMNS = ["part", "chrom", "start", "end", "label", "gc"]


def evaluation_file(folder: Path, task: str, fold: str) -> Path:
    """Where a fold's evaluation windows are kept."""
    return _fold_folder(folder, task, fold) / "evaluation.npz"


def training_file(
    spec: Spec, folder: Path, task: str, fold: str, negatives: str, seed: int
) -> Path:
    """Where training windows are kept: once where they are the same for every seed."""
    same = spec.data is None and negatives == "random" and not _controlled(spec, task)
    name = f"train-{negatives}" + ("" if same else f"-s{seed}")
    return _fold_folder(folder, task, fold) / f"{name}.npz"


def _fold_folder(folder: Path, task: str, fold: str) -> Path:
    return folder / "windows" / task / f"fold-{safe_name(fold)}"


def edges_file(folder: Path, task: str) -> Path:
    """Where the GC fractions between the deciles of a task's test negatives are kept."""
    return folder / "windows" / task / "gc_edges.npy"


def _controlled(spec: Spec, task: str) -> bool:
    return any(other.name == task and other.control for other in spec.tasks)


def evaluation_tables(spec: Spec, folder: Path) -> dict[str, pd.DataFrame]:
    """Evaluation windows of every task, those of all folds, with a column ``fold``."""
    return {
        task.name: pd.concat(
            [
                WindowSet.load(evaluation_file(folder, task.name, fold.name)).table.assign(
                    fold=fold.name
                )
                for fold in folds_of(spec)
            ],
            ignore_index=True,
        )
        for task in spec.tasks
    }


def draw_windows(
    spec: Spec, folder: Path, say: Callable[[str], None]
) -> tuple[dict[str, int], str]:
    """Draw every window of the run; the same spec draws the same ones again.

    Returns what was counted on the way, and a checksum of all windows.
    """
    draw = _Draw(spec, folder)
    counts: dict[str, int] = {}
    for task in spec.tasks:
        with open_source(spec, task) as source:
            draw.task(task.name, source)
            prefix = "" if task.name == "main" else f"task {task.name}: "
            counts |= {prefix + name: number for name, number in source.counts.items()}
    all_windows = pd.concat(draw.tables)
    write_atomic(folder / "windows.csv", all_windows.to_csv(index=False, float_format="%.6g"))
    say(f"drew {draw.evaluated:,} evaluation windows and {draw.sets} training sets")
    return counts, draw.checksum.hexdigest()


class _Draw:
    """What was drawn so far."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.tables: list[pd.DataFrame] = []
        self.checksum = hashlib.sha256()
        self.evaluated = self.sets = 0

    def task(self, task: str, source: Source) -> None:
        """Draw all windows of a task."""
        tested = []
        for fold in folds_of(self.spec):
            evaluation = source.evaluation(fold)
            self._store(evaluation, evaluation_file(self.folder, task, fold.name), task, fold.name)
            self.evaluated += len(evaluation.table)
            similar = self.spec.split.similar
            distinct = Distinct(evaluation, similar) if similar else None
            test = evaluation.table
            tested.append(test.loc[(test["part"] == "test") & (test["label"] == 0), "gc"])
            training = self.spec.training
            for kind, seed in product(self.spec.negatives.kinds, training.seeds):
                file = training_file(self.spec, self.folder, task, fold.name, kind, seed)
                if seed != training.seeds[0] and "-s" not in file.stem:
                    continue
                windows = source.training(fold, kind, seed)
                if distinct is not None:
                    windows, dropped = distinct.left(windows)
                    name = f"fold {fold.name}: near-duplicates left out ({kind}, seed {seed})"
                    source.counts[name] = dropped
                _check_motif(self.spec, windows)
                self._store(windows, file, task, fold.name, f"train:{kind}:seed{seed}")
                self.sets += 1
        edges = gc_decile_edges(pd.concat(tested).to_numpy(dtype=np.float64))
        np.save(edges_file(self.folder, task), edges, allow_pickle=False)

    def _store(
        self, windows: WindowSet, file: Path, task: str, fold: str, part: str | None = None
    ) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        windows.save(file)
        self.checksum.update(windows.codes.tobytes() + windows.table["label"].to_numpy().tobytes())
        table = windows.table[_COLUMNS].assign(task=task, fold=fold)
        self.tables.append(table if part is None else table.assign(part=part))


def _check_motif(spec: Spec, windows: WindowSet) -> None:
    """A baseline reads the motif, hours after the start: refuse what it could not read now."""
    if spec.motif is None:
        return
    columns = read_motif(spec.motif).counts.shape[1]
    width = windows.codes.shape[1] - 2 * windows.margin
    if columns > width:
        raise InputError(
            f"{spec.motif}: a motif of {columns} bases does not fit into windows of {width}; make "
            "data.width larger"
        )
