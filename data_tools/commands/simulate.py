"""``data-tools simulate``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from data_tools.commands.output import fasta_record, note, write_text
from data_tools.commands.progress import shown
from data_tools.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from data_tools.simulation import Task, World


def simulate(
    motif: tyro.conf.Positional[Path],
    out: Path,
    gc: tuple[float, ...] = (0.36, 0.40, 0.44, 0.48, 0.52),
    length: int = 1_000_000,
    spread: float = 0.05,
    isochore: int = 20_000,
    cpg: float = 0.25,
    width: int = 200,
    spacing: int = 400,
    strength: float = 1.0,
    reach: int | None = None,
    forward: float = 0.5,
    prevalence: float = 0.5,
    confounding: float = 0.0,
    decoys: float = 0.0,
    background: Path | None = None,
    windows: Path | None = None,
    flank: int = 1000,
    seed: int = 0,
) -> None:
    """Simulate a genome with planted motifs, whose truth and best possible score are known.

    Example: data-tools simulate MA0139.jaspar --out world --gc 0.38 0.5 --confounding 0.5

    Writes genome.fa, windows.tsv (labels, what was planted, the best score), sites.bed and
    truth.toml into a folder; truth.toml comes last and is there only when all is. With
    --background and --windows the motif is planted in windows of a real genome instead, and
    windows.fa is written; the score then rests on an estimate of the background.

    Args:
        motif: File with one JASPAR matrix.
        out: Folder to write; made where it is not there.
        gc: Mean GC fraction of each chromosome; as many chromosomes as numbers.
        length: Bases of each chromosome.
        spread: Standard deviation of GC between the isochores of a chromosome.
        isochore: Bases of an isochore.
        cpg: CpG observed over expected.
        width: Bases of a window.
        spacing: Bases from one window's start to the next's.
        strength: Power of the matrix: 1 as it is, below weaker, above sharper.
        reach: Bases that a site's centre lies at most from its window's; anywhere unless given.
        forward: Share of sites on the forward strand.
        prevalence: Share of windows with a site.
        confounding: How far labels follow GC: 0 not at all, 1 wholly.
        decoys: Share of the windows without a site that hold one with its columns shuffled.
        background: FASTA or 2bit file of a real genome.
        windows: BED file of background windows in it, all of one width.
        flank: Bases beside each of these from which its background is estimated.
        seed: Of everything.
    """
    from data_tools.motifs import read_motif
    from data_tools.simulation import World

    if (background is None) != (windows is None):
        raise InputError("give --background and --windows together, or neither")
    source = read_motif(motif)
    task = _task(source, strength, reach, forward, prevalence, confounding, decoys, seed)
    tables: list[pd.DataFrame] = []
    truth: dict[str, Any] = {"motif": source.name, "strength": strength, "seed": seed}
    if background is not None and windows is not None:
        records = _real(background, windows, task, flank, seed, tables)
        truth |= {"background": str(background), "windows": str(windows), "flank": flank}
    else:
        names = [f"chr{number}" for number in range(1, len(gc) + 1)]
        lengths = dict.fromkeys(names, length)
        shape = (spread, isochore, cpg, width, spacing, seed)
        world = World(lengths, dict(zip(names, gc, strict=True)), task, *shape)
        records = _simulated(world, tables)
        truth |= {"lengths": lengths, "gc": world.gc, "spread": spread, "isochore": isochore}
        truth |= {"cpg": cpg, "width": width, "spacing": spacing}
    _folder(out)
    write_text(records, out / ("genome.fa" if background is None else "windows.fa"))
    _tables(tables, task.site.frequencies.shape[1], out)
    write_text([_toml(truth | _task_truth(task))], out / "truth.toml")
    labels = sum(int(table["label"].sum()) for table in tables)
    note(f"{sum(map(len, tables)):,} windows, {labels:,} of them with a site, in {out}")


def _task(
    motif: Any,
    strength: float,
    reach: int | None,
    forward: float,
    prevalence: float,
    confounding: float,
    decoys: float,
    seed: int,
) -> "Task":
    import numpy as np

    from data_tools.simulation import Task, decoy_of, site_of

    if seed < 0:
        raise InputError(f"the seed must be 0 or more, not {seed}")
    site = site_of(motif, strength, reach, forward)
    decoy = decoy_of(site, np.random.default_rng(seed)) if decoys else None
    return Task(site, prevalence, confounding, decoy, decoys)


def _simulated(world: "World", tables: "list[pd.DataFrame]") -> Iterator[str]:
    """FASTA records of the chromosomes; their windows are put into tables on the way."""
    from data_tools.encode import decode
    from data_tools.simulation import simulate_chromosome

    for name in shown(list(world.lengths), "simulating"):
        found = simulate_chromosome(world, name)
        tables.append(found.windows)
        yield fasta_record(name, decode(found.codes))


def _real(
    background: Path,
    windows: Path,
    task: "Task",
    flank: int,
    seed: int,
    tables: "list[pd.DataFrame]",
) -> Iterator[str]:
    from data_tools.encode import decode
    from data_tools.genome import Genome
    from data_tools.intervals import read_intervals
    from data_tools.simulation import plant_in_genome

    with Genome(background) as genome:
        places = read_intervals(windows, genome)
        codes, table = plant_in_genome(genome, places, task, flank=flank, seed=seed)
    tables.append(table)
    for row, place in zip(codes, table.itertuples(), strict=True):
        yield fasta_record(f"{place.chrom}:{place.start}-{place.end}", decode(row))


def _folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Else an old truth would stand beside new data after a crash.
        (out / "truth.toml").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error


def _tables(tables: "list[pd.DataFrame]", size: int, out: Path) -> None:
    """Write the windows, and the sites and decoys as BED6."""
    import pandas as pd

    table = pd.concat(tables)
    write_text([table.to_csv(sep="\t", index=False, float_format="%.9g")], out / "windows.tsv")
    sites = table[table["planted_start"] >= 0]
    bed = pd.DataFrame(
        {
            "chrom": sites["chrom"],
            "start": sites["planted_start"],
            "end": sites["planted_start"] + size,
            "name": sites["planted"],
            "score": 0,
            "strand": sites["planted_strand"],
        }
    )
    write_text([bed.to_csv(sep="\t", index=False, header=False)], out / "sites.bed")


def _task_truth(task: "Task") -> dict[str, Any]:
    """What was planted, in numbers."""
    truth: dict[str, Any] = {
        "prevalence": task.prevalence,
        "confounding": task.confounding,
        "decoys": task.decoys,
        "forward": task.site.forward,
        "site": task.site.frequencies.tolist(),
    }
    if task.site.reach is not None:
        truth["reach"] = task.site.reach
    if task.decoy is not None:
        truth["decoy"] = task.decoy.frequencies.tolist()
    return truth


def _toml(values: dict[str, Any]) -> str:
    """TOML of numbers, text, lists and tables of numbers; these are written alike in JSON."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict)}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in plain.items())
    for key, table in values.items():
        if isinstance(table, dict):
            text += f"\n[{key}]\n"
            text += "".join(f"{json.dumps(name)} = {json.dumps(v)}\n" for name, v in table.items())
    return text
