"""Split a table over clients, and prove that no linked rows were parted."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from federated.partition.checks import Ints, LinkedRowsError, PartitionError
from federated.partition.columns import numbered
from federated.partition.drawn import Scheme
from federated.partition.groups import Groups
from federated.partition.holdings import NOBODY, AnyScheme, Partition
from federated.partition.labels import BatchConfounded
from federated.partition.linked import linked_groups


def partition(
    rows: pd.DataFrame, scheme: AnyScheme, codes: NDArray[np.uint8] | None = None
) -> Partition:
    """Split the rows of a table over clients.

    Linked rows (see `linked_groups`) go to one client. A group larger than a client's share goes
    there whole: that client is larger than asked, the others share what is left.

    Parameters
    ----------
    rows : pandas.DataFrame
        N rows; with ``chrom``, ``start``, ``end`` they are windows. Which further columns there
        must be (``label``, ``gc``, a site) depends on the scheme.
    scheme : IID, LabelSkew, GCSkew, QuantitySkew, BatchConfounded, ByChromosome or BySite
        How clients differ.
    codes : ndarray of uint8, shape (N, W), optional
        Base codes: rows with equal or reverse-complement sequences are kept together.

    Returns
    -------
    Partition
        Of windows it is the same in any order of the rows; of other tables the order counts.

    Raises
    ------
    PartitionError
        If a column or a value that the scheme needs is missing or wrong, there are more clients
        than groups, or a client gets fewer rows than the scheme's ``min_rows`` (1 for schemes
        that have none).

    Examples
    --------
    >>> from federated.partition import GCSkew
    >>> rows = pd.DataFrame(
    ...     {"chrom": "chr1", "start": [0, 50, 200, 300], "gc": [0.4, 0.5, 0.7, 0.3], "label": 0}
    ... )
    >>> rows["end"] = rows["start"] + 100
    >>> split = partition(rows, GCSkew(clients=2, rho=1))
    >>> dict(zip(split.clients, (held.tolist() for held in split.rows)))
    {'client-0': [3], 'client-1': [0, 1, 2]}
    """
    groups = Groups.of(rows, codes)
    if isinstance(scheme, Scheme):
        if scheme.clients > len(groups.size):
            raise PartitionError(
                f"clients = {scheme.clients}: the table has only {len(groups.size)} groups of "
                "linked rows; ask for as many clients at most"
            )
        names = numbered(scheme.clients)
        owner = scheme.assign(groups)[groups.of_row]
        dropped = _none_dropped()
        least = scheme.min_rows
    else:
        names, wanted = scheme.owners(rows)
        owner, dropped = _together(groups, wanted, names)
        least = 1
    _check_sizes(np.bincount(owner[owner != NOBODY], minlength=len(names)), names, least)
    batches = names
    if isinstance(scheme, BatchConfounded):
        batches = tuple(f"batch-{number}" for number in scheme.batches())
    held = tuple(np.flatnonzero(owner == client) for client in range(len(names)))
    return Partition(names, held, scheme, batches, dropped)


def check_partition(
    split: Partition, rows: pd.DataFrame, codes: NDArray[np.uint8] | None = None
) -> None:
    """Prove that no two clients hold linked rows.

    Parameters
    ----------
    split : Partition
        Of the rows.
    rows, codes
        As for `partition`.

    Raises
    ------
    LinkedRowsError
        At the first two linked rows that different clients hold; names both.
    PartitionError
        If the partition is not one of this table.

    Examples
    --------
    >>> from federated.partition import IID
    >>> rows = pd.DataFrame({"chrom": "chr1", "start": [0, 50, 300], "end": [100, 150, 400]})
    >>> check_partition(partition(rows, IID(clients=2)), rows)
    """
    split.check_table(rows)
    group = linked_groups(rows, codes)
    owner = split.owners()
    kept = np.flatnonzero(owner != NOBODY)
    first = _first_of_group(group, kept)
    parted = kept[owner[kept] != owner[first[group[kept]]]]
    if len(parted):
        one, two = int(first[group[parted[0]]]), int(parted[0])
        raise LinkedRowsError(
            f"row {one}{_place(rows, one)} of {split.clients[owner[one]]} and row {two}"
            f"{_place(rows, two)} of {split.clients[owner[two]]} share sequence, directly or "
            "through other rows; give both to one client or drop one"
        )


def _first_of_group(group: Ints, kept: Ints) -> Ints:
    """First kept row of each group; NOBODY where none is kept."""
    first = np.full(int(group.max()) + 1, NOBODY, dtype=np.int64)
    first[group[kept][::-1]] = kept[::-1]
    return first


def _place(rows: pd.DataFrame, at: int) -> str:
    if not {"chrom", "start", "end"} <= set(rows.columns):
        return ""
    row = rows.iloc[at]
    return f" ({row['chrom']}:{row['start']}-{row['end']})"


def _together(groups: Groups, wanted: Ints, names: tuple[str, ...]) -> tuple[Ints, pd.DataFrame]:
    """Drop the rows of a group that are not with the client that has most of them."""
    home = groups.mode(wanted)[groups.of_row]
    owner = np.where(home == wanted, wanted, NOBODY)
    lost = np.flatnonzero(owner == NOBODY)
    if not len(lost):
        return owner, _none_dropped()
    partner = _first_of_group(groups.of_row, np.flatnonzero(owner != NOBODY))[groups.of_row[lost]]
    reasons = [f"shares sequence with row {p} of {names[owner[p]]}" for p in partner]
    return owner, pd.DataFrame({"row": lost, "reason": reasons})


def _none_dropped() -> pd.DataFrame:
    return pd.DataFrame({"row": np.empty(0, np.int64), "reason": np.empty(0, np.str_)})


def _check_sizes(held: NDArray[np.intp], names: tuple[str, ...], least: int) -> None:
    if held.min() < least:
        at = int(held.argmin())
        raise PartitionError(
            f"{names[at]} gets {held[at]} rows, fewer than {least}: too many rows are linked to "
            "others' for this scheme; take fewer clients, another seed or narrower windows"
        )
