"""Numbers and names in the names of folders."""

from urllib.parse import quote

__all__ = ["in_name", "safe_name"]


def in_name(value: float) -> str:
    """A number as short as it can be: values that differ only further down have other names.

    Examples
    --------
    >>> in_name(0.5), in_name(0.50000001)
    ('0.5', '0.50000001')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def safe_name(name: str) -> str:
    """A name that somebody else gave, such as a chromosome's, as part of a file's name.

    Examples
    --------
    >>> safe_name("chr1"), safe_name("HLA-A*01:01"), safe_name("../x")
    ('chr1', 'HLA-A%2A01%3A01', '..%2Fx')
    """
    return quote(name, safe="+")
