"""Read a spec and check what its types cannot say, before any work."""

from collections.abc import Sequence
from pathlib import Path

from data_tools.errors import InputError
from data_tools.splits import check_disjoint
from seqnorm.holdout.design import claims_of
from seqnorm.holdout.spec import FILES, SOURCES, Model, Spec, SpecError, Split
from seqnorm.holdout.titles import METRIC_TITLES
from seqnorm.toml_spec import check_once, read_spec, write_toml

__all__ = ["as_toml", "check_model", "load_spec"]


def load_spec(path: str | Path, overrides: Sequence[str] = (), *, runnable: bool = True) -> Spec:
    """Read and check a spec.

    Parameters
    ----------
    path
        TOML file. File names inside it are relative to its folder and come back absolute.
    overrides
        ``"key=value"`` with a dotted key, such as ``"training.epochs=3"``; the value is read as
        TOML, else as a string.
    runnable
        Whether the data files, the device and what looks motifs up have to be there; a report
        needs none of them.

    Raises
    ------
    SpecError
        One line that names the file, the key, what is wrong and what to do.
    """
    spec = read_spec(Spec, path, overrides, check=_check, files=FILES, runnable=runnable)
    if runnable:
        from seqnorm.training import resolve_device

        try:
            resolve_device(spec.training.device)
        except ValueError as error:
            raise SpecError(f"{path}: key 'training.device': {error}") from error
        if spec.evaluation.motifs is not None:
            # Only the report needs them, but hours later.
            from data_tools.motif_matches import check_collection
            from data_tools.motifs import read_motifs

            try:
                check_collection(read_motifs(spec.evaluation.motifs))
            except InputError as error:
                raise SpecError(f"{path}: key 'evaluation.motifs': {error}") from error
    return spec


def as_toml(spec: Spec) -> str:
    """Write a spec so that `load_spec` reads the same spec back."""
    return write_toml(spec)


def _check(spec: Spec) -> None:
    """Check what concerns several keys, and the names that other modules own."""
    given = [name for name in SOURCES if getattr(spec, name) is not None]
    if len(given) != 1:
        raise ValueError(
            f"a spec has one of the tables {', '.join(SOURCES)}, this one has "
            f"{' and '.join(given) or 'none'}"
        )
    _check_split(spec.split)
    if spec.evaluation.unit == "chromosome":
        _check_unit(spec.split)
    _check_tasks(spec, given[0])
    _check_cells(spec)
    _check_hypotheses(spec)
    check_once(
        norms=spec.norms,
        split__train=spec.split.train,
        split__validation=spec.split.validation,
        split__test=spec.split.test,
        split__primary=spec.split.primary,
        negatives__kinds=spec.negatives.kinds,
        training__seeds=spec.training.seeds,
        training__learning_rates=spec.training.learning_rates,
        models=[model.name for model in spec.models],
        tasks=[task.name for task in spec.tasks],
        hypotheses=[claim.name for claim in spec.hypotheses],
    )
    if spec.training.tuning_seeds > len(spec.training.seeds):
        raise ValueError("key 'training.tuning_seeds' is larger than the number of seeds")
    for model in spec.models:
        check_model(model, spec.norms)


def _check_split(split: Split) -> None:
    if split.validation_offset >= split.validation_every:
        raise ValueError("key 'split.validation_offset' must be below 'split.validation_every'")
    check_disjoint(train=split.train, validation=split.validation, test=split.test)
    for chrom in split.primary:
        if chrom not in split.test:
            raise ValueError(f"primary chromosome '{chrom}' must be one of the test chromosomes")
    if split.design == "fixed" and not split.train:
        raise ValueError("key 'split.train' is missing; add it")
    if split.design == "leave_one_out" and len(split.test) + len(split.train) < 2:
        raise ValueError("key 'split.test' names one chromosome: none is left to learn from")


def _check_unit(split: Split) -> None:
    if split.design != "leave_one_out":
        # All chromosomes of a fixed split share one model, so that their spread does not show
        # what training brings.
        raise ValueError(
            "key 'evaluation.unit': chromosomes are the units of a leave_one_out design alone, "
            "where each has a model of its own"
        )
    if len(split.primary) < 3:
        raise ValueError(
            "key 'evaluation.unit': chromosomes as units want three primary ones or more"
        )


_OF_SOURCE = {"label": "table", "where": "table", "confounding": "simulation"}
_OF_SOURCE["prevalence"] = "simulation"


def _check_tasks(spec: Spec, source: str) -> None:
    for number, task in enumerate(spec.tasks):
        for key, owner in _OF_SOURCE.items():
            if getattr(task, key) and owner != source:
                raise ValueError(f"key 'tasks.{number}.{key}' is of a {owner}; this is of {source}")
        if source == "table" and task.label is None:
            raise ValueError(f"key 'tasks.{number}.label' is missing; name a column of the table")
    if source != "data" and "flank" in spec.negatives.kinds:
        raise ValueError("key 'negatives.kinds': flanks are drawn from a genome's bases alone")
    if spec.simulation is not None:
        for chrom in (*spec.split.train, *spec.split.validation, *spec.split.test):
            if chrom not in spec.simulation.gc:
                raise ValueError(f"chromosome '{chrom}' has no GC; add it to 'simulation.gc'")


def _check_cells(spec: Spec) -> None:
    known: dict[str, list[str]] = {
        "tasks": [task.name for task in spec.tasks],
        "models": [model.name for model in spec.models],
        "negatives": list(spec.negatives.kinds),
        "norms": list(spec.norms),
    }
    for number, cells in enumerate(spec.cells):
        for key, names in known.items():
            for name in getattr(cells, key):
                if name not in names:
                    raise ValueError(
                        f"key 'cells.{number}.{key}' names '{name}'; the spec has "
                        f"{', '.join(names)}"
                    )


def _check_hypotheses(spec: Spec) -> None:
    judged = [claim for claim, _ in claims_of(spec)]
    for number, claim in enumerate(spec.hypotheses):
        for key in ("metric", "guard_metric"):
            name = getattr(claim, key)
            if name is not None and name not in METRIC_TITLES:
                raise ValueError(
                    f"key 'hypotheses.{number}.{key}': no metric '{name}'; choose one of "
                    f"{', '.join(METRIC_TITLES)}"
                )
        if claim not in judged:
            raise ValueError(
                f"key 'hypotheses.{number}': no cell of the spec compares '{claim.norm}' with "
                f"'{claim.reference}' there; add the norms or name the right task and model"
            )


def check_model(model: Model, norms: Sequence[str]) -> None:
    """Build a model once with each norm.

    Raises
    ------
    ValueError
        For a norm, a model or an option that does not exist or that do not go together.
    """
    # torch is loaded only here, so that a spec with a typo is refused at once.
    from seqnorm.kinds import parse_choice
    from seqnorm.models import build_model

    for norm in norms:
        parse_choice(norm)
    for option in ("name", "norm", "seed"):
        if option in model.options:
            raise ValueError(
                f"model '{model.name}': '{option}' is no option of a model; the spec's own "
                "keys name, norms and training.seeds set it"
            )
    for norm in norms:
        build_model(model.name, norm, seed=0, **model.options)
