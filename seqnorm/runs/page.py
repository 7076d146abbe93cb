"""The reports' common page: one look, everything escaped, an unknown name is an error."""

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

__all__ = ["page_environment"]


def page_environment(package: str) -> Environment:
    """Make an environment for the templates of a package, with the common style at hand.

    Parameters
    ----------
    package : str
        Whose folder ``templates`` is looked in first; ``style.css`` is the common style.

    Returns
    -------
    jinja2.Environment
        It escapes whatever is put in.

    Examples
    --------
    >>> page = page_environment("seqnorm.runs").from_string("{{ name }}")
    >>> page.render(name="<b>")
    '&lt;b&gt;'
    """
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("seqnorm.runs")])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
