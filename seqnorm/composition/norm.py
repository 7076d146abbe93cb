"""BackgroundNorm: the layer."""

from __future__ import annotations

from torch import Tensor, nn

from seqnorm.composition.taps import Taps
from seqnorm.composition.zscore import background_zscore, check_scan, check_window
from seqnorm.functional import LAYOUTS

__all__ = ["BackgroundNorm"]


class BackgroundNorm(nn.Module):
    """A first convolution whose outputs are z-scores under the sequence's own composition.

    A raw response follows GC content: a GC-rich filter is high all along a GC-rich sequence.
    Here each response is compared with what the same filter would give on random DNA of the same
    base or dinucleotide frequencies, so that the mean and the variance over such DNA are 0 and 1
    whatever its composition. See :func:`background_zscore` for the formula.

    Parameters
    ----------
    filters : torch.nn.Conv1d or Tensor
        A convolution of 4 channels, new or trained: its weights are shared, not copied, and its
        padding, stride and dilation are taken over. Its bias has no effect on a z-score and is
        not used; build it with ``bias=False``. Or filters of shape ``(O, 4, K)``, e.g. log-odds
        matrices of motifs, with as many outputs as inputs; these are learned only if they are a
        :class:`torch.nn.Parameter`.
    order : {0, 1}
        0: base frequencies; 1: dinucleotides, as a Markov chain.
    window : int, optional
        Of order 0: composition of this many bases about each position, not of the whole sequence.
    pseudocount : float
        Of order 1: pairs of independent bases that are added to those of the sequence.
    eps : float
        Added to the variance, in the units of the filters squared.
    affine : bool
        Whether a weight and a bias of each filter follow, learned.
    activation : {"relu", "gelu"}, optional
        What comes last.
    detach_composition : bool
        Whether the composition is a constant to derivatives by the input; meant for attribution.
    layout : {"NCL", "NLC"}
        Order of the axes of input and output.

    Attributes
    ----------
    filters : torch.nn.Parameter
        ``(O, 4, K)``.
    weight, bias : torch.nn.Parameter or None
        ``(O,)``, 1 and 0 at first.

    Notes
    -----
    Nothing depends on other sequences or on the past: training and evaluation are the same.
    To score both strands, append the reverse complements: ``torch.cat([w, w.flip(1, 2)])``.

    Examples
    --------
    >>> import torch
    >>> layer = BackgroundNorm(torch.nn.Conv1d(4, 8, 5, padding="same", bias=False), order=1)
    >>> x = torch.eye(4)[torch.randint(0, 4, (2, 100))].transpose(1, 2)
    >>> layer(x, lengths=torch.tensor([100, 60])).shape
    torch.Size([2, 8, 100])
    >>> scan = BackgroundNorm(torch.tensor([[[1.0], [0.0], [0.0], [1.0]]]), affine=False)
    >>> at_rich = torch.eye(4)[[0, 3, 0, 1, 3]].T[None]
    >>> scan(at_rich).round(decimals=2).tolist()
    [[[0.5, 0.5, 0.5, -2.0, 0.5]]]
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        filters: nn.Conv1d | Tensor,
        *,
        order: int = 0,
        window: int | None = None,
        pseudocount: float = 0.0,
        eps: float = 1e-5,
        affine: bool = True,
        activation: str | None = None,
        detach_composition: bool = False,
        layout: str = "NCL",
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be 'NCL' or 'NLC', got {layout!r}")
        self.padding: str | int = "same"
        self.stride = self.dilation = 1
        if isinstance(filters, nn.Conv1d):
            weight: Tensor = _weight(filters)
            given = filters.padding
            self.padding = given if isinstance(given, str) else given[0]
            self.stride, self.dilation = filters.stride[0], filters.dilation[0]
        elif isinstance(filters, Tensor):
            weight = filters
        else:
            raise ValueError(
                "filters must be a torch.nn.Conv1d or a tensor (O, 4, K), "
                f"got {type(filters).__name__}"
            )
        check_scan(weight, order, window, pseudocount, eps, activation)
        check_window(window, Taps.of(weight.shape[2], self.padding, self.stride, self.dilation))
        if not isinstance(weight, nn.Parameter):
            weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.filters = weight
        for name, start in (("weight", 1.0), ("bias", 0.0)):
            value = nn.Parameter(weight.new_full(weight.shape[:1], start)) if affine else None
            self.register_parameter(name, value)
        self.order = order
        self.window = window
        self.pseudocount = pseudocount
        self.eps = eps
        self.activation = activation
        self.detach_composition = detach_composition
        self.layout = layout

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Score ``x``.

        Parameters
        ----------
        x : Tensor
            ``(N, 4, L)``, one-hot, or ``(N, L, 4)`` if the layout says so; without the axis N for
            one sequence.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``; N is 1 for one sequence. A mask needs as
            many outputs as inputs.

        Returns
        -------
        Tensor
            ``(N, O, P)`` or ``(N, P, O)``, P as from the convolution.
        """
        batch = x.unsqueeze(0) if x.dim() == 2 else x
        if batch.dim() != 3 or batch.shape[self.layout.index("C")] != 4:
            axes = ", ".join(self.layout).replace("C", "4")
            raise ValueError(
                f"expected one-hot sequences of axes ({axes}), got shape {tuple(x.shape)}; pass "
                "layout= if its axes are in another order"
            )
        y = background_zscore(
            batch if self.layout == "NCL" else batch.transpose(1, 2),
            self.filters,
            order=self.order,
            window=self.window,
            lengths=lengths,
            padding=self.padding,
            stride=self.stride,
            dilation=self.dilation,
            scale=self.weight,
            bias=self.bias,
            pseudocount=self.pseudocount,
            eps=self.eps,
            activation=self.activation,
            detach_composition=self.detach_composition,
        )
        y = y if self.layout == "NCL" else y.transpose(1, 2)
        return y if x.dim() == 3 else y.squeeze(0)

    def extra_repr(self) -> str:
        """Shape of the filters, and the options."""
        names = ("order", "window", "padding", "stride", "dilation", "activation", "layout")
        options = {name: getattr(self, name) for name in names}
        given = [f"{name}={value}" for name, value in options.items() if value is not None]
        return ", ".join([f"filters={tuple(self.filters.shape)}", *given])


def _weight(conv: nn.Conv1d) -> nn.Parameter:
    """The weights of a convolution that can be scored."""
    if conv.in_channels != 4 or conv.groups != 1:
        raise ValueError(
            f"the convolution must read one-hot DNA: 4 channels in 1 group, got {conv.in_channels} "
            f"in {conv.groups}; only the response to bases has a background"
        )
    if conv.padding_mode != "zeros":
        raise ValueError(f"padding_mode must be 'zeros', unknown bases, got {conv.padding_mode!r}")
    if not isinstance(conv.weight, nn.Parameter):
        raise ValueError(
            "the weight of the convolution is computed from other parameters; call "
            "torch.nn.utils.parametrize.remove_parametrizations(conv, 'weight') first, or pass "
            "conv.weight.detach() for fixed filters"
        )
    return conv.weight
