"""Clients whose data differ: who holds which rows, and how their assays shift.

`partition` splits a table over clients by a scheme with one dial and a seed; rows that share
sequence are never split. `assay_shifts` draws what each client's assay does to its rows.
"""

from federated.partition.assay import AssayShift, AssayVariation, assay_shifts
from federated.partition.checks import LinkedRowsError, PartitionError
from federated.partition.columns import ByChromosome, BySite
from federated.partition.drawn import IID, GCSkew, QuantitySkew
from federated.partition.holdings import SCHEMES, Partition
from federated.partition.labels import BatchConfounded, LabelSkew
from federated.partition.linked import linked_groups
from federated.partition.plot import partition_picture
from federated.partition.split import check_partition, partition

__all__ = [
    "IID",
    "SCHEMES",
    "AssayShift",
    "AssayVariation",
    "BatchConfounded",
    "ByChromosome",
    "BySite",
    "GCSkew",
    "LabelSkew",
    "LinkedRowsError",
    "Partition",
    "PartitionError",
    "QuantitySkew",
    "assay_shifts",
    "check_partition",
    "linked_groups",
    "partition",
    "partition_picture",
]
