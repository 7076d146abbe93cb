"""A remote file is read as the same file on disk is, or refused; never mixed of two versions."""

import gzip
import multiprocessing
import pickle
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pybigtools
import pysam
import pytest
from Bio import bgzf
from twobit_files import twobit_bytes

pytest.importorskip("aiohttp", reason="remote files need the extra: pip install seqnorm[remote]")

from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from web_server import serving

from data_tools.checking import check_file
from data_tools.commands.check import check
from data_tools.errors import ChangedFileError, FormatError, InputError, MissingFileError
from data_tools.formats import remote
from data_tools.formats import web as web_files
from data_tools.formats.location import Url, location
from data_tools.formats.remote import RemoteFile
from data_tools.genome import Genome
from data_tools.intervals import read_intervals
from data_tools.sequences import read_sequences
from data_tools.signal import open_signal
from data_tools.variants import read_variants
from data_tools.window_table import read_windows

BED = b"chr1\t1\t5\tx\nchr2\t3\t9\ty\n"
FORMS = ["plain.fa", "crlf.fa", "one_line.fa", "blocks.fa.gz", "bases.2bit", "bases.2bit.gz"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(web_files, "_PAUSES", (0.01, 0.01))
    monkeypatch.setenv("SEQNORM_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def web():
    with serving() as files:
        yield files


def letters(seed, count):
    alphabet = np.frombuffer(b"ACGTacgtN", dtype="S1")
    return b"".join(np.random.default_rng(seed).choice(alphabet, count)).decode()


RECORDS = {"chr1": letters(1, 150_001), "chr2": letters(2, 61), "chr3": letters(3, 90_000)}


def fasta(records=RECORDS, width=60, end="\n"):
    parts = []
    for name, sequence in records.items():
        parts.append(f">{name} about it{end}")
        parts += [sequence[i : i + width] + end for i in range(0, len(sequence), width)]
    return "".join(parts).encode()


def bgzipped(path, raw):
    with bgzf.BgzfWriter(str(path), "wb") as stream:
        for i in range(0, len(raw), 7000):
            stream.write(raw[i : i + 7000])
            stream.flush()


def genome_files(folder, form):
    """Write a genome and what stands beside it; give all of it, the genome first."""
    path = folder / form
    if form.startswith("bases.2bit"):
        raw = twobit_bytes(RECORDS)
    else:
        raw = fasta(
            width=200_000 if form.startswith("one") else 60,
            end="\r\n" if form.startswith("crlf") else "\n",
        )
    bgzipped(path, raw) if path.suffix == ".gz" else path.write_bytes(raw)
    if form == "bases.2bit.gz":
        Path(f"{path}.gzi").write_bytes(gzi(path))
    elif ".fa" in form:
        pysam.faidx(str(path))
    return [path, *sorted(p for p in folder.iterdir() if p != path)]


def gzi(path):
    """Write the index of bgzip by hopping over its blocks."""
    raw, at, content, rows = path.read_bytes(), 0, 0, []
    while at < len(raw):
        size = struct.unpack_from("<H", raw, at + 16)[0] + 1
        content += struct.unpack_from("<I", raw, at + size - 4)[0]
        at += size
        rows.append((at, content))
    rows = rows[:-1]
    return struct.pack("<Q", len(rows)) + b"".join(struct.pack("<QQ", *row) for row in rows)


def put_all(web, paths, behaviour=None):
    for path in paths[1:]:
        web.put(path.name, path.read_bytes())
    return web.put(paths[0].name, paths[0].read_bytes(), behaviour)


# --- genomes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_remote_genome_gives_the_bases_of_the_file(web, tmp_path, form):
    url = put_all(web, genome_files(tmp_path, form))
    rng = np.random.default_rng(4)
    with Genome(url) as genome, Genome(tmp_path / form, tmp_path / "local") as local:
        assert list(genome.lengths.items()) == list(local.lengths.items())
        for name, sequence in RECORDS.items():
            assert genome.fetch(name, 0, len(sequence)) == sequence
            for start in rng.integers(0, len(sequence), 20).tolist():
                end = int(rng.integers(start, len(sequence) + 1))
                assert genome.fetch(name, start, end) == sequence[start:end]
                assert np.array_equal(genome.codes(name, start, end), local.codes(name, start, end))
        names = [("chr1", "chr3")[i] for i in rng.integers(0, 2, 50)]
        starts = rng.integers(0, 89_000, 50)
        assert np.array_equal(
            genome.windows(names, starts, 1000), local.windows(names, starts, 1000)
        )
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 16])
def test_reads_do_not_depend_on_the_size_of_a_block_nor_on_what_is_kept(web, monkeypatch, size):
    monkeypatch.setattr(remote, "BLOCK", size)
    monkeypatch.setattr(remote, "CACHE", 3 * size)
    monkeypatch.setattr(remote, "AT_ONCE", 5 * size)
    raw = np.random.default_rng(5).bytes(size * 9 // 2 + 3)
    file = RemoteFile(Url(web.put("x.bin", raw)))
    rng = np.random.default_rng(6)
    for start in rng.integers(0, len(raw), 60).tolist():
        stop = int(rng.integers(start, len(raw) + 1))
        assert file.read(start, stop) == raw[start:stop]
        assert len(file._kept) <= 3


def test_reading_straight_on_takes_few_requests_and_one_read_takes_few_bytes(web):
    raw = bytes(64 * remote.BLOCK)
    file = RemoteFile(Url(web.put("x.bin", raw)))
    file.read(40 * remote.BLOCK + 5, 40 * remote.BLOCK + 9)
    assert web.bytes_sent == 2 * remote.BLOCK
    for start in range(0, len(raw), 1000):
        file.read(start, min(start + 1000, len(raw)))
    assert web.requests["x.bin"] < 12


def test_memory_stays_within_the_cache_however_much_is_read(web, monkeypatch):
    monkeypatch.setattr(remote, "CACHE", 1 << 20)
    file = RemoteFile(Url(web.put("x.bin", bytes(24 << 20))))
    rng = np.random.default_rng(7)
    tracemalloc.start()
    for start in rng.integers(0, file.size - 100, 200).tolist():
        file.read(start, start + 100)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4 << 20


def check_many_reads(genome, seed):
    rng = np.random.default_rng(seed)
    for start in rng.integers(0, 149_000, 40).tolist():
        assert genome.fetch("chr1", start, start + 500) == RECORDS["chr1"][start : start + 500]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("form", ["blocks.fa.gz", "bases.2bit"])
def test_forked_workers_and_their_parent_all_read_right_bases(web, tmp_path, monkeypatch, form):
    monkeypatch.setattr(remote, "BLOCK", 1 << 12)
    monkeypatch.setattr(remote, "CACHE", 1 << 14)
    with Genome(put_all(web, genome_files(tmp_path, form))) as genome:
        check_many_reads(genome, 0)
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=check_many_reads, args=(genome, i)) for i in range(3)]
        for child in children:
            child.start()
        check_many_reads(genome, 9)
        for child in children:
            child.join()
        check_many_reads(genome, 10)
    assert [child.exitcode for child in children] == [0] * 3


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_that_ends_as_python_does_leaves_the_connections_of_its_parent_alone(web):
    code = (
        "import os, sys\n"
        "from data_tools.formats.location import Url\n"
        "from data_tools.formats.remote import RemoteFile\n"
        "file = RemoteFile(Url(sys.argv[1]))\n"
        "child = os.fork()\n"
        "assert file.read(70_000, 70_009) == bytes(9)\n"
        "if not child: sys.exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "assert file.read(140_000, 140_009) == bytes(9)\n"
    )
    url = web.put("x.bin", bytes(200_000))
    done = subprocess.run(
        [sys.executable, "-c", code, url], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("form", ["blocks.fa.gz", "bases.2bit", "plain.fa"])
def test_threads_that_share_a_remote_genome_all_read_right_bases(web, tmp_path, monkeypatch, form):
    monkeypatch.setattr(remote, "BLOCK", 1 << 12)
    monkeypatch.setattr(remote, "CACHE", 1 << 13)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    url = put_all(web, genome_files(tmp_path, form))
    try:
        with Genome(url) as genome, ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda seed: check_many_reads(genome, seed), range(6)))
    finally:
        sys.setswitchinterval(switch)


