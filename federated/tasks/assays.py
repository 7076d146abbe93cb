"""What each client's assay does to its rows, as the spec asks, and a table of who has which."""

from __future__ import annotations

import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from federated.partition import AssayShift, AssayVariation, Partition, assay_shifts
from federated.tasks.task import TEST

if TYPE_CHECKING:
    from federated.spec import Assay

__all__ = ["assays_of", "with_assays", "with_missed_peaks"]


def assays_of(assay: Assay, split: Partition) -> dict[str, AssayShift]:
    """The assay of each client; clients of one batch have one."""
    return assay_shifts(AssayVariation(dial=assay.dial), split.clients, assay.seed, split.batches)


def with_missed_peaks(
    rows: pd.DataFrame, shifts: dict[str, AssayShift], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels as the clients' assays give them, but for test windows.

    Parameters
    ----------
    rows : pandas.DataFrame
        ``label``, ``gc``, ``client`` and ``part`` of each window.
    shifts : dict of str to AssayShift
    seed : int

    Returns
    -------
    rows : pandas.DataFrame
        A new table.
    assays : pandas.DataFrame
        A line a client: its assay, its ``peaks`` outside the test part and how many of them it
        ``missed``.
    """
    labels, lines = rows["label"].to_numpy(copy=True), []
    known = (rows["part"] != TEST).to_numpy()
    for client, shift in shifts.items():
        mine = np.flatnonzero((rows["client"] == client).to_numpy() & known)
        before = labels[mine]
        draw = seed + zlib.crc32(client.encode())
        labels[mine] = shift.labels(before, rows["gc"].to_numpy()[mine], draw)
        peaks = int(before.sum())
        missed = peaks - int(labels[mine].sum())
        lines.append({"client": client, **asdict(shift), "peaks": peaks, "missed": missed})
    return rows.assign(label=labels), pd.DataFrame(lines)


def with_assays(
    inputs: NDArray[np.float32], client: NDArray[np.str_], shifts: dict[str, AssayShift]
) -> NDArray[np.float32]:
    """Features as the clients' assays give them.

    Parameters
    ----------
    inputs : ndarray, shape (N, F)
    client : ndarray of str, shape (N,)
    shifts : dict of str to AssayShift

    Returns
    -------
    ndarray, shape (N, F)
        ``gain * x + offset * s`` with the standard deviation s of each feature over all rows;
        features of one or two values as they are.

    Examples
    --------
    >>> x = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 1.0]], dtype=np.float32)
    >>> with_assays(x, np.array(["a", "b", "b"]), {"b": AssayShift(gain=2.0)})
    array([[1., 0.],
           [4., 1.],
           [6., 1.]], dtype=float32)
    """
    found: NDArray[Any] = inputs.copy()
    spread = inputs.std(axis=0, dtype=np.float64)
    numeric = [f for f in range(inputs.shape[1]) if len(np.unique(inputs[:, f])) > 2]
    for name, shift in shifts.items():
        mine = client == name
        for feature in numeric:
            scaled = AssayShift(gain=shift.gain, offset=shift.offset * float(spread[feature]))
            found[mine, feature] = scaled.signal(inputs[mine, feature])
    return found
