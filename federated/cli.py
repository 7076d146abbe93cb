"""The ``federated`` command."""

import importlib.util
import shutil
from pathlib import Path

import tyro

from data_tools.command_line import run
from data_tools.errors import InputError
from federated.engines import Engine
from seqnorm.runs.command import Overrides, flat, run_attended, say

DESCRIPTION = """Federated training of genomic models, with a policy for every normalization tensor.

Examples:
  federated simulate examples/federated_ctcf.toml
  federated simulate examples/federated_ctcf.toml --override training.rounds=2 norms='["batch"]'
  federated study examples/federated_study.toml
  federated report runs/federated_ctcf
  federated share examples/federated_ctcf.toml --out sites
  federated manifest examples/federated_ctcf.toml --norm batch --policy fedbn
  federated policies
"""


def simulate(
    spec: tyro.conf.Positional[Path],
    out: Path | None = None,
    resume: bool = False,
    override: Overrides = (),
    workers: int | None = None,
    engine: Engine = "in-process",
) -> None:
    """Train norms under policies across clients on this machine, write tables and a report.

    Example: federated simulate examples/federated_ctcf.toml --out runs/first

    Ctrl-C stops the run; --resume goes on with it and gives the same bits.

    Args:
        spec: TOML file that describes the experiment.
        out: Folder of the run; runs/<name of the spec> unless given.
        resume: Go on with a run that was stopped; begins one where there is none.
        override: key=value pairs that replace keys of the spec, as training.rounds=3.
        workers: Processes; one a core unless given. The tables do not depend on it.
        engine: Where clients run: one after the other in the process of their federation, of which
            there are several at a time; in workers or Ray actors, a federation at a time; or
            vectorized, trained together, for many clients of a small model.
    """
    _run(spec, out, resume, override, workers, engine, study=False)


def study(
    spec: tyro.conf.Positional[Path],
    out: Path | None = None,
    resume: bool = False,
    override: Overrides = (),
    workers: int | None = None,
    engine: Engine = "in-process",
) -> None:
    """Run norms and policies under every skew and participation of the spec's study.

    Example: federated study examples/federated_study.toml --out runs/study

    A model of all rows, and one of each client's own, are trained for comparison. Ctrl-C stops
    the run; --resume goes on with it and gives the same bits.

    Args:
        spec: TOML file that describes the experiment, with a table 'study'.
        out: Folder of the run; runs/<name of the spec> unless given.
        resume: Go on with a run that was stopped; begins one where there is none.
        override: key=value pairs that replace keys of the spec, as training.rounds=3.
        workers: Processes; one a core unless given. The tables do not depend on it.
        engine: Where clients run: one after the other in the process of their federation, of which
            there are several at a time; in workers or Ray actors, a federation at a time; or
            vectorized, trained together, for many clients of a small model.
    """
    _run(spec, out, resume, override, workers, engine, study=True)


def _run(
    spec: Path,
    out: Path | None,
    resume: bool,
    override: tuple[tuple[str, ...], ...],
    workers: int | None,
    engine: Engine,
    *,
    study: bool,
) -> None:
    from federated.spec import load_spec

    overrides = flat(override)
    loaded = load_spec(spec, overrides)
    _need_flower()
    from federated.report import write_report
    from federated.simulate import simulate as run_spec

    folder = Path("runs") / loaded.name if out is None else out
    found = run_attended(
        ["federated", "study" if study else "simulate"],
        spec,
        loaded.question,
        folder,
        overrides,
        workers,
        lambda count: run_spec(
            loaded, folder, study=study, resume=resume, workers=count, engine=engine, say=say
        ),
        [] if engine == "in-process" else ["--engine", engine],
    )
    for _, cell, outcome in found:
        if outcome.stopped:
            say(f"stopped early: {cell.id}: {outcome.stopped}")
    say(f"\ntables: {folder}/*.csv\nreport: {write_report(folder)}")


def share(spec: tyro.conf.Positional[Path], out: Path) -> None:
    """Draw a spec's rows and write a folder for each site, with its own rows alone.

    Example: federated share examples/federated_ctcf.toml --out sites

    The folder 'server' has no client's rows; give each SuperNode its own as node config 'folder'.

    Args:
        spec: TOML file that describes the experiment.
        out: Folder in which the sites' folders are made.
    """
    from federated.spec import load_spec
    from federated.tasks import prepare_task
    from federated.tasks.task import UNSEEN

    loaded = load_spec(spec)
    if out.exists():
        raise InputError(f"{out}: is there already; give another --out")
    (out / "all" / "data").mkdir(parents=True)
    task = prepare_task(loaded, out / "all")
    for client in task.clients:
        task.share(out / client, client)
    task.share(out / "server", UNSEEN)
    shutil.rmtree(out / "all")
    say(f"{out}: server, {', '.join(task.clients)}")


def report(folder: tyro.conf.Positional[Path]) -> None:
    """Draw report.html of a run again from its tables.

    Example: federated report runs/federated_ctcf

    Args:
        folder: Folder of a run.
    """
    from federated.report import write_report

    say(f"report: {write_report(folder)}")


def manifest(
    spec: tyro.conf.Positional[Path],
    norm: str | None = None,
    policy: str | None = None,
) -> None:
    """Print what becomes of every tensor of the spec's models.

    Example: federated manifest examples/federated_ctcf.toml --norm batch --policy fedbn

    Args:
        spec: TOML file that describes the experiment; its data files need not be there.
        norm: One of the spec's norms; all unless given.
        policy: One of the spec's policies; all unless given.
    """
    from federated.policy import parse_policy
    from federated.spec import load_spec
    from federated.spec_check import models_of

    loaded = load_spec(spec, runnable=False)
    for name, known, given in (("norm", loaded.norms, norm), ("policy", loaded.policies, policy)):
        if given is not None and given not in known:
            raise InputError(f"the spec has no {name} {given!r}; it has {', '.join(known)}")
    for one, model in models_of(loaded):
        for rule in loaded.policies:
            if norm in (None, one) and policy in (None, rule):
                say(f"norm {one}, {parse_policy(rule).manifest(model)}\n")


def policies() -> None:
    """List the policies for normalization tensors that a spec takes.

    Example: federated policies
    """
    from federated.policy import POLICY_HELP

    for name, text in POLICY_HELP.items():
        say(f"{name:<14} {text}")


def strategies() -> None:
    """List the strategies of the server that a spec takes.

    Example: federated strategies
    """
    from federated.strategies import STRATEGY_HELP

    for name, text in STRATEGY_HELP.items():
        say(f"{name:<14} {text}")


def _need_flower() -> None:
    if importlib.util.find_spec("flwr") is None:
        raise InputError("Flower is not installed; run: pip install 'seqnorm[federated]'")


def main() -> None:
    """Entry point."""
    run("federated", DESCRIPTION, (simulate, study, share, report, manifest, policies, strategies))
