"""Odd and broken genomes, and what must come of each: its bases, or an error that says why.

What one slip in the layout of a FASTA file does, and a 2bit header that lies in one number, is
tested beside the readers; here is what users hand in by mistake, what another program made of a
file, and what was made to do harm.
"""

import os
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twobit_files import SIGNATURE, twobit_bytes

END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
SEEN = 60


def block(raw, *, claims=None, checksum=None, length=None):
    """Give one bgzip block, or one that lies about its content."""
    packer = zlib.compressobj(9, wbits=-15)
    body = packer.compress(raw) + packer.flush()
    length = len(body) + 25 if length is None else length
    head = b"\x1f\x8b\x08\x04" + bytes(6) + b"\x06\x00BC\x02\x00" + struct.pack("<H", length)
    told = zlib.crc32(raw) if checksum is None else checksum
    return head + body + struct.pack("<II", told, len(raw) if claims is None else claims)


def bgzip(raw):
    """Give a sound bgzip file."""
    return b"".join(block(raw[i : i + 65280]) for i in range(0, len(raw), 65280)) + END


def gzip_bomb(mebibytes):
    """Give a plain gzip file of a great many A."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(b">a\n")]
    parts += [packer.compress(b"A" * (1 << 20)) for _ in range(mebibytes)]
    return b"".join([*parts, packer.flush()])


@dataclass(frozen=True)
class Case:
    """A file and its verdict: letters by name (a long record as length, first, last), or an error.

    An error is given as a pattern of what it says after the path.
    """

    name: str
    content: bytes | Callable[[Path], object]
    verdict: dict[str, str | tuple[int, str, str]] | str
    file: str = "x.fa"

    def build(self, folder: Path) -> Path:
        """Put the file into a folder."""
        path = folder / self.file
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return path


def read(path):
    """Read all there is in a genome; of a long record its two ends."""
    from data_tools.genome import Genome

    found = {}
    with Genome(path) as genome:
        for name, length in genome.lengths.items():
            if length < 10_000:
                found[name] = genome.fetch(name, 0, length)
            else:
                ends = genome.fetch(name, 0, SEEN), genome.fetch(name, length - SEEN, length)
                found[name] = (length, *ends)
    return found


def sparse(size, *pieces):
    """Give what writes a file of holes with pieces at places."""

    def build(path):
        with path.open("wb") as stream:
            for place, raw in pieces:
                stream.seek(place)
                stream.write(raw)
            stream.truncate(size)

    return build


def socket_at(path):
    """Leave a socket behind: its path may be 108 letters long at most."""
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(path.name)
    os.chdir(here)


def forbidden(path):
    """Leave a file that no one but root may open: children of root are nobody."""
    path.write_bytes(b">a\nACGT\n")
    path.chmod(0)


# 2bit without names that claims one record of 2**32 - 1 bases, or one beyond 2**32 bytes.
LONGEST = (1 << 32) - 1
LONG_HEAD = struct.pack("<4IB1sI", SIGNATURE, 0, 1, 0, 1, b"a", 22)
LONG_RECORD = struct.pack("<4I", LONGEST, 0, 0, 0)
FAR = 5 << 30
FAR_HEAD = struct.pack("<4IB1sQ", SIGNATURE, 1, 1, 0, 1, b"a", FAR)

GOOD = b">a\nACGTNacgtn\nAC\n"
BASES = {"a": "ACGTNacgtnAC"}
NOT_FASTA = ":1: no header: .*"
NO_FILE = ": not a regular file: "

CASES = [
    # What another program, or system, made of a file.
    Case(
        "LF in one record, CRLF in the next",
        b">a\nAC\nA\n>b\r\nGG\r\nG\r\n",
        {"a": "ACA", "b": "GGG"},
    ),
    Case("CRLF in the header alone", b">a\r\nACG\nAC\n", {"a": "ACGAC"}),
    Case("blank lines of CRLF at the end", b">a\nACG\n\r\n\r\n", {"a": "ACG"}),
    Case("a line of blanks", b">a\nACG\n   \n", ":3: record 'a': illegal character ' '"),
    Case("UTF-8 in a description", ">a déjà vu\nACG\n".encode(), {"a": "ACG"}),
    Case("Latin-1 in a description", ">a déjà\nACG\n".encode("latin-1"), {"a": "ACG"}),
    Case("UTF-16 without a mark", ">a\nACG\n".encode("utf-16-le"), ":1: .*control character"),
    Case(
        "no-break space in a line", ">a\nAC\u00a0G\n".encode(), ":2: record 'a': illegal character"
    ),
    Case("zero-width space in a name", ">a\u200b\nACG\n".encode(), ":1: name .* is not ASCII"),
    Case("terminal codes in a name", b">a\x1b[31m\nACG\n", ":1: .*control character"),
    Case("end-of-file mark of DOS", b">a\nACG\n\x1a", r":3: record 'a': illegal character '\\x1a'"),
    Case(
        "names that a table would take for missing",
        b">NA\nA\n>nan\nC\n>1e5\nG\n>True\nT\n",
        {"NA": "A", "nan": "C", "1e5": "G", "True": "T"},
    ),
    Case("names that differ in case", b">chr1\nA\n>CHR1\nC\n", {"chr1": "A", "CHR1": "C"}),
    Case(
        "names cut at the first blank are one",
        b">a 1\nAC\n>a 2\nGG\n",
        ":3: record 'a': the name occurs twice",
    ),
    Case("name cut at a tab", b">a\tb\nACG\n", {"a": "ACG"}),
    Case("name of 100,000 letters", b">" + b"n" * 100_000 + b"\nACG\n", {"n" * 100_000: "ACG"}),
    Case("numbered lines", b">a\n1 ACG\n", ":2: record 'a': illegal character '1'"),
    Case("alignment", b">a\nAC..G\n", ":2: record 'a': illegal character '.'"),
    Case("old comments", b";one\n>a\nACG\n", NOT_FASTA + "comment lines"),
    Case("comment inside", b">a\nACG\n;one\n", ":3: record 'a': illegal character ';'"),
    Case("RNA in small letters", b">a\nacgu\n", ":2: .*write T for U"),
    Case("one base without line end", b">a\nA", {"a": "A"}),
    Case("every IUPAC letter", b">a\nRYSWKMBDHVNryswkmbdhvn\n", {"a": "RYSWKMBDHVNryswkmbdhvn"}),
    # Other formats.
    Case("protein", b">sp|P1\nMEEPQSDPSV\n", ":2: record 'sp|P1': illegal character 'E'"),
    Case(
        "GenBank",
        b"LOCUS       SCU49845     5028 bp    DNA\n",
        NOT_FASTA + "GenBank.*Bio.SeqIO.convert",
    ),
    Case("EMBL", b"ID   X56734; SV 1; linear; mRNA\n", NOT_FASTA + "EMBL"),
    Case("VCF", b"##fileformat=VCFv4.2\n", NOT_FASTA + "VCF"),
    Case("SAM", b"@HD\tVN:1.6\n", NOT_FASTA + "SAM"),
    Case("BED", b"chr1\t0\t100\n", NOT_FASTA + "right file"),
    Case("BAM", bgzip(b"BAM\x01" + bytes(20)), NOT_FASTA + "BAM", "x.bam"),
    Case("index of samtools", b"a\t12\t3\t10\t11\n", NOT_FASTA + "right file", "x.fa.fai"),
    Case("zip", b"PK\x03\x04" + bytes(40), NOT_FASTA + "zip", "x.zip"),
    Case("xz", b"\xfd7zXZ\x00" + bytes(40), NOT_FASTA + "xz", "x.fa.xz"),
    Case("bzip2", b"BZh91AY&SY" + bytes(40), NOT_FASTA + "bzip2", "x.fa.bz2"),
    Case("zstd", b"\x28\xb5\x2f\xfd" + bytes(40), NOT_FASTA + "zstd", "x.fa.zst"),
    Case("web page", b"<!DOCTYPE html><title>404</title>", NOT_FASTA + "web page", "x.fa.gz"),
    Case(
        "pointer of Git LFS",
        b"version https://git-lfs.github.com/spec/v1\n",
        NOT_FASTA + "git lfs pull",
    ),
    Case("FASTA under the name of 2bit", GOOD, BASES, "x.2bit"),
    Case("2bit under the name of FASTA", twobit_bytes(BASES), BASES),
    Case("2bit in bgzip", bgzip(twobit_bytes(BASES)), BASES, "x.2bit.gz"),
    Case("2bit in gzip", gzip_bomb(0).replace(b">a", b">b"), ": gzip but not bgzip", "x.2bit.gz"),
    # Compressed, and broken.
    Case("bgzip without .gz", bgzip(GOOD), BASES),
    Case("plain under the name of gzip", GOOD, BASES, "x.fa.gz"),
    Case("bgzip of nothing", END, ": the file is empty", "x.fa.gz"),
    Case("bgzip in bgzip", bgzip(bgzip(GOOD)), NOT_FASTA + "compressed twice", "x.fa.gz"),
    Case("no end block", bgzip(GOOD)[:-28], ": broken bgzip .*end marker is lacking", "x.fa.gz"),
    Case("half an end block", bgzip(GOOD)[:-9], ": broken bgzip .*cut short", "x.fa.gz"),
    Case("bytes after the end block", bgzip(GOOD) + b"\0", ": broken bgzip .*cut short", "x.fa.gz"),
    Case("bad CRC", block(GOOD, checksum=7) + END, ": broken bgzip .*checksum is wrong", "x.fa.gz"),
    Case("block claims less", block(GOOD, claims=5) + END, ": broken bgzip .*length", "x.fa.gz"),
    Case("block claims more", block(GOOD, claims=900) + END, ": broken bgzip .*length", "x.fa.gz"),
    Case(
        "block claims 4 GB", block(GOOD, claims=LONGEST) + END, ": broken bgzip .*64 KiB", "x.fa.gz"
    ),
    Case("block shorter than its header", block(GOOD, length=5) + END, ": broken bgzip", "x.fa.gz"),
    Case(
        "block reaches past the end",
        block(GOOD, length=65535) + END,
        ": broken bgzip .*cut short",
        "x.fa.gz",
    ),
    Case(
        "gzip after bgzip",
        block(GOOD) + gzip_bomb(0) + END,
        ": broken bgzip .*no block begins",
        "x.fa.gz",
    ),
    Case("half a gzip header", b"\x1f\x8b\x08", ": broken bgzip", "x.fa.gz"),
    # Made to fill a memory.
    Case(
        "gzip of 256 MiB",
        lambda path: path.write_bytes(gzip_bomb(256)),
        ": gzip but not bgzip",
        "x.fa.gz",
    ),
    Case(
        "block that inflates to 60 MiB",
        lambda path: path.write_bytes(block(b">a\n" + b"A" * (60 << 20), claims=9) + END),
        ": broken bgzip .*length",
        "x.fa.gz",
    ),
    Case(
        "bgzip of 192 MiB on one line",
        lambda path: path.write_bytes(block(b">a\n") + block(b"A" * 65536) * 3072 + END),
        {"a": (192 << 20, "A" * SEEN, "A" * SEEN)},
        "x.fa.gz",
    ),
    Case(
        "bgzip of 64 MiB of header",
        block(b">a\nA\n>") + block(b"n" * 65536) * 1024 + END,
        ":3: .*header of more than 1 MiB",
        "x.fa.gz",
    ),
    Case(
        "bgzip of 64 MiB of blank lines",
        block(b">a\nA\n") + block(b"\n" * 65536) * 1024 + END,
        {"a": "A"},
        "x.fa.gz",
    ),
    Case("100,000 empty blocks", END * 100_000 + bgzip(GOOD), BASES, "x.fa.gz"),
    Case("holes of 8 GiB", sparse(8 << 30), NOT_FASTA + "right file"),
    Case(
        "a header, then holes of 8 GiB",
        sparse(8 << 30, (0, b">a\n")),
        r":2: record 'a': illegal character '\\x00'",
    ),
    Case(
        "2bit of 2**32 - 1 bases",
        sparse(38 + (1 << 30), (0, LONG_HEAD + LONG_RECORD), (37 + (1 << 30), b"\x1b")),
        {"a": (LONGEST, "T" * SEEN, "T" * (SEEN - 3) + "TCA")},
        "x.2bit",
    ),
    Case(
        "2bit beyond 5 GiB",
        sparse(FAR + 17, (0, FAR_HEAD), (FAR, struct.pack("<4IB", 3, 0, 0, 0, 0x1B))),
        {"a": "TCA"},
        "x.2bit",
    ),
    # Made to get out of the file.
    Case("path in a name", b">../../etc/passwd\nACG\n", {"../../etc/passwd": "ACG"}),
    Case(
        "HTML in a name", b"><script>alert(1)</script>\nACG\n", {"<script>alert(1)</script>": "ACG"}
    ),
    Case(
        "HTML in a name, and a fault",
        b"><b>x</b>\nAC!\n",
        ":2: record '<b>x</b>': illegal character '!'",
    ),
    Case("path in a name of 2bit", twobit_bytes({"../x": "ACG"}), {"../x": "ACG"}, "x.2bit"),
    # What is no file.
    Case("directory", Path.mkdir, NO_FILE),
    Case("pipe", os.mkfifo, NO_FILE),
    Case("socket", socket_at, ": cannot be opened: "),
    Case("endless device", lambda path: path.symlink_to("/dev/zero"), NO_FILE),
    Case("empty device", lambda path: path.symlink_to("/dev/null"), NO_FILE),
    Case(
        "link to nothing", lambda path: path.symlink_to("nothing"), ": no such file: check the path"
    ),
    Case(
        "link to itself",
        lambda path: path.symlink_to(path.name),
        ": cannot be opened: Too many levels",
    ),
    Case(
        "link to a file",
        lambda path: (path.with_name("y").write_bytes(GOOD), path.symlink_to("y")),
        BASES,
    ),
    Case(
        "file under a file",
        lambda path: path.parent.write_bytes(GOOD),
        ": cannot be opened: Not a directory",
        "y/x.fa",
    ),
    Case("name too long", lambda path: None, ": cannot be opened: File name too long", "x" * 300),
    Case("NUL in the path", lambda path: None, "is no path: embedded null byte", "x\0.fa"),
    Case("no permission", forbidden, ": cannot be opened: Permission denied"),
]
