"""What a client keeps for itself between rounds, on disk, a version for each round.

``FOLDER/CLIENT/round-000012/`` is one checkpoint of safetensors (:mod:`seqnorm.checkpoint`). It is
written beside its place and renamed into it, so that a version is whole or is not there. Older
versions stay for a while: a run that was killed after a client had saved round r, but before the
server had, replays round r with the client's state of before r, and gets the same bits.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from data_tools.atomic import sync_folder
from data_tools.errors import InputError
from seqnorm.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

__all__ = ["LocalState", "LocalStateError"]

_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION = re.compile(r"round-(\d{6,})")


class LocalStateError(InputError):
    """The state that a client has kept is there but cannot be used."""


class LocalState:
    """Local state of the clients of a run.

    Parameters
    ----------
    folder : path
        Made at the first save. Each client has a folder of its own in it; a site on a machine of
        its own has only its own. One process at a time may write a client's state.
    keep : int
        How many versions of a client to keep, at least 2: a run can go back behind the last
        ``keep - 1`` rounds in which the client took part.
    made_of : str
        Digest of all that the run depends on, so that the state of another run in this folder is
        an error, and never taken for that of this one.

    Examples
    --------
    >>> import tempfile, torch
    >>> kept = LocalState(tempfile.mkdtemp())
    >>> kept.load("site-1", before_round=1) is None
    True
    >>> kept.save("site-1", 1, {"norm.weight": torch.ones(2)})
    >>> kept.load("site-1", before_round=2)
    {'norm.weight': tensor([1., 1.])}
    """

    def __init__(self, folder: Path | str, *, keep: int = 3, made_of: str = "") -> None:
        if keep < 2:
            raise InputError(
                f"keep must be at least 2, so that a round can be replayed, got {keep}"
            )
        self.folder = Path(folder)
        self.keep = keep
        self.made_of = made_of

    def save(self, client: str, round: int, state: Mapping[str, Tensor]) -> None:  # noqa: A002
        """Keep what a client has after a round.

        Takes the place of an earlier version of this round and of all later ones, which belong to
        a course of the run that is being replayed. What is kept of the rounds before stays whole
        until the new version is.

        Parameters
        ----------
        client : str
            Letters, digits, ``. _ -``; at most 100, the first a letter or digit.
        round : int
            From 1.
        state : mapping
            Names to tensors.
        """
        home = self._home(client)
        _check_round(round)
        home.mkdir(parents=True, exist_ok=True)
        versions = self._versions(home)
        earlier = [number for number in versions if number < round]
        first = self._first(client, versions[earlier[-1]], earlier[-1]) if earlier else round
        place = home / f"round-{round:06d}"
        for left in home.glob(".round-*"):  # what a kill has left behind
            shutil.rmtree(left)
        new = home / f".{place.name}.{secrets.token_hex(4)}"
        about = {"client": client, "round": round, "first": first, "made_of": self.made_of}
        try:
            save_checkpoint(new, dict(state), about)
            for number in versions:
                if number >= round:
                    shutil.rmtree(versions[number])
            new.rename(place)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        sync_folder(home)
        for number in earlier[: max(0, len(earlier) + 1 - self.keep)]:
            shutil.rmtree(versions[number])

    def load(self, client: str, before_round: int) -> dict[str, Tensor] | None:
        """What a client had after the last round, before a given one, in which it took part.

        Parameters
        ----------
        client : str
        before_round : int
            The round that is about to start.

        Returns
        -------
        dict of str to Tensor, or None
            None for a client that takes part for the first time.

        Raises
        ------
        LocalStateError
            If the version is damaged, is no safetensors file, or is of another client; or if the
            client did take part before, but that version is no longer kept. Names the folder.
        """
        home = self._home(client)
        _check_round(before_round)
        versions = self._versions(home)
        usable = [number for number in versions if number < before_round]
        if usable:
            return self._read(client, versions[usable[-1]], usable[-1])[0]
        if versions:
            oldest = min(versions)
            first = self._first(client, versions[oldest], oldest)
            if first < before_round:
                raise LocalStateError(
                    f"{home}: the state of client {client!r} before round {before_round} is no "
                    f"longer kept; the oldest is of round {oldest}. Resume from a later round or "
                    "start the run again"
                )
        return None

    def _home(self, client: str) -> Path:
        if not isinstance(client, str) or not _CLIENT.fullmatch(client):
            raise InputError(
                f"client {str(client)[:120]!r}: a name is 1 to 100 letters, digits, '.', '_' and "
                "'-', the first of them a letter or a digit"
            )
        return self.folder / client

    def _versions(self, home: Path) -> dict[int, Path]:
        """Whole versions by round, in order."""
        found = {}
        for path in home.iterdir() if home.is_dir() else ():
            match = _VERSION.fullmatch(path.name)
            if match:
                found[int(match[1])] = path
        return dict(sorted(found.items()))

    def _first(self, client: str, path: Path, round: int) -> int:  # noqa: A002
        return self._read(client, path, round)[1]

    def _read(self, client: str, path: Path, round: int) -> tuple[dict[str, Tensor], int]:  # noqa: A002
        remedy = (
            f"restore {path} from a copy, or remove {path.parent} to let the client start anew, "
            "with other results"
        )
        try:
            found = load_checkpoint(path)
        except CheckpointError as error:
            cause = str(error).partition("; remove")[0]
            raise LocalStateError(f"{cause}; {remedy}") from error
        except SafetensorError as error:
            raise LocalStateError(f"{path}: no safetensors file ({error}); {remedy}") from error
        if found is None:
            raise LocalStateError(f"{path}: state.json is missing; {remedy}")
        tensors, about = found
        first = about.get("first")
        whose = (about.get("client"), about.get("round"))
        if whose != (client, round) or type(first) is not int or first > round:
            raise LocalStateError(
                f"{path}: holds the state of client {whose[0]!r} of round {whose[1]!r}, not of "
                f"{client!r} of round {round}; {remedy}"
            )
        if about.get("made_of") != self.made_of:
            raise LocalStateError(f"{path}: is of a run of another spec or other data; {remedy}")
        return tensors, first


def _check_round(round: int) -> None:  # noqa: A002
    if isinstance(round, bool) or not isinstance(round, int) or round < 1:
        raise InputError(f"rounds are counted from 1, got {round!r}")
