"""Setting: one skew of the clients and one participation, under which every cell is run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from seqnorm.runs.naming import in_name

if TYPE_CHECKING:
    from federated.spec import Spec

__all__ = ["Setting", "settings_of"]


@dataclass(frozen=True)
class Setting:
    """One setting of a study; a simulation has one alone, that of its spec.

    Attributes
    ----------
    spec : Spec
        With the setting's values in place.
    folder : path
        Where its rows and cells are kept.
    keys : dict of str to float
        What tells it from other settings in the tables; empty where there are none.
    """

    spec: Spec
    folder: Path
    keys: dict[str, float]


def settings_of(spec: Spec, folder: Path, *, study: bool) -> list[Setting]:
    """The settings of a run: the spec's own, or all of its study.

    Parameters
    ----------
    spec : Spec
    folder : path
        Of the run.
    study : bool
    """
    if not study or spec.study is None:
        return [Setting(spec, folder, {})]
    settings = []
    for skew in spec.study.skews or (None,):
        for fraction in spec.study.participations or (None,):
            keys: dict[str, float] = {}
            changed = spec
            if skew is not None:
                keys["skew"] = skew
                changed = changed.with_skew(skew)
            if fraction is not None:
                keys["participation"] = fraction
                rules = replace(spec.participation, fraction=fraction)
                changed = replace(changed, participation=rules)
            title = "_".join(f"{key}{in_name(value)}" for key, value in keys.items())
            settings.append(Setting(changed, folder / "settings" / title, keys))
    return settings
