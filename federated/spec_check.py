"""What a spec of a federated run must keep to beyond the types of its keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING

from data_tools.splits import check_disjoint
from seqnorm.holdout.load import check_model
from seqnorm.kinds import parse_norm
from seqnorm.toml_spec import check_once

if TYPE_CHECKING:
    from torch import nn

    from federated.policy import NormPolicy
    from federated.spec import Participation, Spec, Strategy, Table, Training

__all__ = ["LINEAR", "check_spec", "models_of", "unknown"]

LINEAR = "linear"
"""The model of a table."""

_START = re.compile(r"server|adapt:[1-9][0-9]*|shrink:([2-9]|[1-9][0-9]+)")


def check_spec(spec: Spec) -> None:
    """Check what concerns several keys, and the names that other modules own.

    Raises
    ------
    ValueError
        One line that names the key, what is wrong and what to do.
    """
    check_once(
        norms=spec.norms,
        policies=spec.policies,
        training__learning_rates=spec.training.learning_rates,
        training__seeds=spec.training.seeds,
    )
    _check_rows(spec)
    _check_training(spec.training, spec.strategy)
    fractions = spec.study.participations if spec.study else ()
    clients = getattr(spec.partition.build(), "clients", None)
    _check_participation(spec.participation, clients, fractions)
    _check_study(spec)
    _check_policies(spec)


def _check_study(spec: Spec) -> None:
    study = spec.study
    if study is None:
        return
    if not (study.skews or study.participations):
        raise ValueError("table 'study' varies nothing; give 'skews' or 'participations'")
    check_once(study__skews=study.skews, study__participations=study.participations)
    if study.skew_of == "assay":
        if wrong := [skew for skew in study.skews if not 0 <= skew <= 5]:
            raise ValueError(f"key 'study.skews': {wrong[0]:g} is no dial of an assay; 0 to 5 are")
        return
    name = spec.partition.build().dial_name
    if study.skews and name is None:
        raise ValueError(
            f"key 'study.skews': scheme '{spec.partition.scheme}' has no dial; leave it out or "
            "take another scheme"
        )
    for skew in study.skews:
        spec.partition.with_dial(skew).build()


def _check_participation(
    participation: Participation, clients: int | None, fractions: tuple[float, ...]
) -> None:
    if clients is not None and participation.minimum > clients:
        raise ValueError(
            f"key 'participation.minimum' asks for {participation.minimum} clients, there are "
            f"{clients}"
        )
    for fraction in (participation.fraction, *fractions):
        # As many as the server draws.
        drawn = max(1, round(fraction * (clients or participation.minimum)))
        if clients is not None and drawn < participation.minimum:
            raise ValueError(
                f"key 'participation.minimum' asks for {participation.minimum} clients, but of "
                f"{clients} a fraction of {fraction:g} is {drawn} a round"
            )
    if not _START.fullmatch(participation.start):
        raise ValueError(
            f"key 'participation.start': unknown '{participation.start}'; give 'server', or "
            "'adapt:K' or 'shrink:K' with K rows (of shrink at least 2), as adapt:64"
        )


def _check_rows(spec: Spec) -> None:
    if (spec.data is None) == (spec.table is None):
        said = "are both there" if spec.data else "are both missing"
        raise ValueError(
            f"tables 'data' and 'table' {said}; give [data] for windows of a genome or [table] "
            "for the rows of a CSV file"
        )
    if spec.data is not None:
        check_once(data__chromosomes=spec.data.chromosomes, data__unseen=spec.data.unseen)
        check_disjoint(chromosomes=spec.data.chromosomes, unseen=spec.data.unseen)
        if spec.data.validation + spec.data.test >= 1:
            raise ValueError("keys 'data.validation' and 'data.test' leave nothing to train on")
    if spec.table is not None:
        _check_table(spec.table, spec.training)
        _check_columns(spec.table, getattr(spec.partition.build(), "column", None))


def _check_table(table: Table, training: Training) -> None:
    """What is learnt, and that the parts which that takes are there."""
    survival = (table.time is not None) + (table.event is not None)
    if table.label is None and survival == 0:
        raise ValueError("key 'table.label' is missing; add it, or 'table.time' and 'table.event'")
    if table.label is not None and survival:
        key = "time" if table.time is not None else "event"
        raise ValueError(f"key 'table.{key}' does not go with 'table.label'; leave one of them out")
    if survival == 1:
        key, other = ("event", "time") if table.event is None else ("time", "event")
        raise ValueError(f"key 'table.{key}' is missing; 'table.{other}' needs it")
    if table.part is not None and table.test is not None:
        raise ValueError("key 'table.test' does not go with 'table.part', which names the test")
    if table.validation == 0 and len(training.learning_rates) > 1:
        raise ValueError(
            "key 'table.validation' is 0, so that nothing can choose among several "
            "'training.learning_rates'; give one rate, or a fraction"
        )
    if table.validation == 0 and training.patience is not None:
        raise ValueError("key 'table.validation' is 0, so that 'training.patience' sees nothing")


def _check_columns(table: Table, site: str | None) -> None:
    """One part for each column."""
    parts = {"table.time": table.time, "table.event": table.event, "table.label": table.label}
    parts |= {"table.part": table.part, "partition.column": site}
    taken: dict[str, str] = {}
    for key, column in parts.items():
        if column is not None and column in taken:
            raise ValueError(f"key '{key}': column '{column}' is already '{taken[column]}'")
        if column is not None:
            taken[column] = key
    check_once(table__features=table.features or ())
    for column in table.features or ():
        if column in taken:
            raise ValueError(
                f"key 'table.features': column '{column}' is '{taken[column]}'; a model must not "
                "see it"
            )


def _check_training(training: Training, strategy: Strategy) -> None:
    from federated.strategies import STRATEGY_NAMES, check_optimizer, check_strategy

    if training.local_epochs is not None and training.local_steps is not None:
        raise ValueError(
            "key 'training.local_steps' does not go with 'training.local_epochs'; leave one of "
            "them out"
        )
    if training.momentum and training.optimizer != "sgd":
        raise ValueError("key 'training.momentum' is of optimizer 'sgd'; leave it out")
    if strategy.name not in STRATEGY_NAMES:
        raise ValueError(unknown("strategy.name", strategy.name, STRATEGY_NAMES))
    try:
        check_strategy(strategy.name, strategy.options)
    except ValueError as error:
        raise ValueError(f"key 'strategy.options': {error}") from error
    try:
        check_optimizer(strategy.name, training.optimizer, training.momentum)
    except ValueError as error:
        raise ValueError(f"key 'training.optimizer': {error}") from error


def _check_policies(spec: Spec) -> None:
    """Names of policies, that all of their phases occur, and that they suit the models."""
    policies = [_policy(name, spec.training.rounds) for name in spec.policies]
    check_once(policies=[policy.name for policy in policies])
    for norm, model in models_of(spec):
        for policy in policies:
            try:
                policy.manifest(model)
            except ValueError as error:
                raise ValueError(
                    f"key 'policies': norm '{norm}' under policy '{policy.name}': {error}"
                ) from error


def _policy(name: str, rounds: int) -> NormPolicy:
    from federated.policy import parse_policy

    try:
        policy = parse_policy(name)
    except ValueError as error:
        raise ValueError(f"key 'policies': {error}") from error
    if (last := policy.phases[-1].start) > rounds:
        raise ValueError(
            f"key 'policies': '{policy.name}' changes in round {last}, after the last of "
            f"{rounds}; name an earlier round or raise 'training.rounds'"
        )
    return policy


def models_of(spec: Spec) -> Iterator[tuple[str, nn.Module]]:
    """Build the spec's model once with every norm; no data are needed."""
    for norm in spec.norms:
        try:
            parse_norm(norm)
        except ValueError as error:
            raise ValueError(f"key 'norms': {error}") from error
    return _window_models(spec) if spec.table is None else _table_models(spec, spec.table)