def test_a_2bit_file_of_many_records_is_opened_with_many_requests_at_once(web):
    records = {f"r{i}": "ACGT" * 90_000 for i in range(40)}
    under_way, most = [], []

    def behave(*_):
        under_way.append(1)
        most.append(len(under_way))
        time.sleep(0.01)
        under_way.pop()

    with Genome(web.put("x.2bit", twobit_bytes(records), behave)) as genome:
        assert genome.lengths == dict.fromkeys(records, 360_000)
    assert max(most) >= 4
    assert web.requests["x.2bit"] < 60


@pytest.mark.parametrize("form", ["plain.fa", "bases.2bit"])
def test_a_pickled_genome_opens_the_url_itself_and_refuses_another_version(web, tmp_path, form):
    url = put_all(web, genome_files(tmp_path, form))
    with Genome(f"{url}?key=secret") as genome:
        kept = pickle.dumps(genome)
    with pickle.loads(kept) as again:
        check_many_reads(again, 1)
        assert "secret" not in repr(again)
    web.put(form, (tmp_path / form).read_bytes(), tag="v2")
    with pytest.raises(ChangedFileError, match="changed since it was opened"):
        pickle.loads(kept)


def test_a_closed_remote_genome_says_so(web, tmp_path):
    genome = Genome(put_all(web, genome_files(tmp_path, "plain.fa")))
    genome.close()
    with pytest.raises(InputError, match="the file is closed: open it again"):
        genome.fetch("chr1", 0, 5)


