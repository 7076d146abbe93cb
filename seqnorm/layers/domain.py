"""DomainBatchNorm1d: one BatchNorm for each domain, e.g. species, assay or site."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnorm.backends.plan import compute_dtype
from seqnorm.functional import concrete
from seqnorm.layers.base import Device, SequenceNorm
from seqnorm.layers.batch import BatchNorm1d


class DomainBatchNorm1d(SequenceNorm):
    """BatchNorm with statistics of its own for each domain (Chang et al. 2019).

    Parameters
    ----------
    num_features : int
        C.
    num_domains : int
        D; domains are named 0..D-1.
    eps, momentum, affine, device, dtype
        As for :class:`torch.nn.BatchNorm1d`.
    share_affine : bool
        One weight and bias for all domains (``weight`` and ``bias`` of this layer) instead of one
        for each, as in the paper (those of ``domains[d]``).
    layout : {"NCL", "NLC"}
        Order of the input's axes.
    activation : {"relu", "gelu"}, optional
        What follows the affine map, and the residual if there is one.
    on_single : {"error", "running", "identity"}
        As for :class:`BatchNorm1d`, about the values of one domain. A domain of which a mixed
        batch holds nothing is left alone.

    Attributes
    ----------
    domains : torch.nn.ModuleList
        One :class:`BatchNorm1d` for each domain, e.g. to freeze one: ``domains[0].frozen = True``.

    References
    ----------
    arXiv:1906.03950

    Examples
    --------
    >>> import torch
    >>> norm = DomainBatchNorm1d(4, num_domains=2)
    >>> x = torch.randn(6, 4, 10)
    >>> y = norm(x, domain=torch.tensor([0, 0, 0, 1, 1, 1]))
    >>> torch.allclose(y[3:], norm(x[3:], domain=1))
    True
    """

    mixes_samples = True

    def __init__(
        self,
        num_features: int,
        num_domains: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        share_affine: bool = False,
        layout: str = "NCL",
        activation: str | None = None,
        on_single: str = "error",
    ) -> None:
        super().__init__()
        if num_domains < 1:
            raise ValueError(f"num_domains must be at least 1, got {num_domains}")
        self._set_up(layout, activation)
        self.num_features = num_features
        self.share_affine = share_affine
        self.domains = nn.ModuleList(
            BatchNorm1d(
                num_features, eps, momentum, affine and not share_affine, True, device, dtype,
                layout=layout, on_single=on_single,
                activation=None if share_affine else activation,
            )
            for _ in range(num_domains)
        )  # fmt: skip
        shared = affine and share_affine
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            start = torch.full((num_features,), value, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(start) if shared else None)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        residual: Tensor | None = None,
        *,
        domain: int | Tensor,
    ) -> Tensor:
        """Normalize ``x`` by the statistics of its domains.

        Parameters
        ----------
        x : Tensor
            ``(N, C, L)``, or ``(N, L, C)`` if the layout says so, or ``(N, C)``.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``.
        residual : Tensor, optional
            Of the shape of ``x``: added before the activation.
        domain : int or Tensor
            The domain of the batch, or integers ``(N,)``, that of each sequence. A mixed batch
            costs a pass for each domain.

        Raises
        ------
        ValueError
            If a domain does not exist, or as for :class:`BatchNorm1d`. Values of a tensor are
            not checked while a graph is traced; such sequences come out as zeros.
        """
        batch = self._batch(x, self.num_features)
        valid = self._valid(batch, lengths)
        last = None if residual is None else residual.reshape(batch.shape)
        if not self.share_affine:
            return self._by_domain(batch, valid, last, domain).reshape(x.shape)
        z = self._by_domain(batch.to(compute_dtype(x)), valid, None, domain)
        y = self._affine(z, self.weight, self.bias, self._over_channels(batch, valid), last)
        return y.to(x.dtype).reshape(x.shape)

    def _by_domain(
        self, x: Tensor, valid: Tensor | None, residual: Tensor | None, domain: int | Tensor
    ) -> Tensor:
        self._check(domain, x.shape[0])
        if isinstance(domain, int):
            y: Tensor = self.domains[domain](x, valid, residual)
            return y
        positions = (x.shape[0], x.shape[self.layout.index("L")])
        total = torch.zeros_like(x)
        for number, norm in enumerate(self.domains):
            chosen = (domain.to(x.device) == number)[:, None].expand(positions)
            chosen = chosen if valid is None else chosen & valid
            if concrete(chosen.sum()) != 0:
                # Sequences of other domains count as padding, so they come out 0.
                total = total + norm(x, chosen, residual)
        return total

    def _check(self, domain: int | Tensor, batch: int) -> None:
        highest = len(self.domains) - 1
        if isinstance(domain, int):
            if not 0 <= domain <= highest:
                raise ValueError(f"domain {domain} is outside 0..{highest}")
            return
        kind = domain.dtype if isinstance(domain, Tensor) else type(domain).__name__
        if kind not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
            raise ValueError(f"domain must be an int or a tensor of integers (N,), got {kind}")
        if tuple(domain.shape) != (batch,):
            raise ValueError(
                f"domain must have shape ({batch},), one number for each sequence, "
                f"got {tuple(domain.shape)}"
            )
        wrong = (domain < 0) | (domain > highest)
        if concrete(wrong.sum()):
            row = int(wrong.nonzero()[0])
            raise ValueError(f"domain[{row}] = {int(domain[row])} is outside 0..{highest}")
