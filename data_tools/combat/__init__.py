"""ComBat: take the effect of assay batches out of expression tables, and keep the biology.

Moments of each gene are shared over the samples of a batch, and shrunk towards those of the
batch's other genes (Johnson, Li & Rabinovic 2007). Nothing is corrected before it is clear that
batch and biology can be told apart, see `confounding`.
"""

from data_tools.combat.confounding import Confounding, confounding
from data_tools.combat.counts import log_cpm
from data_tools.combat.fit import Combat, fit_combat

__all__ = ["Combat", "Confounding", "confounding", "fit_combat", "log_cpm"]