# --- indexes that do not fit ------------------------------------------------------------------


@pytest.mark.parametrize(("form", "lacking"), [("plain.fa", ".fai"), ("blocks.fa.gz", ".fai"),
                                               ("blocks.fa.gz", ".gzi")])  # fmt: skip
def test_a_fasta_without_index_is_refused_with_what_to_do(web, tmp_path, form, lacking):
    url = put_all(web, genome_files(tmp_path, form))
    del web.raw[f"{form}{lacking}"]
    with pytest.raises(MissingFileError, match=f"no {form}{lacking} beside it: make it with"):
        Genome(url)
    assert not (tmp_path / "cache").exists()


def altered(row, column, by):
    def change(text):
        lines = [line.split("\t") for line in text.splitlines()]
        lines[row][column] = str(int(lines[row][column]) + by)
        return "".join("\t".join(line) + "\n" for line in lines)

    return change


WRONG_FAI = {
    "offset one on": altered(0, 2, 1),
    "a base less": altered(0, 1, -1),
    "a base more": altered(0, 1, 1),
    "offset a line on": altered(2, 2, 61),
    "wider": altered(2, 3, 1),
    "longer line ends": altered(0, 4, 1),
    "another name": lambda text: text.replace("chr1", "chr9"),
    "a name twice": lambda text: text.replace("chr1", "chr2"),
    "negative": lambda text: text.replace("150001", "-5"),
    "empty record": lambda text: text.replace("150001", "0"),
    "huge": lambda text: text.replace("150001", "9" * 30),
    "first record lacking": lambda text: "\n".join(text.splitlines()[1:]),
    "no line ends": lambda text: text.replace("\t60\t61", "\t61\t61"),
    "nothing": lambda _: "",
    "a web page": lambda _: "<html>\n",
}


@pytest.mark.parametrize("change", WRONG_FAI)
def test_no_wrong_fai_gives_other_bases(web, tmp_path, change):
    paths = genome_files(tmp_path, "plain.fa")
    url = put_all(web, paths)
    web.put("plain.fa.fai", WRONG_FAI[change](paths[1].read_text()).encode())
    told = what_is_told(url)
    assert told or change == "first record lacking"
    assert all("plain.fa.fai" in text for text in told)


def what_is_told(url):
    """Give the errors of a genome; all that it gives without one must be right."""
    told = []
    try:
        genome = Genome(url)
    except InputError as err:
        return [str(err)]
    for name, length in genome.lengths.items():
        for start in range(0, length, 30_000):
            end = min(start + 30_000, length)
            try:
                found = genome.fetch(name, start, end)
            except InputError as err:
                told.append(str(err))
            else:
                assert found == RECORDS[name][start:end]
    return told


def test_a_gzi_with_any_number_changed_gives_the_bases_or_an_error(web, tmp_path):
    paths = genome_files(tmp_path, "blocks.fa.gz")
    url = put_all(web, paths)
    good = paths[2].read_bytes()
    for at in [0, *range(8, len(good), 8)][:40]:
        raw = bytearray(good)
        struct.pack_into("<Q", raw, at, struct.unpack_from("<Q", raw, at)[0] + 1)
        web.put(paths[2].name, raw)
        told = what_is_told(url)
        assert told
        assert all(".gzi" in text or "broken bgzip" in text for text in told)


