"""Numbers in the names of folders."""

__all__ = ["in_name"]


def in_name(value: float) -> str:
    """A number as short as it can be: values that differ only further down have other names.

    Examples
    --------
    >>> in_name(0.5), in_name(0.50000001)
    ('0.5', '0.50000001')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
