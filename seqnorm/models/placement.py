"""Where in a model its norm stands: on the bases, after the first layer, the last, or all."""

from torch import nn

from seqnorm.composition import BackgroundNorm
from seqnorm.kinds import BACKGROUND, parse_choice
from seqnorm.layers import NoNorm, make_norm
from seqnorm.models.padding import ZeroPadding


class Placement:
    """Gives each spot of a model its norm; :class:`seqnorm.NoNorm` or nothing where none stands.

    A model asks for its norms in the order of its layers. No norm draws random numbers, so the
    other weights are the same wherever it stands.

    Parameters
    ----------
    norm
        Name of the norm, with or without ``@PLACE``; see `seqnorm.kinds.parse_choice`. What an
        experiment does with it (``+VARIANT``) is no matter of the model.

    Raises
    ------
    ValueError
        For a name that cannot be, here or where a norm does not fit its channels.

    Examples
    --------
    >>> placement = Placement("layer@first")
    >>> conv, norm = placement.first(nn.Conv1d(4, 8, 5, padding=2))
    >>> type(norm).__name__, type(placement.later(8, last=True)).__name__
    ('LayerNorm', 'NoNorm')
    """

    def __init__(self, norm: str) -> None:
        self.kind, self.place, _ = parse_choice(norm)

    def input(self) -> nn.Module:
        """Give the norm of the one-hot bases. Like any norm it leaves their padding zero."""
        return make_norm(self.kind, 4) if self.place == "input" else ZeroPadding()

    def first(self, conv: nn.Conv1d, *, last: bool = False) -> tuple[nn.Module, nn.Module]:
        """Give the first convolution and its norm, to be called as ``norm(conv(x), lengths)``.

        BackgroundNorm is both at once: it takes the convolution's weights and needs the bases.
        """
        if self.kind == BACKGROUND:
            return nn.Identity(), BackgroundNorm(conv)
        stands = self.place in ("first", "every") or (last and self.place == "head")
        return conv, self._norm(stands, conv.out_channels)

    def later(self, channels: int, layout: str = "NCL", *, last: bool = False) -> nn.Module:
        """Give the norm of a later spot, ``last`` being the one next to the head."""
        stands = self.place == "every" or (last and self.place == "head")
        return self._norm(stands, channels, layout)

    def _norm(self, stands: bool, channels: int, layout: str = "NCL") -> nn.Module:
        return make_norm(self.kind, channels, layout) if stands else NoNorm(layout=layout)
