"""What a trained model is for: scores along a genome, explanations, effects of variants.

Names are loaded when they are first used, so that the command line need not load torch.
"""

from typing import TYPE_CHECKING

from data_tools.lazy import lazy_names

if TYPE_CHECKING:
    from seqnorm.use.explain import Explanation, explain_windows
    from seqnorm.use.predict import predict_intervals, predict_tiles
    from seqnorm.use.scorer import Scorer
    from seqnorm.use.variants import variant_effects

_HOMES = {
    "Explanation": "explain",
    "Scorer": "scorer",
    "explain_windows": "explain",
    "predict_intervals": "predict",
    "predict_tiles": "predict",
    "variant_effects": "variants",
}

__all__ = [
    "Explanation",
    "Scorer",
    "explain_windows",
    "predict_intervals",
    "predict_tiles",
    "variant_effects",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
