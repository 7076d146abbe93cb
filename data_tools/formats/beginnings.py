"""What a file that is not what it should be looks like, by its first bytes, and the remedy."""

from __future__ import annotations

#: How many bytes tell.
BEGINNING = 24

_REMEDIES = (
    (b"\xef\xbb\xbf", "a byte order mark stands before it, save the file without"),
    (b"\xff\xfe", "this is UTF-16 text, save it as plain ASCII text"),
    (b"\xfe\xff", "this is UTF-16 text, save it as plain ASCII text"),
    (b"@", "this looks like FASTQ or SAM, convert it"),
    (b";", "remove the old comment lines that begin with ';'"),
    (b"LOCUS ", "this is GenBank, convert it: Bio.SeqIO.convert(FILE, 'genbank', NEW, 'fasta')"),
    (b"ID   ", "this is EMBL, convert it: Bio.SeqIO.convert(FILE, 'embl', NEW, 'fasta')"),
    (b"##fileformat=VCF", "this is VCF, give the genome that its variants refer to"),
    (b"##gff", "this is GFF, give the genome that it annotates"),
    (b"BAM\x01", "this is BAM, give the genome that its reads were aligned to"),
    (b"\x1f\x8b", "the file was compressed twice, unpack it once with gunzip"),
    (b"PK\x03\x04", "this is a zip archive, unpack it"),
    (b"BZh", "this is compressed by bzip2, unpack it"),
    (b"\xfd7zXZ\x00", "this is compressed by xz, unpack it"),
    (b"\x28\xb5\x2f\xfd", "this is compressed by zstd, unpack it"),
    (b"version https://git-lfs", "this is a pointer of Git LFS, fetch the file with git lfs pull"),
    (b"<", "this is a web page, fetch the file again"),
)


def remedy_for(beginning: bytes) -> str:
    """Say what a file that begins so looks like, and what to do.

    Examples
    --------
    >>> remedy_for(b"BZh91AY")
    'this is compressed by bzip2, unpack it'
    >>> remedy_for(b"hello")
    'check that it is the right file'
    """
    for known, remedy in _REMEDIES:
        if beginning.startswith(known):
            return remedy
    return "check that it is the right file"
