"""A manifest as a table: for the terminal, and of pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqnorm.text_table import text_table

if TYPE_CHECKING:
    import pandas as pd

    from federated.policy.manifest import Entry, Manifest

__all__ = ["frame", "show"]


def frame(manifest: Manifest) -> pd.DataFrame:
    """One row for each tensor and phase.

    Returns
    -------
    pandas.DataFrame
        Columns ``tensor, module, layer, role, shape, dtype, first_round, fate,
        client_to_server, server_to_client, kept_by_client``.
    """
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "tensor": entry.name,
                "module": entry.module,
                "layer": entry.layer,
                "role": entry.role,
                "shape": "x".join(map(str, entry.shape)),
                "dtype": str(entry.dtype).removeprefix("torch."),
                "first_round": phase.start,
                "fate": entry.fates[number],
                "client_to_server": entry.sent_up(number),
                "server_to_client": entry.sent_down(number),
                "kept_by_client": entry.fates[number] == "local",
            }
            for entry in manifest.entries
            for number, phase in enumerate(manifest.policy.phases)
        ]
    )


def show(manifest: Manifest) -> str:
    """Tables of the tensors of norms and of other buffers, and a line on the rest.

    Examples
    --------
    >>> from torch import nn
    >>> from federated.policy import parse_policy
    >>> print(parse_policy("silobn").manifest(nn.BatchNorm1d(8)))
    policy silobn
    tensor               layer        role      fate      client to server  server to client
    weight               BatchNorm1d  gamma     averaged  always            always
    bias                 BatchNorm1d  beta      averaged  always            always
    running_mean         BatchNorm1d  mean      local     never             never
    running_var          BatchNorm1d  variance  local     never             never
    num_batches_tracked  BatchNorm1d  counter   local     never             never
    """
    norms = [entry for entry in manifest.entries if entry.layer]
    buffers = [entry for entry in manifest.entries if entry.role == "buffer"]
    weights = [entry for entry in manifest.entries if entry.role == "parameter"]
    parts = [f"policy {manifest.policy.name}"]
    parts.append(_table(manifest, norms) if norms else "no norm layer holds a tensor")
    if buffers:
        parts.append(
            "other buffers, of layers that are not known as norms (federated.policy.register_norm):"
        )
        parts.append(_table(manifest, buffers))
    if weights:
        parts.append(f"other parameters: {len(weights)}, averaged in every round")
    return "\n".join(parts)


def _table(manifest: Manifest, entries: list[Entry]) -> str:
    phases = range(len(manifest.policy.phases))
    return text_table(
        ("tensor", "layer", "role", "fate", "client to server", "server to client"),
        [
            (
                entry.name,
                entry.layer or "-",
                entry.role,
                _fate(manifest, entry),
                _when(manifest, [entry.sent_up(number) for number in phases]),
                _when(manifest, [entry.sent_down(number) for number in phases]),
            )
            for entry in entries
        ],
    )


def _fate(manifest: Manifest, entry: Entry) -> str:
    words: list[str] = [entry.fates[0]]
    for number, phase in enumerate(manifest.policy.phases[1:], 1):
        if entry.fates[number] != entry.fates[number - 1]:
            words.append(f"from round {phase.start} {entry.fates[number]}")
    return ", ".join(words)


def _when(manifest: Manifest, sent: list[bool]) -> str:
    if len(set(sent)) == 1:
        return "always" if sent[0] else "never"
    starts = [phase.start for phase in manifest.policy.phases]
    ends = [str(start - 1) for start in starts[1:]] + [""]
    spans = [f"{a}-{b}" for a, b, yes in zip(starts, ends, sent, strict=True) if yes]
    return f"rounds {', '.join(spans)}"
