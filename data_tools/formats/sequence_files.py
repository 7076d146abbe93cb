"""Records of files that hold sequences and labels, as text, one after the other."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from data_tools.errors import InputError
from data_tools.faults import Faults, shown
from data_tools.formats.delimited import checked_names, delimited_rows, text_lines

_GENBANK_LABELS = ("organism", "molecule_type")


@dataclass(slots=True)
class Record:
    """A named sequence as it stands in a file; ``line`` is where it begins."""

    line: int
    name: str
    sequence: str
    labels: dict[str, str] = field(default_factory=dict)


def fasta(
    faults: Faults, _name: str, _sequence: str | None, max_inflated: int | None
) -> Iterator[Record]:
    """Give the records of a FASTA file; the words of a header after the name are labels."""
    record: Record | None = None
    parts: list[str] = []
    for line, text in text_lines(faults, max_inflated):
        if text.startswith(">"):
            if record is not None:
                record.sequence = "".join(parts)
                yield record
            record, parts = _header(text, line, faults), []
        elif record is None:
            if text.strip():
                raise faults.error(line, f"no header: FASTA begins with '>', not {shown(text)}")
        else:
            parts.append(text)
    if record is not None:
        record.sequence = "".join(parts)
        yield record


def _header(text: str, line: int, faults: Faults) -> Record:
    name, *words = text[1:].split(" ") if text[1:2] not in " \t" else ["", text[2:]]
    name, *tabbed = name.split("\t")
    record = Record(line, name, "")
    for word in " ".join([*tabbed, *words]).split():
        key, equals, value = word.partition("=")
        if not equals:
            continue
        if not key or key in record.labels:
            faults.add(line, f"the label {shown(word)} has no name or occurs twice")
        record.labels[key] = value
    return record


def _table(separator: str) -> Callable[..., Iterator[Record]]:
    def read(
        faults: Faults, name: str, sequence: str | None, max_inflated: int | None
    ) -> Iterator[Record]:
        return _table_records(faults, separator, name, sequence, max_inflated)

    return read


def _table_records(
    faults: Faults, separator: str, name: str, sequence: str | None, max_inflated: int | None
) -> Iterator[Record]:
    columns: list[str] | None = None
    for line, row in delimited_rows(faults, separator, max_inflated):
        if row and columns is None:
            columns = _column_names(row, line, faults, name, sequence)
        elif row and columns is not None:
            yield _table_record(dict(zip(columns, row, strict=True)), line, name, sequence)


def _column_names(
    row: list[str], line: int, faults: Faults, name: str, sequence: str | None
) -> list[str]:
    wanted = name if sequence is None else sequence
    if wanted not in row:
        raise faults.error(
            line, f"no column {wanted!r} among {', '.join(map(shown, row[:10]))}: name it"
        )
    return checked_names(row, line, faults)


def _table_record(row: dict[str, str], line: int, name: str, sequence: str | None) -> Record:
    letters = "" if sequence is None else row.pop(sequence)
    return Record(line, row.pop(name, str(line)), letters, row)


def parquet(
    faults: Faults, name: str, sequence: str | None, max_inflated: int | None
) -> Iterator[Record]:
    """Give the rows of a parquet file; ``line`` is the number of the row."""
    try:
        import pyarrow
        from pyarrow import parquet as pq
    except ImportError:
        raise faults.error(None, "reading parquet needs pyarrow: pip install pyarrow") from None
    from data_tools.formats.location import Url
    from data_tools.formats.text import FREE, RATIO, opened

    if isinstance(faults.path, Url):
        raise faults.error(None, "parquet is read from disk only: download the file", InputError)
    with opened(faults.path) as stream:
        try:
            file = pq.ParquetFile(stream)
            size = faults.path.stat().st_size
            meta = file.metadata
            claimed = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            allowed = max(FREE, RATIO * size) if max_inflated is None else max_inflated
            if claimed > allowed:
                raise faults.error(
                    None,
                    f"inflates to {claimed:,} bytes, more than {allowed:,}: is it what it claims "
                    "to be? Pass max_inflated= (in bytes) to read more",
                )
            _column_names(file.schema_arrow.names, 1, faults, name, sequence)
            line = 0
            for batch in file.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    line += 1
                    texts = _texts(row, line, faults)
                    if texts is not None:
                        yield _table_record(texts, line, name, sequence)
        except (pyarrow.ArrowException, OSError) as err:
            what = str(err).splitlines()[0] if str(err) else type(err).__name__
            raise faults.error(None, f"broken parquet ({what}): fetch or write it again") from None


def _texts(row: dict[str, Any], line: int, faults: Faults) -> dict[str, str] | None:
    for key, value in row.items():
        if value is None or isinstance(value, bytes | list | dict):
            faults.add(line, f"row {line}: the column {shown(key)} holds no text or number")
            return None
    return {key: str(int(v)) if isinstance(v, bool) else str(v) for key, v in row.items()}


def genbank(
    faults: Faults, _name: str, _sequence: str | None, max_inflated: int | None
) -> Iterator[Record]:
    """Give the records of a GenBank file, each read on its own by Biopython."""
    lines: list[str] = []
    first = 1
    for line, text in text_lines(faults, max_inflated):
        if not lines and not text.strip():
            continue
        if not lines:
            first = line
        lines.append(text)
        if text.rstrip() == "//":
            yield from _genbank_record(lines, first, faults)
            lines = []
    if lines:
        faults.add(first, "the record does not end with //: the file is cut short")


def _genbank_record(lines: list[str], first: int, faults: Faults) -> Iterator[Record]:
    from Bio import SeqIO

    read: Callable[..., Any] = SeqIO.read

    if not lines[0].startswith("LOCUS"):
        faults.add(first, f"a GenBank record begins with LOCUS, not {shown(lines[0])}")
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = read(io.StringIO("\n".join(lines) + "\n"), "genbank")
            letters = str(found.seq)
    except Exception as err:
        # Biopython raises what its parser happens to meet.
        what = " ".join(str(err).split()) or type(err).__name__
        faults.add(first, f"not a sound GenBank record ({what[:200]}): fetch it again")
        return
    labels = {key: str(found.annotations.get(key, "unknown")) for key in _GENBANK_LABELS}
    labels["description"] = found.description or "unknown"
    claimed = lines[0].split()[2:3]
    if claimed != [str(len(letters))]:
        faults.add(first, f"LOCUS claims {claimed} bases, the record holds {len(letters)}")
        return
    yield Record(first, found.id, letters, labels)


READERS: dict[str, Callable[..., Iterator[Record]]] = {
    "fasta": fasta,
    "tsv": _table("\t"),
    "csv": _table(","),
    "parquet": parquet,
    "genbank": genbank,
}
