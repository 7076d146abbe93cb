"""Names of the norms, as specs and `seqnorm.make_norm` take them. No torch."""

from __future__ import annotations

import difflib
from typing import NamedTuple

KIND_HELP = {
    "batch": "BatchNorm: each channel over the batch and the positions",
    "layer": "LayerNorm over channels: each position over its channels",
    "layer_seq": "LayerNorm over the sequence: each sequence over channels and positions",
    "group:8": "GroupNorm: each sequence over its positions and 8 groups of channels (any number)",
    "instance": "InstanceNorm: each channel of each sequence over its positions",
    "rms": "RMSNorm over channels: as layer, but divided by the root mean square alone",
    "none": "no normalization",
    "background": "BackgroundNorm, @first alone: filters' z-scores under each sequence's own bases",
}
"""What each kind of norm shares its statistics over."""

BACKGROUND = "background"
"""The kind that is no layer after another one: it scores the filters of a convolution."""

NORM_KINDS = tuple(kind for kind in KIND_HELP if kind != BACKGROUND)
"""One valid example of every kind that `seqnorm.make_norm` builds."""

PLACES = {
    "input": "on the one-hot input alone, before the first convolution",
    "first": "after the first convolution alone",
    "every": "after every convolution",
    "head": "after the last convolution alone, before the head",
}
"""Where in a model a norm stands."""

VARIANTS = {
    "adapted": "BatchNorm's statistics measured again on all that is scored, by chromosome",
    "again": "the same norm with other random numbers: a control, which should make no difference",
}
"""What an experiment does with a norm."""


class NormChoice(NamedTuple):
    """A norm, where it stands, and what an experiment does with it."""

    kind: str
    place: str = "every"
    variant: str | None = None

    @property
    def name(self) -> str:
        """The shortest name, which `parse_choice` reads back."""
        place = "" if self.place == "every" else f"@{self.place}"
        variant = f"+{self.variant}" if self.variant else ""
        return f"{self.kind}{place}{variant}"

    @property
    def trained(self) -> str:
        """Name of what is trained: adapting comes after training."""
        return self._replace(variant=None).name if self.variant == "adapted" else self.name


def parse_choice(text: str) -> NormChoice:
    """Take apart a norm's name in an experiment: ``KIND``, ``@PLACE`` and ``+VARIANT``.

    Parameters
    ----------
    text : str
        A kind as `parse_norm` takes it or ``"background"``, then, if wanted, where it stands
        (`PLACES`; ``"background"`` must stand ``@first``) and what is done with it (`VARIANTS`).

    Returns
    -------
    NormChoice

    Raises
    ------
    ValueError
        In one line: what is wrong and what is valid.

    Examples
    --------
    >>> parse_choice("instance@input")
    NormChoice(kind='instance', place='input', variant=None)
    >>> parse_choice("batch+adapted").trained
    'batch'
    """
    rest, plus, variant = str(text).partition("+")
    kind, at, place = rest.partition("@")
    for mark, given, known in (("+", variant, VARIANTS), ("@", place, PLACES)):
        if (plus if mark == "+" else at) and given not in known:
            close = difflib.get_close_matches(given, known, n=1)
            hint = f"did you mean '{mark}{close[0]}'? " if close else ""
            raise ValueError(
                f"norm {text!r}: no '{mark}{given}'; {hint}Valid: "
                + ", ".join(mark + name for name in known)
            )
    choice = NormChoice(kind, place or "every", variant or None)
    if kind == BACKGROUND and choice.place != "first":
        raise ValueError(
            f"norm {text!r}: background scores the filters of the first convolution and stands "
            f"nowhere else; write {choice._replace(place='first').name!r}"
        )
    name = kind if kind == BACKGROUND else parse_norm(kind).name
    if choice.variant == "adapted" and name != "batch":
        raise ValueError(f"norm {text!r}: only statistics of batch can be adapted")
    return choice


class NormKind(NamedTuple):
    """A kind of norm, taken apart: ``"group:8"`` is ``("group", 8)``; others have no groups."""

    name: str
    groups: int | None


def parse_norm(kind: str, channels: int | None = None) -> NormKind:
    """Check the name of a norm without building it.

    Parameters
    ----------
    kind : str
        One of ``"batch"``, ``"layer"`` (each position over its channels), ``"layer_seq"`` (each
        sequence over channels and positions), ``"group:G"`` (G groups of channels),
        ``"instance"``, ``"rms"``, ``"none"``.
    channels : int, optional
        If given, G must divide it.

    Returns
    -------
    NormKind

    Raises
    ------
    ValueError
        In one line: what is wrong, the valid kinds, and a close match if there is one.

    Examples
    --------
    >>> parse_norm("group:8", channels=64)
    NormKind(name='group', groups=8)
    >>> parse_norm("bacth")
    Traceback (most recent call last):
    ...
    ValueError: unknown norm 'bacth'; did you mean 'batch'? Valid: batch, layer, layer_seq, \
group:G (e.g. group:8), instance, rms, none
    """
    if kind == BACKGROUND:
        raise ValueError(
            "norm 'background' is no layer by itself, it scores the filters of a convolution: name "
            "it 'background@first' where a model is built, or use seqnorm.BackgroundNorm(conv)"
        )
    names = [name.partition(":")[0] for name in NORM_KINDS]
    valid = ", ".join("group:G (e.g. group:8)" if name == "group" else name for name in names)
    name, colon, number = str(kind).partition(":")
    if name not in names or (colon and name != "group"):
        close = difflib.get_close_matches(name.lower(), [*names, BACKGROUND], n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown norm {kind!r}; {hint}Valid: {valid}")
    if name != "group":
        return NormKind(name, None)
    if not (number.isascii() and number.isdigit() and int(number) > 0):
        raise ValueError(
            f"norm {kind!r} must name its number of groups, as group:8. Valid: {valid}"
        )
    groups = int(number)
    if channels is not None and channels % groups:
        divisors = ", ".join(str(g) for g in range(1, channels + 1) if channels % g == 0)
        raise ValueError(
            f"norm {kind!r} does not divide {channels} channels; groups can be {divisors}. "
            f"Valid: {valid}"
        )
    return NormKind(name, groups)