def test_a_gzi_may_list_the_end_block_too(web, tmp_path):
    paths = genome_files(tmp_path, "blocks.fa.gz")
    url = put_all(web, paths)
    raw = paths[2].read_bytes()
    count = struct.unpack("<Q", raw[:8])[0]
    end = (paths[0].stat().st_size - 28, len(fasta()))
    rows = raw[8:] if raw[-16:] == struct.pack("<QQ", *end) else raw[8:] + struct.pack("<QQ", *end)
    for listed in (rows, rows[:-16]):
        web.put(paths[2].name, struct.pack("<Q", len(listed) // 16) + listed)
        with Genome(url) as genome:
            check_many_reads(genome, 3)
    assert count


def test_a_flipped_byte_of_remote_bgzip_is_an_error(web, tmp_path):
    paths = genome_files(tmp_path, "blocks.fa.gz")
    url = put_all(web, paths)
    raw = bytearray(paths[0].read_bytes())
    raw[len(raw) // 2] ^= 4
    web.put(paths[0].name, raw)
    told = what_is_told(url)
    assert told
    assert all("broken bgzip" in text or "not the index" in text for text in told)


def test_a_2bit_table_that_lies_is_found_at_the_first_read_of_its_record(web):
    raw = bytearray(twobit_bytes(RECORDS))
    start = struct.unpack_from("<I", raw, 16 + 1 + 4)[0]
    struct.pack_into("<I", raw, start + 8, 1 << 30)
    with Genome(web.put("bases.2bit", raw)) as genome:
        assert genome.fetch("chr2", 0, 61) == RECORDS["chr2"]
        for _ in range(2):
            with pytest.raises(FormatError, match="record 'chr1': N block 1"):
                genome.fetch("chr1", 0, 5)


# --- signal and text ---------------------------------------------------------------------------


def bigwig(path):
    rows = (("chr1", i * 10, i * 10 + 7, i / 7) for i in range(9000))
    pybigtools.open(str(path), "w").write({"chr1": 100_000}, rows)
    return path


def test_a_remote_bigwig_gives_the_values_of_the_file(web, tmp_path):
    path = bigwig(tmp_path / "x.bw")
    url = web.put("x.bw", path.read_bytes())
    with open_signal(url) as signal, open_signal(path) as local:
        for start in (0, 5, 44_000):
            assert np.array_equal(
                signal.values("chr1", start, start + 900),
                local.values("chr1", start, start + 900),
                equal_nan=True,
            )
    assert check_file(url).good


VCF = (
    b"##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nc\t5\t.\tA\tC\t.\t.\t.\n"
)
TEXTS = {
    "x.bed": (read_intervals, BED),
    "x.narrowPeak": (read_intervals, b"chr1\t1\t5\t.\t0\t.\t1\t-1\t-1\t2\n"),
    "x.vcf": (read_variants, VCF),
    "x.fa": (read_sequences, b">a bound=1\nACGT\n"),
    "x.csv": (read_windows, b"chrom,start,end\nchr1,0,5\n"),
    "x.tsv": (read_sequences, b"name\tsequence\na\tACGT\n"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("packed", [False, True])
def test_text_is_read_as_from_disk_from_a_server_without_ranges(web, tmp_path, name, packed):
    read, raw = TEXTS[name]
    web.ranges = False
    name += ".gz" * packed
    (tmp_path / name).write_bytes(gzip.compress(raw) if packed else raw)
    url = web.put(name, (tmp_path / name).read_bytes())
    pd.testing.assert_frame_equal(read(f"{url}?key=a.b"), read(tmp_path / name))


def test_remote_files_are_checked_as_those_on_disk(web, tmp_path):
    for name, raw in {
        "good.bed": BED,
        "bad.bed": BED + b"chr1\t9\t5\nchr1\tx\t5\n",
        "good.fa": fasta(),
        "bad.fa": b">a\nAC\nACG\n>a\nA!\n",
        "good.2bit": twobit_bytes(RECORDS),
    }.items():
        (tmp_path / name).write_bytes(raw)
        far, near = check_file(web.put(name, raw)), check_file(tmp_path / name)
        assert far.summary == near.summary
        assert [f.replace(web.base, str(tmp_path)) for f in far.faults] == list(near.faults)


def test_a_remote_bedgraph_is_read(web):
    web.ranges = False
    with open_signal(web.put("x.bedgraph", b"chr1\t0\t2\t1.5\n")) as signal:
        assert signal.values("chr1", 0, 2).tolist() == [1.5, 1.5]


def test_a_large_text_is_read_whole_within_bounded_memory(web):
    rows = 400_000
    raw = b"".join(b"chr1\t%d\t%d\n" % (i, i + 5) for i in range(rows))
    table = read_intervals(web.put("x.bed", raw))
    assert len(table) == rows
    assert table["end"].iloc[-1] == rows + 4


def test_a_chunked_answer_is_read_and_one_cut_short_is_an_error(web):
    def chunked(cut):
        def behave(reply, _):
            body = reply["body"]
            reply["body"] = b"%x\r\n%b\r\n" % (len(body), body) + b"0\r\n\r\n" * (not cut)
            reply["headers"] = {"Transfer-Encoding": "chunked", "Connection": "close"}
            reply["sent"] = len(reply["body"])

        return behave

    assert len(read_intervals(web.put("x.bed", BED, chunked(cut=False)))) == 2
    with pytest.raises(InputError, match=r"x\.bed: the connection was lost"):
        read_intervals(web.put("x.bed", BED, chunked(cut=True)))


def test_faults_of_remote_text_name_url_and_line_without_its_secrets(web):
    url = web.put("x.bed", b"chr1\t1\t5\nchr1\t9\t5\n").replace("//", "//me:secret@")
    with pytest.raises(FormatError, match=r"^http://127\.0\.0\.1:\d+/x\.bed:2: end is not above"):
        read_intervals(f"{url}?key=secret")
    assert web.asked[-1][1]["Authorization"].startswith("Basic ")


def test_parquet_is_read_from_disk_only(web):
    with pytest.raises(InputError, match="parquet is read from disk only: download the file"):
        read_sequences(web.put("x.parquet", b"PAR1"))


# --- servers that fail ------------------------------------------------------------------------


def headers(**values):
    def behave(reply, _):
        for key, value in values.items():
            reply["headers"][key.replace("_", "-")] = value

    return behave


def status(number, times=1 << 30):
    def behave(reply, count):
        if count <= times:
            reply.update(status=number, body=b"")
            reply["headers"] = {"Content-Length": "0"}

    return behave


def cut(count, times=1 << 30):
    def behave(reply, number):
        if number <= times:
            reply["sent"] = count

    return behave


def longer(reply, _):
    reply["body"] += b"A" * 10
    reply["headers"]["Content-Length"] = str(len(reply["body"]))


ENDLESS = bytes(32 << 20)


def endless(reply, _):
    reply["body"] = ENDLESS
    reply["headers"]["Content-Length"] = str(len(reply["body"]))


def redirect(target):
    def behave(reply, _):
        reply.update(status=302, body=b"")
        reply["headers"] = {"Location": target, "Content-Length": "0"}

    return behave


FAILURES = {
    "forbidden": (status(403), "may not be read (403): ask for access"),
    "gone": (status(410), "no such file (410): check the URL"),
    "teapot": (status(418), "the server answers with status 418"),
    "busy": (status(503), "the server is out of order (503): try again later"),
    "cut": (cut(100), "the connection was lost: try again later"),
    "at once": (cut(0), "the connection was lost: try again later"),
    "longer": (longer, "the server sends 65,537 bytes or more of 65,536: download the file"),
    "endless": (endless, "bytes or more of 65,536: download the file"),
    "other part": (headers(Content_Range="bytes 1-65536/100000"), "sends another part than"),
    "no part": (headers(Content_Range="nonsense"), "sends another part than"),
    "too long": (headers(Content_Range="bytes 0-70000/100000"), "sends another part than"),
    "to a file": (redirect("file:///etc/passwd"), "redirected to where no file is read from"),
    "to ftp": (redirect("ftp://127.0.0.1/x"), "redirected to where no file is read from"),
    "in circles": (redirect("/x.2bit"), "the server redirects without end"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_server_that_fails_is_told_of_without_the_secrets_of_the_url(web, failure):
    behaviour, words = FAILURES[failure]
    url = web.put("x.2bit", bytes(100_000), behaviour).replace("//", "//me:secret@")
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        Genome(f"{url}?key=secret")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words in str(caught.value)
    assert str(caught.value).startswith("http://127.0.0.1:")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert peak < 16 << 20


class Hop:
    """A step on the way to a file."""

    def __init__(self, scheme, history=()):
        self.url, self.history, self.status = urlsplit(f"{scheme}://host/x"), history, 200
        self.headers, self.content_length = {}, 0


@pytest.mark.parametrize("hops", ["https http", "https http https"])
def test_a_redirect_that_leaves_https_is_refused(monkeypatch, hops):
    taken = hops.split()

    class Session:
        @asynccontextmanager
        async def get(self, *_, **__):
            yield Hop(taken[-1], [Hop(scheme) for scheme in taken[:-1]])

    async def session():
        return Session()

    monkeypatch.setattr(web_files, "_session", session)
    with pytest.raises(InputError, match="redirected from https:// to http://"):
        read_intervals("https://host/x.bed")
    taken = ["https", "https"]
    with pytest.raises(FormatError, match="the file is empty"):
        Genome("https://host/x.fa")


def test_a_redirect_to_another_server_does_not_take_the_password_along(web):
    with serving() as other:
        there = other.put("x.bed", BED).replace("127.0.0.1", "localhost")
        url = web.put("y.bed", b"", redirect(there)).replace("//", "//me:secret@")
        assert len(read_intervals(url)) == 2
        assert "Authorization" in web.asked[-1][1]
        assert "Authorization" not in other.asked[-1][1]


@pytest.mark.parametrize(
    "behaviour", [status(503, times=2), cut(100, times=2)], ids=["busy", "cut"]
)
def test_a_failure_that_passes_is_asked_again(web, behaviour):
    with Genome(web.put("x.2bit", twobit_bytes(RECORDS), behaviour)) as genome:
        assert genome.fetch("chr2", 0, 61) == RECORDS["chr2"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://nohost.invalid/x.fa", "no such host"),
        ("http://127.0.0.1:9/x.fa", "cannot be reached: Connection refused"),
        ("ftp://host/x.fa", "ftp:// is not read"),
        ("file:///etc/passwd", "file:// is not read"),
        ("https:///x.fa", "names no file on a host"),
        ("https://host/", "names no file on a host"),
        ("http://host:99999/x.fa", "check its host and port"),
        ("http://host/a\nb.fa", "check"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(address, words):
    for read in (Genome, read_intervals, open_signal):
        with pytest.raises(InputError, match=words):
            read(address)


def test_a_server_without_ranges_is_told_of_and_a_download_advised(web):
    web.ranges = False
    with pytest.raises(InputError, match="gives no parts of files: download the file"):
        Genome(web.put("x.2bit", twobit_bytes(RECORDS)))


def test_a_server_that_falls_silent_is_not_waited_for_without_end(web, monkeypatch):
    import threading

    go_on = threading.Event()
    monkeypatch.setattr(web_files, "SILENT_SECONDS", 0.2)
    url = web.put("x.bed", BED, lambda *_: go_on.wait(10))
    with pytest.raises(InputError, match="the server fell silent: try again later"):
        read_intervals(url)
    go_on.set()


def test_text_cut_short_is_an_error_wherever_it_is_cut(web):
    for count in (0, 5, 12, len(BED) - 1):
        with pytest.raises(InputError, match=r"x\.bed: the connection was lost"):
            read_intervals(web.put("x.bed", BED, cut(count)))


def test_text_of_unknown_length_is_refused_because_a_cut_would_not_be_seen(web):
    def behave(reply, _):
        reply["headers"] = {"Connection": "close"}

    with pytest.raises(InputError, match="does not say how long it is"):
        read_intervals(web.put("x.bed", BED, behave))


def test_a_web_page_instead_of_a_genome_is_called_that(web):
    with pytest.raises(FormatError, match="this is a web page, fetch the file again"):
        Genome(web.put("x.fa", b"<html>log in</html>"))


@pytest.mark.parametrize("form", ["plain.fa", "blocks.fa.gz", "bases.2bit"])
@pytest.mark.parametrize("how", ["tag", "date", "size"])
def test_a_file_that_changes_between_two_requests_is_an_error(
    web, tmp_path, monkeypatch, form, how
):
    monkeypatch.setattr(remote, "BLOCK", 1 << 10)
    monkeypatch.setattr(remote, "CACHE", 1 << 11)
    monkeypatch.setattr(remote, "AT_ONCE", 1 << 12)
    paths = genome_files(tmp_path, form)
    raw = paths[0].read_bytes()
    tag = "" if how == "date" else "v1"
    url = put_all(web, paths, headers(Last_Modified="yesterday"))
    web.raw[form] = (raw, tag)
    with Genome(url) as genome:
        assert genome.fetch("chr1", 0, 100) == RECORDS["chr1"][:100]
        if how == "tag":
            web.raw[form] = (raw, "v2")
        elif how == "date":
            web.behaviours[form] = headers(Last_Modified="today")
        else:
            web.raw[form] = (raw + b"\n", tag)
        with pytest.raises(ChangedFileError, match=f"{form}: changed on the server since"):
            genome.fetch("chr1", 0, 150_001)


def test_a_remote_bigwig_that_changes_is_an_error(web, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 1 << 8)
    path = bigwig(tmp_path / "x.bw")
    url = web.put("x.bw", path.read_bytes())
    with open_signal(url) as signal:
        web.put("x.bw", path.read_bytes(), tag="v2")
        with pytest.raises(ChangedFileError, match=r"x\.bw: changed on the server"):
            signal.values("chr1", 40_000, 41_000)


def test_what_is_asked_for_is_the_file_as_it_is_stored(web):
    read_intervals(web.put("x.bed", BED))
    assert web.asked[-1][1]["Accept-Encoding"] == "identity"


# --- addresses ---------------------------------------------------------------------------------


def test_the_commands_take_addresses(web, capsys):
    url = web.put("x.bed", BED)
    check((Path(url),))
    assert "good, 2 intervals on 2 chromosomes" in capsys.readouterr().out


def test_an_address_that_went_through_a_path_is_one_still(web):
    url = web.put("x.bed", BED)
    assert location(Path(url)) == Url(url)
    assert len(read_intervals(Path(url))) == 2


def test_paths_are_no_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a:b").write_bytes(BED)
    assert len(read_intervals("a:b")) == 2
    assert isinstance(location("chr1:5"), Path)


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "data_tools.formats.web")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(InputError, match=r"pip install seqnorm\[remote\]"):
        Genome("https://host/x.2bit")


def test_disk_files_are_read_without_loading_what_remote_ones_need(tmp_path):
    shutil.copy(Path(__file__), tmp_path)
    (tmp_path / "x.bed").write_bytes(BED)
    code = (
        "import sys; from data_tools import read_intervals; read_intervals(sys.argv[1]);"
        "assert not {'fsspec', 'aiohttp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.bed")], check=True)


# --- buckets -----------------------------------------------------------------------------------


class FakeBuckets(MemoryFileSystem):
    """Objects in memory with tags, as a store of objects has."""

    protocol = ("s3",)
    store = {}  # noqa: RUF012 - of its own, not that of all file systems in memory
    tags = {}  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.removeprefix("s3://").lstrip("/")

    def info(self, path, **kwargs):
        return super().info(path, **kwargs) | {"ETag": self.tags.get(path, "v1")}


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setitem(_registry, "s3", FakeBuckets)
    FakeBuckets.store.clear()
    FakeBuckets.tags.clear()
    return FakeBuckets(skip_instance_cache=True)


def test_objects_of_a_bucket_are_read_where_fsspec_can(bucket):
    bucket.pipe_file("s3://lab/x.2bit", twobit_bytes(RECORDS))
    bucket.pipe_file("s3://lab/x.bed", BED)
    assert len(read_intervals("s3://lab/x.bed")) == 2
    with Genome("s3://lab/x.2bit") as genome:
        check_many_reads(genome, 2)
    with pytest.raises(MissingFileError, match=r"s3://lab/y\.bed: no such file"):
        read_intervals("s3://lab/y.bed")


def test_an_object_that_changes_is_an_error(bucket, monkeypatch):
    monkeypatch.setattr(remote, "BLOCK", 1 << 10)
    monkeypatch.setattr(remote, "AT_ONCE", 1 << 11)
    bucket.pipe_file("s3://lab/x.2bit", twobit_bytes(RECORDS))
    with Genome("s3://lab/x.2bit") as genome:
        bucket.tags["/lab/x.2bit"] = "v2"
        with pytest.raises(ChangedFileError, match="changed on the server"):
            genome.fetch("chr1", 0, 9000)


def test_buckets_that_fsspec_cannot_read_are_refused_with_what_to_install(monkeypatch):
    for scheme, name in (("s3", "s3fs"), ("gs", "gcsfs")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=f"{scheme}:// needs {name}: pip install {name}"):
            read_intervals(f"{scheme}://lab/x.bed")
