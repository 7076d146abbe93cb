"""Checks of a model's options, before any weight is drawn."""

from numbers import Integral, Real


def check_sizes(**sizes: int) -> None:
    """Refuse what is no whole number of at least 1.

    Examples
    --------
    >>> check_sizes(channels=32, pool=0)
    Traceback (most recent call last):
    ...
    ValueError: pool must be a whole number of at least 1, got 0
    """
    for name, value in sizes.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def check_odd(**sizes: int) -> None:
    """Refuse kernel sizes that are no odd number: the output would not keep its length."""
    check_sizes(**sizes)
    for name, value in sizes.items():
        if value % 2 == 0:
            raise ValueError(
                f"{name} must be odd, got {value}: only then does the output keep the length of "
                "the input"
            )


def check_dropout(dropout: float) -> None:
    """Refuse what is no probability below 1."""
    if not isinstance(dropout, Real) or isinstance(dropout, bool) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be a probability below 1, got {dropout!r}")
