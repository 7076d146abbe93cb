"""Odd and broken tables: each gives the right rows or an error that says where, what and the cure.

What is bounded is tried in a process of its own, whose memory and time are measured.
"""

import gzip
import runpy
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from data_tools.checking import check_file
from data_tools.counts import Counts
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.intervals import read_intervals
from data_tools.sequences import read_sequences
from data_tools.signal import open_signal
from data_tools.variants import read_variants

CORPUS = sorted((Path(__file__).parent / "corpus").glob("tables_*.py"))
CASES = [
    pytest.param(module["READER"], *case[1:], id=f"{module['READER']}: {case[0]}")
    for module in (runpy.run_path(str(path)) for path in CORPUS)
    for case in module["CASES"]
]
LETTERS = "ACGTACGTGT" * 100


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genome")
    (folder / "g.fa").write_text(f">chr1\n{LETTERS}\n>chr2\nACGTACGT\n")
    with Genome(folder / "g.fa", cache_dir=folder) as source:
        yield source


def rows_of(reader, path, genome, options):
    if reader == "intervals":
        return read_intervals(path, genome, counts=Counts(), **options).to_numpy().tolist()
    if reader == "variants":
        table = read_variants(path, genome, counts=Counts(), **options)
        return table[["chrom", "start", "end", "ref", "alt"]].to_numpy().tolist()
    if reader == "signal":
        with open_signal(path, genome, **options) as signal:
            return [signal.values("chr1", 0, 6).tolist()]
    return read_sequences(path, **options).to_numpy().tolist()


@pytest.mark.parametrize(("reader", "name", "content", "options", "verdict"), CASES)
def test_a_table_is_read_right_or_refused_with_place_cause_and_cure(
    tmp_path, genome, reader, name, content, options, verdict
):
    path = tmp_path / name
    path.write_bytes(content)
    rest = {key: value for key, value in options.items() if key != "genome"}
    against = genome if "genome" in options else None
    if isinstance(verdict, list):
        found = rows_of(reader, path, against, rest)
        np.testing.assert_equal(found, verdict)
        return
    line, words = verdict
    with pytest.raises(InputError, match=words) as caught:
        rows_of(reader, path, against, rest)
    message = str(caught.value)
    assert message.startswith(f"{path}: " if line is None else f"{path}:{line}: ")
    assert "\n" not in message
    assert len(message) < 1000


@pytest.mark.parametrize(("reader", "name", "content", "options", "verdict"), CASES)
def test_the_check_of_a_file_agrees_with_its_reader(
    tmp_path, genome, reader, name, content, options, verdict
):
    """Where name or content tell the format, and no policy is asked for."""
    if set(options) - {"genome"} or (reader == "sequences" and ".fa" in name):
        return
    path = tmp_path / name
    path.write_bytes(content)
    told = check_file(path, genome if "genome" in options else None)
    if reader == "signal" and name.endswith((".wig", ".bed", ".bw")):
        assert told.good or told.faults
        return
    assert told.good == isinstance(verdict, list), told
    assert all(fault.startswith(str(path)) and "\n" not in fault for fault in told.faults)
    if not told.good and verdict[0] is not None:
        assert told.faults[0].startswith(f"{path}:{verdict[0]}: ")


# --- bounds -----------------------------------------------------------------------------------

MEASURED = """
import resource, sys
from pathlib import Path
from data_tools.checking import check_file
told = check_file(Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
print(*told.faults, told.further, sep="\\n")
"""


