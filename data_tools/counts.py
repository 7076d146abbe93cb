"""What was read and what was dropped on the way, step by step: nothing is left out in silence."""

from __future__ import annotations

import warnings


class Counts(dict[str, int]):
    """Numbers of what was read, kept and dropped, by name, in the order of the steps.

    A plain dictionary to whoever writes it down (``json.dump``). Hand the same one to every step
    of a pipeline, as ``counts=``.

    Examples
    --------
    >>> counts = Counts()
    >>> counts.note("a.bed: dropped, past the end of the chromosome", 2)
    >>> counts.note("a.bed: dropped, past the end of the chromosome", 1)
    >>> counts
    {'a.bed: dropped, past the end of the chromosome': 3}
    >>> print(counts)
    a.bed: dropped, past the end of the chromosome: 3
    """

    def note(self, what: str, number: int) -> None:
        """Add a number to what was counted under this name."""
        self[what] = self.get(what, 0) + int(number)

    def __str__(self) -> str:
        return "; ".join(f"{what}: {number:,}" for what, number in self.items())


class DroppedWarning(UserWarning):
    """Something was dropped, as was asked for, and nobody counts."""


def tell_dropped(counts: Counts | None, what: str, number: int) -> None:
    """Note what was dropped; where nobody counts, warn.

    Examples
    --------
    >>> counts = Counts()
    >>> tell_dropped(counts, "a.bed: dropped, duplicates", 0)
    >>> counts
    {'a.bed: dropped, duplicates': 0}
    """
    if counts is not None:
        counts.note(what, number)
    elif number:
        warnings.warn(f"{what}: {number:,}", DroppedWarning, stacklevel=4)