def _window_models(spec: Spec) -> Iterator[tuple[str, nn.Module]]:
    from seqnorm.models import build_model

    if spec.model.name == LINEAR:
        raise ValueError(f"key 'model.name': '{LINEAR}' is the model of a [table], not of [data]")
    try:
        check_model(spec.model, spec.norms)
    except ValueError as error:
        raise ValueError(f"table 'model': {error}") from error
    for norm in spec.norms:
        yield norm, build_model(spec.model.name, norm, seed=0, **spec.model.options)


def _table_models(spec: Spec, table: Table) -> Iterator[tuple[str, nn.Module]]:
    from federated.tasks.linear import Linear

    if spec.model.name != LINEAR:
        raise ValueError(
            f"key 'model.name': '{spec.model.name}' is none of a [table]; give '{LINEAR}'"
        )
    if spec.model.options:
        raise ValueError(f"key 'model.options': model '{LINEAR}' has none; leave them out")
    for norm in spec.norms:
        # As many features as suit the norm, where only the file tells how many there are.
        features = len(table.features or ()) or parse_norm(norm).groups or 1
        try:
            yield norm, Linear(features, norm, seed=0)
        except ValueError as error:
            raise ValueError(f"key 'norms': {error}") from error


def unknown(key: str, name: str, known: Iterable[str]) -> str:
    """Say that a name does not exist, which one comes close and which there are.

    Examples
    --------
    >>> unknown("strategy.name", "fedavh", ["fedavg", "krum"])
    "key 'strategy.name': unknown 'fedavh'; did you mean 'fedavg'? Valid: fedavg, krum"
    """
    names = list(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"key '{key}': unknown '{name}'; {hint}Valid: {', '.join(names)}"