def measured(path):
    """Memory in MiB and the lines told, by a process of its own that has 60 seconds."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    size, *lines = done.stdout.splitlines()
    return int(size), lines


def bomb(path, unit, units, head=b""):
    tool = zlib.compressobj(9, wbits=31)
    with path.open("wb") as stream:
        stream.write(tool.compress(head))
        for _ in range(units):
            stream.write(tool.compress(unit))
        stream.write(tool.flush())


BOMBS = {
    "rows.bed.gz": (b"chr1\t5\t9\n" * 100_000, b"", "inflates to more than"),
    "empty_lines.bed.gz": (b"\n" * (1 << 20), b"", "inflates to more than"),
    "one_line.bed.gz": (b"a" * (1 << 20), b"", "inflates to more than|a line of more than"),
    "comments.bed.gz": (b"#" + b"a" * (1 << 20) + b"\n", b"", "inflates to more than"),
    "rows.vcf.gz": (
        b"##" + b"x" * 998 + b"\n",
        b"##fileformat=VCFv4.3\n",
        "inflates to more|no header line",
    ),
    "rows.csv.gz": (
        (b"a," + b"ACGT" * 20 + b"\n") * 10_000,
        b"name,sequence\n",
        "inflates to more|occurs twice",
    ),
    "quote.csv.gz": (b"a" * (1 << 20) + b"\n", b'name,sequence\n"', "inflates to more|quoting"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_a_gigabyte_and_a_half_and_a_minute(tmp_path, name):
    unit, head, words = BOMBS[name]
    path = tmp_path / name
    bomb(path, unit, (40 << 20) // len(unit), head)
    assert path.stat().st_size < 4 << 20
    size, lines = measured(path)
    assert size < 1536
    assert any(word in line for line in lines for word in words.split("|")), lines[:3]


def test_a_file_of_faults_is_told_in_part_and_counted_within_bounds(tmp_path):
    path = tmp_path / "x.bed"
    path.write_bytes(b"chr1\t9\t5\n" * 100_000)
    size, lines = measured(path)
    assert size < 1536
    assert len(lines) == 21
    assert lines[19].startswith(f"{path}:20: end is not above start")
    assert lines[20] == "99980"


def test_damaged_bigwigs_crash_no_interpreter(tmp_path):
    """Hundreds of damaged copies in one process: it ends well, within bounds."""
    import pyBigWig

    path = tmp_path / "a.bw"
    with pyBigWig.open(str(path), "w") as handle:
        handle.addHeader([("c", 100_000), ("d", 5000)])
        start = list(range(0, 40_000, 20))
        handle.addEntries(["c"] * 2000, start, ends=[s + 9 for s in start], values=[1.0] * 2000)
        handle.addEntries("d", 100, values=[1.0, 2.0], span=5, step=10)
    code = """
import random, resource, sys
from pathlib import Path
from data_tools.checking import check_file
path, draw = Path(sys.argv[1]), random.Random(0)
raw, told = path.read_bytes(), []
for _ in range(1000):
    copy = bytearray(raw)
    if draw.random() < 0.3:
        copy = copy[: draw.randrange(len(copy))]
    for _ in range(draw.randint(0, 4) if copy else 0):
        place = draw.randrange(min(draw.choice([600, len(copy)]), len(copy)))
        copy[place] = draw.choice([0, 1, 255, draw.randrange(256)])
    path.write_bytes(copy)
    told.append(check_file(path).good)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, sum(told))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    size, good = map(int, done.stdout.split())
    assert size < 1536
    assert 0 < good < 1000


def test_an_index_whose_branches_share_their_leaves_is_refused(tmp_path):
    """A tree that doubles at each level would otherwise be walked for ever."""
    import pyBigWig

    path = tmp_path / "a.bw"
    with pyBigWig.open(str(path), "w") as handle:
        handle.addHeader([("c", 1000)])
        handle.addEntries(["c"], [1], ends=[5], values=[1.0])
    raw = bytearray(path.read_bytes())
    (index,) = struct.unpack_from("<Q", raw, 24)
    place = len(raw)
    for level in range(30):
        child = place + (level + 1) * 52
        raw += struct.pack("<BBH", 0, 0, 2) + 2 * struct.pack("<IIIIQ", 0, 0, 0, 1000, child)
    raw += struct.pack("<BBH", 1, 0, 0)
    raw[index + 48 : index + 48 + 28] = struct.pack("<BBHIIIIQ", 0, 0, 1, 0, 0, 0, 1000, place)
    path.write_bytes(raw)
    told = check_file(path)
    assert "leads in a circle" in told.faults[0]


def test_gzip_of_many_empty_members_is_read_in_time(tmp_path):
    path = tmp_path / "x.bed.gz"
    path.write_bytes(gzip.compress(b"") * 200_000 + gzip.compress(b"chr1\t5\t9\n"))
    size, lines = measured(path)
    assert size < 1536
    assert lines == ["0"] or lines == ["", "0"]
