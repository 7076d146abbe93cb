"""Where the jobs of a run are done: the cores and GPUs of this machine, or a Ray cluster."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqnorm.runs.devices import cores, gpus_for
from seqnorm.runs.pool import OnProgress, Place, Pool

__all__ = ["Workplace", "open_workplace"]


@dataclass(frozen=True)
class Workplace:
    """Workers that a run may begin.

    Attributes
    ----------
    workers, threads : int
        Jobs at a time, and torch threads of each.
    device : str
        ``"cpu"``, ``"cuda"``, or a GPU by its number.
    devices : sequence of str
        GPUs over which processes of this machine are shared out.
    place : Place, optional
        Where the jobs run, if not in processes of this machine.
    described : dict
        What is worth recording.
    libraries : sequence of str
        Whose versions are worth recording besides.
    """

    workers: int
    threads: int
    device: str
    devices: Sequence[str] = ()
    place: Place | None = None
    described: dict[str, Any] = field(default_factory=dict)
    libraries: Sequence[str] = ()

    def pool(self, on_progress: OnProgress) -> Pool:
        """Begin the workers."""
        return Pool(self.workers, self.threads, on_progress, place=self.place, devices=self.devices)


@contextmanager
def open_workplace(
    workers: int | None, threads: int, device: str, folder: Path, ray: str | None
) -> Iterator[Workplace]:
    """Find the workers of a run.

    Parameters
    ----------
    workers : int, optional
        Jobs at a time; None: as many as there are cores.
    threads : int
        Torch threads of each.
    device : str
        As in a spec.
    folder : path
        Of the run, absolute.
    ray : str, optional
        Address of a cluster, or ``"local"``; None: processes of this machine.
    """
    if ray is None:
        from seqnorm.training import resolve_device

        found, devices = str(resolve_device(device)), gpus_for(device)
        count = cores() if workers is None else workers
        described = {"device": found, "gpus": len(devices)}
        yield Workplace(count, threads, found, devices, described=described)
        return
    from seqnorm.runs.ray_pool import Cluster

    with Cluster(ray, workers, threads, device, folder) as cluster:
        described = {"device": cluster.device, "ray_nodes": cluster.nodes}
        yield Workplace(cluster.workers, threads, cluster.device, (), cluster, described, ("ray",))
