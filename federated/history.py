"""What happened in a cell, and the server's side of it on disk after every round.

Two checkpoints are kept, of the last round and of the one before, so that a damaged one costs a
round and not the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from data_tools.errors import InputError
from seqnorm.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

__all__ = ["History", "load_round", "read_history", "save_round"]

Row = dict[str, Any]


@dataclass
class History:
    """What happened, as rows of the tables.

    Attributes
    ----------
    clients : list of dict
        ``round``, ``client``, ``part`` and what was measured.
    rounds : list of dict
        One for each round: who took part, the loss, bytes, seconds.
    events : list of dict
        ``round``, ``client``, ``event``, ``reason``.
    finished : bool
        Whether no round is left.
    """

    clients: list[Row] = field(default_factory=list)
    rounds: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    finished: bool = False

    def note(self, number: int, client: str, event: str, reason: str) -> None:
        """Add an event, its reason as one line that a terminal can show."""
        line = " ".join(reason.split())[-500:]
        line = "".join(c if c.isprintable() else "?" for c in line)
        self.events.append({"round": number, "client": client, "event": event, "reason": line})

    def count(self, number: int, event: str) -> int:
        """Events of a kind in a round."""
        return sum(e["round"] == number and e["event"] == event for e in self.events)


def save_round(folder: Path, tensors: Mapping[str, Tensor], history: History, made_of: str) -> None:
    """Write a checkpoint after a round, in the place of the one before the last.

    Parameters
    ----------
    folder : path
        Of the cell.
    tensors : mapping of str to Tensor
        The server's.
    history : History
    made_of : str
        Digest of all that the numbers depend on.
    """
    slot = _slots(folder)[len(history.rounds) % 2]
    save_checkpoint(slot, dict(tensors), {"made_of": made_of, "history": vars(history)})


def load_round(folder: Path, made_of: str) -> tuple[dict[str, Tensor], History] | None:
    """Read the newest checkpoint that is whole; None where there is none at all.

    Raises
    ------
    InputError
        If it was made of something else.
    CheckpointError
        If there are checkpoints, but all are damaged.
    """
    found, damaged = _newest(folder)
    if found is None:
        if damaged:
            raise damaged[0]
        return None
    tensors, state = found
    if state.get("made_of") != made_of:
        raise InputError(
            f"{folder}: holds a run of another spec or other data; give another --out, or those"
        )
    history = History(**state["history"])
    for error in damaged:
        history.note(len(history.rounds), "", "damaged", f"went back a round: {error}")
    return tensors, history


def read_history(folder: Path) -> History:
    """What the newest whole checkpoint tells; nothing where there is none."""
    found, _ = _newest(folder)
    return History() if found is None else History(**found[1]["history"])


def _slots(folder: Path) -> tuple[Path, Path]:
    return folder / "checkpoint-even", folder / "checkpoint-odd"


def _newest(
    folder: Path,
) -> tuple[tuple[dict[str, Tensor], dict[str, Any]] | None, list[CheckpointError]]:
    found, damaged = [], []
    for slot in _slots(folder):
        try:
            checkpoint = load_checkpoint(slot)
        except CheckpointError as error:
            damaged.append(error)
            continue
        if checkpoint is not None:
            found.append(checkpoint)
    newest = max(found, key=lambda pair: len(pair[1]["history"]["rounds"]), default=None)
    return newest, damaged
