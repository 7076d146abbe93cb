"""Which cores and GPUs there are, and how workers are shared out over them."""

import os
from collections.abc import Mapping

__all__ = ["cores", "gpus_for", "limit_to"]

VISIBLE = "CUDA_VISIBLE_DEVICES"


def cores() -> int:
    """Cores that this process may use: as many jobs at a time unless told otherwise."""
    return len(os.sched_getaffinity(0))


def gpus_for(device: str, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """GPUs over which the workers of a run are shared out.

    Parameters
    ----------
    device : str
        As in a spec: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    environment : mapping of str to str
        Whose ``CUDA_VISIBLE_DEVICES`` is kept to.

    Returns
    -------
    tuple of str
        Names for ``CUDA_VISIBLE_DEVICES``. None where there is no GPU, or where ``device`` names
        the CPU or one GPU by its number.

    Examples
    --------
    >>> gpus_for("cpu")
    ()
    """
    if device not in ("auto", "cuda"):
        return ()
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in environment.get(VISIBLE, "").split(",") if name.strip()]
    # torch counts those that are visible; the others have no name here.
    return tuple(named[:count]) if named else tuple(str(number) for number in range(count))


def limit_to(gpu: str | None) -> None:
    """Let this process see one GPU alone, which is then its ``cuda``.

    It has to be called before the process uses CUDA for the first time.

    Parameters
    ----------
    gpu
        A name for ``CUDA_VISIBLE_DEVICES``; None changes nothing.
    """
    if gpu is not None:
        os.environ[VISIBLE] = gpu
