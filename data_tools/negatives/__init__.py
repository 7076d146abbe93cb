"""Background windows: random, matched, flanking. None touches a positive or what is excluded.

The starts at which a window may lie are worked out exactly, as intervals, before any is drawn:
there is no trial and error that could give up or let one slip through.
"""

from data_tools.negatives.balance import balance
from data_tools.negatives.draw import Background, background_windows
from data_tools.negatives.drawn import Drawn
from data_tools.negatives.matched import GC_CALIPER
from data_tools.negatives.subset import match_rows

__all__ = ["GC_CALIPER", "Background", "Drawn", "background_windows", "balance", "match_rows"]
