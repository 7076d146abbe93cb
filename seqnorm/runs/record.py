"""The run folder: one run at a time, what it was made of, and where it stands."""

import fcntl
import hashlib
import json
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import seqnorm
from data_tools.atomic import remove_unfinished, write_atomic
from data_tools.errors import InputError

LIBRARIES = ("torch", "numpy", "scipy", "pandas", "scikit-learn", "biopython", "safetensors")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder; the operating system lets go of it when the process ends, however.

    Raises
    ------
    InputError
        When another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{folder}: another run is using this folder; wait for it or give another --out"
            ) from error
        yield


class Record:
    """``run.json`` and ``spec.toml`` of a run folder."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder = folder
        self.content = content
        self._began: float | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        name: str,
        spec: str,
        files: Mapping[str, str],
        *,
        parts: str,
        resume: bool,
    ) -> "Record":
        """Begin a run, or take one up again.

        Parameters
        ----------
        folder : path
            Of the run.
        name : str
            Of the experiment.
        spec : str
            As TOML.
        files : mapping of str to str
            The files that the spec names, by their keys.
        parts : str
            Folder in the run's that holds something as soon as there is something to lose.
        resume : bool
            Whether a run that was begun may be gone on with.

        Raises
        ------
        InputError
            When the folder holds a run and ``resume`` was not asked for, or when the spec or the
            data files are not those that the run began with.
        """
        path = folder / "run.json"
        data = {key: _checksum(Path(file)) for key, file in files.items()}
        begun = any((folder / parts).glob("*"))
        if begun and not path.exists():
            raise InputError(
                f"{folder}: holds {parts} without the run.json that says what they were made of; "
                "remove the folder or give another --out"
            )
        if not begun:
            # Where no trial was begun there is nothing to lose: a run that ended at a mistake in
            # its spec is simply begun again.
            if path.exists():
                remove_unfinished(folder.rglob(".*"))
            write_atomic(folder / "spec.toml", spec)
            content = {"name": name, "data_sha256": data, "sessions": [], "status": "new"}
            return cls(folder, content)
        if not resume:
            raise InputError(
                f"{folder}: holds a run already; add --resume to go on with it, or --out for "
                "another folder"
            )
        try:
            content = json.loads(path.read_text())
            before = (folder / "spec.toml").read_text()
            data_before, sessions = content["data_sha256"], content["sessions"]
            if not (isinstance(data_before, dict) and isinstance(sessions, list)):
                raise TypeError("it is no record of a run")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: cannot be read ({error}); give another --out") from error
        _refuse_changes(folder, before, spec, data_before, data)
        if content.get("status") == "running":
            _time_killed(folder, sessions)
        remove_unfinished(folder.rglob(".*"))
        return cls(folder, content)

    def begin(self, workers: int, threads: int, libraries: Sequence[str] = ()) -> None:
        """Note the start of a session: a run that was resumed has several.

        Parameters
        ----------
        workers, threads : int
            Processes, and torch threads of each.
        libraries : sequence of str
            Distributions whose versions matter beside `LIBRARIES`.
        """
        self._began = time.perf_counter()
        self.content["sessions"].append(
            {
                "started": _now(),
                "workers": workers,
                "threads_per_worker": threads,
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "platform": f"{platform.system()} {platform.machine()}",
                # Other vector instructions sum in another order, which gives other bits.
                "instructions": torch.backends.cpu.get_cpu_capability(),
                "seqnorm": seqnorm.__version__,
                "git_revision": _git_revision(),
                "libraries": {name: metadata.version(name) for name in (*LIBRARIES, *libraries)},
            }
        )
        self.save("running")

    def check_windows(self, digest: str) -> None:
        """Note the checksum of the windows, or compare it with that of the earlier session.

        Raises
        ------
        InputError
            When this version of the program draws other windows than the run began with.
        """
        if self.content.setdefault("windows_sha256", digest) != digest:
            raise InputError(
                f"{self.folder}: the windows drawn now are not those that this run began with "
                "(another version of seqnorm?); give another --out"
            )

    def save(self, status: str, **more: Any) -> None:
        """Write ``run.json`` with a new status."""
        self.content |= more
        self.content["status"] = status
        if self.content["sessions"]:
            session = self.content["sessions"][-1]
            if self._began is not None:
                session["seconds"] = round(time.perf_counter() - self._began, 1)
            own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            session |= {
                "updated": _now(),
                "peak_memory_mb_main": own // 1024,
                "peak_memory_mb_largest_worker": child // 1024,
            }
        write_atomic(self.folder / "run.json", json.dumps(self.content, indent=1))


def _refuse_changes(
    folder: Path, before: str, now: str, data_before: dict[str, str], data_now: dict[str, str]
) -> None:
    if before != now:
        old, new = before.splitlines(), now.splitlines()
        changed = [line for line in new if line not in old] or [x for x in old if x not in new]
        raise InputError(
            f"{folder}: this run began with another spec (now: {changed[0] if changed else '?'}); "
            "resume with the same spec and overrides, or give another --out"
        )
    for key, checksum in data_now.items():
        if data_before.get(key) != checksum:
            raise InputError(
                f"{folder}: the file of {key} has changed since the run began; "
                "restore it or give another --out"
            )


def _time_killed(folder: Path, sessions: list[dict[str, Any]]) -> None:
    """Give a session that was killed the seconds until the last thing that it wrote."""
    if not sessions:
        return
    last = max(path.stat().st_mtime for path in folder.rglob("*"))
    began = datetime.fromisoformat(sessions[-1]["started"]).timestamp()
    sessions[-1]["seconds"] = round(max(last - began, sessions[-1].get("seconds", 0.0)), 1)


def _checksum(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_revision() -> str | None:
    """Revision of the checkout that the code comes from; None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        # The arguments are fixed and no shell is involved.
        found = subprocess.run(  # noqa: S603
            [*command, "--abbrev=40", "--exclude=*"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
