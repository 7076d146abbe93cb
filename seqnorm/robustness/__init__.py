"""The GC-robustness card, which tells how a model's errors follow the GC content of its windows.

`audit` takes any model, or the scores of one, and labelled windows; what it gives can be looked
at as tables, a page or a few lines for a model's README.
"""

from seqnorm.robustness.auditing import audit
from seqnorm.robustness.card import Card
from seqnorm.robustness.files import write_card

__all__ = ["Card", "audit", "write_card"]
