"""The command as a user runs it: a process of its own, its output, its errors, its exit code."""

import csv
import gzip
import io
import json
import os
import pkgutil
import pty
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import data_tools
from data_tools.encode import encode, gc_fraction
from data_tools.genome import Genome
from data_tools.intervals import read_intervals

DEMO = Path(__file__).parents[2] / "examples" / "data" / "human_demo"
GENOME, PEAKS, EXCLUDE = (
    str(DEMO / name) for name in ("human7.fa.gz", "ctcf_k562.narrowPeak", "exclude.bed")
)
SCRIPT = Path(sys.executable).with_name("data-tools")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return os.environ | {"SEQNORM_CACHE": str(cache), "PYTHONWARNINGS": "error", "COLUMNS": "80"}


@pytest.fixture(scope="module")
def call(environment):
    def run(*arguments, cwd=None):
        return subprocess.run(
            [SCRIPT, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a small genome and peak files, right and wrong ones."""
    folder = tmp_path_factory.mktemp("small")
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 2000))
    (folder / "g.fa").write_text(f">chr1\n{letters}\n>chr2\nGGGGGNNNNNAAAAAcccca\n>chr3\nNN\n")
    (folder / "p.bed").write_text("chr1\t5\t15\nchr1\t500\t520\nchr1\t900\t930\n")
    (folder / "bad.bed").write_text("chr1\t5\t15\nchr1\t9\tnine\n")
    (folder / "foreign.bed").write_text("chr1\t5\t15\nchr9\t1\t2\n")
    (folder / "bad.fa").write_text(">chr1\nACGT\nAC-T\n")
    return folder


def outcome(finished):
    """Exit code and lines on stderr of a run that wrote nothing to stdout."""
    assert finished.stdout == ""
    return finished.returncode, finished.stderr.splitlines()


def python(code, environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    ).stdout.split()


# --- help and imports ------------------------------------------------------------------------


def test_help_names_each_command_with_an_example(call):
    shown = call("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    for command in ("windows", "gc", "check"):
        assert f"• {command} " in shown.stdout
        assert f"\n  data-tools {command} " in shown.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "windows",
            [
                "--background {random,gc_matched,flank,dinucleotide_matched}",
                "--seed INT",
                "0-based, half-open",
            ],
        ),
        ("gc", ["PATH", "--out", "bgzip"]),
        ("check", ["PATH", "--genome", "narrowPeak"]),
    ],
)
def test_the_help_of_a_command_has_an_example_and_its_arguments(call, command, words):
    shown = call(command, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"Example: data-tools {command} " in shown.stdout
    assert all(word in shown.stdout for word in words)


def test_help_loads_neither_torch_nor_pandas_nor_biopython(environment):
    code = (
        "import sys\n"
        "sys.argv = ['data-tools', '--help']\n"
        "from data_tools.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    print('LOADED', *sys.modules)\n"
    )
    words = python(code, environment)
    loaded = set(words[words.index("LOADED") + 1 :])
    assert "tyro" in loaded
    assert not loaded & {"torch", "pandas", "Bio", "scipy", "sklearn"}


def test_no_part_of_data_tools_loads_torch(environment):
    found = pkgutil.walk_packages(data_tools.__path__, "data_tools.")
    # The compiled loops look like a module and are none.
    names = [module.name for module in found if not module.name.endswith("._kernels")]
    assert {"data_tools.cli", "data_tools.negatives", "data_tools.motifs"} <= set(names)
    code = f"import sys, {', '.join(names)}\nprint(*sys.modules)"
    loaded = set(python(code, environment))
    assert set(names) <= loaded
    assert not loaded & {"torch", "seqnorm", "federated"}


@pytest.mark.parametrize(
    "first", ["", "import data_tools.windows", "from data_tools import Genome"]
)
def test_every_public_name_is_the_object_whatever_was_loaded_before(environment, first):
    code = f"{first}\nimport data_tools\nfrom data_tools import *\n" + (
        "print(*[f'{name}:{type(globals()[name]).__name__}' for name in data_tools.__all__])"
    )
    kinds = dict(word.split(":") for word in python(code, environment))
    classes = {name for name, kind in kinds.items() if kind == "type"}
    assert classes == {name for name in kinds if name[0].isupper()}
    assert {"Genome", "InputError", "Motif"} <= classes
    assert {kind for name, kind in kinds.items() if name not in classes} == {"function"}


def test_public_names_are_listed_and_others_are_an_attribute_error():
    assert set(data_tools.__all__) <= set(dir(data_tools))
    assert data_tools.__all__ == sorted(data_tools.__all__)
    assert data_tools.window_gc is import_module("data_tools.windows").window_gc
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = data_tools.nothing


# --- windows ---------------------------------------------------------------------------------


def test_windows_of_the_demo_stand_on_the_summits_and_clear_of_what_is_excluded(call, tmp_path):
    out = tmp_path / "w.csv"
    arguments = ["windows", GENOME, PEAKS, "--width", 250, "--chroms", "chr3", "chr19"]
    arguments += ["--background", "gc_matched", "--per-positive", 2, "--exclude", EXCLUDE]
    finished = call(*arguments, "--out", out)
    code, note = outcome(finished)
    table = pd.read_csv(out)
    found, background = table[table["label"] == 1], table[table["label"] == 0]
    assert code == 0
    assert list(table.columns) == ["chrom", "start", "end", "label", "gc"]
    lost = 233 - len(found)
    assert note[0] == (
        f"{len(found)} peaks, {len(background)} background windows; "
        f"{466 - len(background)} background windows missing"
    )
    assert note[1:] == [f"peaks: dropped, without a match: {lost}"] * (lost > 0)
    assert len(background) == 2 * len(found)
    assert len(found) > 220
    peaks = read_intervals(PEAKS)
    peaks = peaks[peaks["chrom"].isin(["chr3", "chr19"])]
    summit_starts = set(zip(peaks["chrom"], peaks["summit"] - 125, strict=True))
    assert set(zip(found["chrom"], found["start"], strict=True)) <= summit_starts
    taken = pd.concat([peaks, read_intervals(EXCLUDE)])
    for row in background.itertuples():
        near = taken[(taken["chrom"] == row.chrom) & (taken["start"] < row.end)]
        assert not (near["end"] > row.start).any()
    with Genome(GENOME, cache_dir=tmp_path) as genome:
        gc = [
            float(gc_fraction(encode(genome.fetch(row.chrom, row.start, row.end))))
            for row in table.itertuples()
        ]
    np.testing.assert_allclose(table["gc"], gc, atol=1e-6)
    assert not list(tmp_path.glob(".w.csv*"))


def test_windows_of_a_small_genome_go_to_stdout_and_the_counts_to_stderr(call, small):
    finished = call("windows", "g.fa", "p.bed", "--width", 40, "--seed", 3, cwd=small)
    rows = list(csv.DictReader(io.StringIO(finished.stdout)))
    assert finished.returncode == 0
    assert finished.stderr == (
        "2 peaks, 2 background windows; 0 background windows missing\n"
        "windows: dropped, past the end of the chromosome: 1\n"
    )
    assert [(row["start"], row["end"]) for row in rows[:2]] == [("490", "530"), ("895", "935")]
    assert [row["label"] for row in rows] == ["1", "1", "0", "0"]
    again = call("windows", "g.fa", "p.bed", "--width", 40, "--seed", 3, cwd=small)
    assert again.stdout == finished.stdout


# --- gc --------------------------------------------------------------------------------------


def test_gc_of_the_demo_is_what_counting_its_letters_or_the_publication_gives(call):
    finished = call("gc", GENOME)
    assert (finished.returncode, finished.stderr) == (0, "")
    expected = {}
    with gzip.open(GENOME) as handle:
        first_five = handle.read(20_000_000).split(b">")[1:6]
    for record in first_five:
        header, _, letters = record.partition(b"\n")
        letters = letters.upper().translate(None, b"\n")
        a, c, g, t = (letters.count(base) for base in (b"A", b"C", b"G", b"T"))
        known, length = a + c + g + t, len(letters)
        row = {"length": length, "gc": (g + c) / known, "ambiguous": length - known}
        expected[header.split()[0].decode()] = row
    found = pd.read_csv(io.StringIO(finished.stdout)).set_index("chrom")
    counted = pd.DataFrame(expected).T
    assert list(found.index) == [*counted.index, "chr21", "chr22"]
    pd.testing.assert_frame_equal(
        found.loc[counted.index], counted, check_names=False, check_dtype=False, rtol=2e-6
    )
    published = [[48_129_895, 0.408], [50_818_468, 0.470]]
    assert found.loc[["chr21", "chr22"], ["length", "gc"]].round(3).to_numpy().tolist() == published


def test_gc_counts_known_bases_only_and_leaves_the_field_empty_where_there_are_none(call, small):
    shown = call("gc", "g.fa", cwd=small).stdout.splitlines()
    assert shown[0] == "chrom,length,gc,ambiguous"
    assert shown[2:] == ["chr2,20,0.6,5", "chr3,2,,2"]


# --- check -----------------------------------------------------------------------------------


def test_check_counts_what_the_demo_files_hold(call):
    intervals = call("check", PEAKS, "--genome", GENOME)
    assert intervals.stdout == (
        f"{PEAKS}: good, 2,434 intervals on 7 chromosomes, 2,434 with a summit\n"
    )
    bases = call("check", GENOME)
    assert bases.stdout == f"{GENOME}: good, 7 records, 117,203,410 bases\n"
    assert [f.returncode for f in (intervals, bases)] == [0, 0]
    assert [f.stderr for f in (intervals, bases)] == ["", ""]


def test_check_tells_fasta_by_its_name_in_either_case(call, small):
    (small / "G.FASTA").write_bytes((small / "g.fa").read_bytes())
    assert call("check", "G.FASTA", cwd=small).stdout == "G.FASTA: good, 3 records, 2,022 bases\n"


def test_check_tells_every_fault_of_several_files_and_ends_with_2_if_any_has_one(call, small):
    (small / "many.bed").write_text("chr1\t5\t15\nchr1\t9\t5\nchr1\tx\t5\nchr9\t1\t2\nchr1\n")
    finished = call("check", "many.bed", "p.bed", "--genome", "g.fa", "--limit", 3, cwd=small)
    assert finished.returncode == 2
    assert finished.stdout == "p.bed: good, 3 intervals on 1 chromosomes\n"
    lines = finished.stderr.splitlines()
    places = [line.removeprefix("data-tools: error: ").split(": ")[0] for line in lines]
    assert places == ["many.bed:2", "many.bed:3", "many.bed:5", "many.bed"]
    assert lines[3].endswith(": 1 further faults")


def test_check_tells_formats_by_content_and_goes_on_after_a_file_that_is_not_there(call, small):
    head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (small / "v.txt").write_text(head + "chr2\t6\t.\tN\tT\t.\t.\t.\n")
    (small / "s.csv").write_text("name,sequence\na,ACGT\n")
    finished = call("check", "none.bed", "v.txt", "s.csv", "--genome", "g.fa", cwd=small)
    assert finished.returncode == 2
    assert finished.stdout.splitlines() == [
        "v.txt: good, 1 alleles on 1 chromosomes",
        "s.csv: good, 1 sequences, 4 bases",
    ]
    assert finished.stderr == "data-tools: error: none.bed: no such file: check the path\n"


def test_check_shows_a_bar_to_a_person_alone_and_leaves_its_results_to_the_pipe(environment, small):
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [SCRIPT, "check", "p.bed", "bad.bed"],
        cwd=small,
        env=environment | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    seen = b""
    with suppress(OSError):  # What Linux says once nobody can write any more.
        while part := os.read(master, 1024):
            seen += part
    os.close(master)
    assert process.communicate()[0] == b"p.bed: good, 3 intervals on 1 chromosomes\n"
    assert process.returncode == 2
    assert b"checking" in seen
    assert b"bad.bed:2: end is not an integer" in seen


# --- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("windows g.fa p.bed --chroms chr4", ["unknown chromosome 'chr4'", "did you mean 'chr"]),
        ("windows g.fa p.bed --chroms chr1 chr1", ["'chr1' is given twice"]),
        ("windows none.fa p.bed", ["none.fa: ", "no such file"]),
        ("windows g.fa none.bed", ["none.bed: no such file"]),
        ("windows g.fa p.bed --exclude none.bed", ["none.bed: no such file"]),
        ("windows g.fa bad.bed", ["bad.bed:2: end is not an integer", "'nine'"]),
        ("windows g.fa foreign.bed", ["foreign.bed:2: unknown chromosome 'chr9'"]),
        ("windows g.fa p.bed --background gc", ["'gc'", "random", "gc_matched", "flank"]),
        ("windows g.fa p.bed --width wide", ["--width", "'wide'"]),
        ("windows g.fa p.bed --width 0", ["at least 1 base wide, not 0"]),
        ("windows g.fa p.bed --width 3000", ["p.bed: no peak with room", "less than 3000"]),
        ("windows g.fa p.bed --chroms chr2", ["p.bed: no peak on chr2", "other chromosomes"]),
        ("windows g.fa p.bed --width 9 --seed -1", ["seed must be 0 or more, not -1"]),
        ("windows g.fa p.bed --width 9 --per-positive 0", ["at least 1, not 0"]),
        ("windows g.fa p.bed --width 9 --out no/w.csv", ["no/w.csv: cannot be written"]),
        ("windows g.fa p.bed --width 9 --out .", ["cannot be written"]),
        ("windows g.fa p.bed --widht 9", ["--widht", "--width"]),
        ("windows g.fa", ["Missing", "narrowPeak or broadPeak file"]),
        ("gc bad.fa", ["bad.fa", "'-'"]),
        ("check bad.bed", ["bad.bed:2:"]),
        ("chekc p.bed", ["chekc", "windows, negatives, split"]),
        ("", ["windows, negatives, split"]),
    ],
)
def test_a_mistake_is_one_line_on_stderr_with_exit_code_2_and_no_output(
    call, small, arguments, words
):
    code, lines = outcome(call(*arguments.split(), cwd=small))
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("data-tools: error: ")
    assert all(word in lines[0] for word in words), lines[0]
    assert sorted(path.name for path in small.glob(".*")) == []


def test_a_reader_that_closes_the_pipe_early_is_no_error(environment, small):
    writer = subprocess.Popen(
        [SCRIPT, "check", "p.bed"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=small,
        env=environment,
    )
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait() == 0


# --- negatives and split --------------------------------------------------------------------


@pytest.fixture(scope="module")
def positives(call, tmp_path_factory):
    path = tmp_path_factory.mktemp("windows") / "windows.csv"
    done = call(
        "windows", GENOME, PEAKS, "--width", 200, "--chroms", "chr3", "chr19", "--out", path
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("kind", ["gc_matched", "dinucleotide_matched"])
def test_negatives_are_matched_within_the_chromosome_and_the_report_says_how_well(
    call, positives, tmp_path, kind
):
    done = call(
        "negatives", GENOME, positives, "--kind", kind, "--per-positive", 2, "--exclude", EXCLUDE,
        "--out", tmp_path / "out.csv", "--report", tmp_path / "report.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table, report = pd.read_csv(tmp_path / "out.csv"), pd.read_csv(tmp_path / "report.csv")
    counts = table.groupby(["chrom", "label"]).size()
    assert (counts.xs(0, level="label") == 2 * counts.xs(1, level="label")).all()
    assert report["chrom"].tolist() == ["chr19", "chr3", "all"]
    assert (report["gc_auroc"] - 0.5).abs().max() < 0.01
    assert f"{(table['label'] == 1).sum()} positives, {(table['label'] == 0).sum()}" in done.stderr
    assert "GC alone: AUROC 0." in done.stderr


def test_negatives_from_a_pool_lie_around_its_peaks(call, positives, tmp_path):
    pool = tmp_path / "open.bed"
    pool.write_text("".join(f"chr19\t{s}\t{s + 300}\n" for s in range(400_000, 900_000, 5000)))
    done = call(
        "negatives", GENOME, positives, "--kind", "random", "--pool", pool,
        "--out", tmp_path / "out.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    drawn = table[table["label"] == 0]
    assert len(drawn) > 20
    assert ((drawn["start"] - 50) % 5000 == 0).all()


def test_a_split_gives_each_window_one_part_and_leaves_near_duplicates_out(call, tmp_path):
    rng = np.random.default_rng(0)
    letters = ["".join(rng.choice(list("ACGT"), 3000)) for _ in range(4)]
    # What chr1 starts with stands, reversed, in chr3 too.
    copy = letters[0][:500].translate(str.maketrans("ACGT", "TGCA"))[::-1]
    letters[2] = letters[2][:1000] + copy + letters[2][1500:]
    fasta = tmp_path / "four.fa"
    fasta.write_text("".join(f">chr{i + 1}\n{text}\n" for i, text in enumerate(letters)))
    windows = tmp_path / "windows.csv"
    starts = range(0, 3000, 500)
    rows = [f"chr{i},{s},{s + 500},1\n" for i in range(1, 5) for s in starts]
    windows.write_text("chrom,start,end,label\n" + "".join(rows))
    done = call(
        "split", fasta, "--out", tmp_path / "folds", "--scheme", "leave_one_out",
        "--windows", windows,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lost = 0
    for i in range(4):
        fold = json.loads((tmp_path / "folds" / f"fold_{i}.json").read_text())
        table = pd.read_csv(tmp_path / "folds" / f"fold_{i}.csv")
        for part, chroms in fold.items():
            assert set(table.loc[table["part"] == part, "chrom"]) <= set(chroms)
        lost += 24 - len(table)
        pair = {("chr1", 0), ("chr3", 1000)}
        kept = set(zip(table["chrom"], table["start"], strict=True)) & pair
        parts = {next(p for p, names in fold.items() if c in names) for c, _ in pair}
        assert len(kept) == (2 if len(parts) == 1 else 1)
    assert lost == sum("1 near-duplicates of" in line for line in done.stderr.splitlines()) > 0


def test_a_gc_stress_split_and_a_fold_file_of_ones_own(call, tmp_path):
    done = call("split", GENOME, "--out", tmp_path / "stress", "--scheme", "gc_stress")
    assert done.returncode == 0, done.stderr
    fold = json.loads((tmp_path / "stress" / "fold_0.json").read_text())
    assert "chr19" in fold["test"]
    assert "chr4" not in fold["test"]
    done = call("split", GENOME, "--out", tmp_path / "own", "--fold", tmp_path / "none.json")
    assert done.returncode == 2
    assert "no such file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--scheme", "k_fold", "--k", 2], "k is at least 3"),
        (["--chroms", "chr99"], "unknown chromosome 'chr99'"),
        (["--windows", "peaks.bed"], "a table of windows is a .csv or .tsv file"),
    ],
)
def test_a_split_that_cannot_be_is_one_line_and_exit_code_two(call, tmp_path, arguments, fault):
    done = call("split", GENOME, "--out", tmp_path, *arguments)
    assert done.returncode == 2
    assert fault in done.stderr
    assert done.stderr.count("\n") == 1
