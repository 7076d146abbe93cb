"""bigWig files read with nothing but checked offsets: a lying header is an error, never a crash.

Every offset and size in the file is compared with the size of the file, every number of items
with what may stand in a section, and a section is inflated only as far as its 65,535 items can
reach. Libraries in C or Rust trust the header and can be made to crash or to allocate what it
claims, so they are the oracles of the tests and not what stands here.

References
----------
Kent et al. (2010), BigWig and BigBed, Bioinformatics 26:2204, and its supplement, which gives
the layout of the bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.errors import FormatError
from data_tools.faults import shown
from data_tools.formats.byte_source import PlainBytes, RemoteBytes
from data_tools.formats.location import Location, Url

Ints = NDArray[np.int64]

MAGIC = 0x888FFC26
_CHROM_MAGIC, _INDEX_MAGIC = 0x78CA8C91, 0x2468ACE0
_SECTION_HEAD = 24
_SECTION_MAX = _SECTION_HEAD + 65_535 * 12
_KEY_MAX = 1 << 12
_CHROMS_MAX = 1 << 22
_DEPTH_MAX = 32
_KEPT_SECTIONS = 256
_BED_GRAPH, _VARIABLE, _FIXED = 1, 2, 3


class Steps(NamedTuple):
    """Disjoint sorted intervals of one chromosome, and the value of each."""

    start: Ints
    end: Ints
    value: NDArray[np.float32]


class BigWigFile:
    """The sections of a bigWig file, found by its index.

    Parameters
    ----------
    path : Path or Url
        A regular file, or a remote one.

    Attributes
    ----------
    lengths : dict of str to int
        Of the chromosomes, in the order of their numbers in the file.

    Raises
    ------
    InputError
        If it cannot be opened; `FormatError` if header, chromosomes or index are not sound.
    """

    def __init__(self, path: Location) -> None:
        self.path = path
        self._file = RemoteBytes(path) if isinstance(path, Url) else PlainBytes(path)
        self.close = self._file.close
        try:
            self._read_header()
            self._ids, self.lengths = self._read_chromosomes()
            self._read_index()
        except BaseException:
            self.close()
            raise
        self._kept: OrderedDict[int, Steps] = OrderedDict()

    def steps(self, chrom: str, start: int, end: int) -> Steps:
        """Give the intervals that overlap [start, end), not cut."""
        low, high = self._range.get(self._ids[chrom], (0, 0))
        first = low + int(np.searchsorted(self._reach[low:high], start, side="right"))
        last = low + int(np.searchsorted(self._index["start"][low:high], end, side="left"))
        parts = [self._section(i) for i in range(first, last)]
        if not parts:
            empty = np.empty(0, dtype=np.int64)
            return Steps(empty, empty, np.empty(0, dtype=np.float32))
        low_, high_, value = map(np.concatenate, zip(*parts, strict=True))
        if (low_[1:] < high_[:-1]).any():
            raise self._wrong(f"sections of {chrom} overlap")
        inside = (high_ > start) & (low_ < end)
        return Steps(low_[inside], high_[inside], value[inside])

    def check(self) -> int:
        """Read every section; give the number of intervals."""
        count, last = 0, (-1, 0)
        for i, chrom in enumerate(self._index["chrom"].tolist()):
            found = self._decode(i)
            if not len(found.start):
                continue
            if last[0] == chrom and found.start[0] < last[1]:
                raise self._wrong(f"section {i} overlaps one before it")
            count, last = count + len(found.start), (chrom, int(found.end[-1]))
        return count

    def _wrong(self, what: str) -> FormatError:
        return FormatError(f"{self.path}: broken bigWig: {what}: fetch or make the file again")

    def _bytes(self, place: int, count: int, what: str) -> bytes:
        if place + count > self._file.size:
            raise self._wrong(f"{what} (byte {place:,}) lies past the end of the file")
        return self._file.read(place, place + count)

    def _unpack(self, form: str, place: int, what: str) -> tuple[int, ...]:
        form = self._order + form
        return struct.unpack(form, self._bytes(place, struct.calcsize(form), what))

    def _read_header(self) -> None:
        raw = self._bytes(0, 64, "the header")
        self._order = next((o for o in "<>" if struct.unpack(f"{o}I", raw[:4])[0] == MAGIC), "")
        if not self._order:
            raise self._wrong("it does not begin as bigWig does")
        version, _, chroms, _, index = struct.unpack(f"{self._order}HHQQQ", raw[4:32])
        if not 1 <= version <= 4:
            raise self._wrong(f"version {version} does not exist")
        self._chroms_at, self._index_at = chroms, index
        self._inflated = struct.unpack(f"{self._order}I", raw[52:56])[0]

    # --- chromosomes -----------------------------------------------------------------------

    def _read_chromosomes(self) -> tuple[dict[str, int], dict[str, int]]:
        what = "the list of chromosomes"
        magic, _, key, value, count = self._unpack("IIIIQ", self._chroms_at, what)
        if magic != _CHROM_MAGIC or not 1 <= key <= _KEY_MAX or value != 8:
            raise self._wrong(f"{what} is not where the header says")
        if count > min(_CHROMS_MAX, self._file.size // (key + 8)):
            raise self._wrong(f"{what} claims {count:,} chromosomes")
        ids: dict[str, int] = {}
        lengths: dict[str, int] = {}
        for place, number in self._leaves(self._chroms_at + 32, key + 8, key + 8, what):
            raw = self._bytes(place, number * (key + 8), what)
            for at in range(0, len(raw), key + 8):
                name = self._name(raw[at : at + key])
                if name in ids:
                    raise self._wrong(f"the chromosome {shown(name)} occurs twice")
                ids[name], lengths[name] = struct.unpack_from(f"{self._order}II", raw, at + key)
        if len(ids) != count or len(set(ids.values())) != count:
            raise self._wrong(f"{what} holds {len(set(ids.values()))}, it claims {count:,}")
        self._limits = {number: lengths[name] for name, number in ids.items()}
        order = sorted(ids, key=lambda name: ids[name])
        return ids, {name: lengths[name] for name in order}

    def _name(self, raw: bytes) -> str:
        try:
            name = raw.rstrip(b"\0").decode()
        except UnicodeDecodeError:
            name = ""
        if not name.isprintable() or not name or " " in name:
            raise self._wrong(f"{shown(raw)} is no name of a chromosome")
        return name

    def _leaves(self, root: int, leaf: int, inner: int, what: str) -> list[tuple[int, int]]:
        """Walk a tree; give place and number of the items of each leaf, in order."""
        found: list[tuple[int, int]] = []
        seen: set[int] = set()
        waiting = [(root, 0)]
        while waiting:
            place, depth = waiting.pop()
            if place in seen or depth > _DEPTH_MAX:
                raise self._wrong(f"{what} leads in a circle")
            seen.add(place)
            is_leaf, _, count = self._unpack("BBH", place, what)
            size = count * (leaf if is_leaf else inner)
            raw = self._bytes(place + 4, size, what)
            if is_leaf:
                found.append((place + 4, count))
                continue
            children = [
                struct.unpack_from(f"{self._order}Q", raw, at + inner - 8)[0]
                for at in range(0, size, inner)
            ]
            waiting += [(child, depth + 1) for child in reversed(children)]
        return found

    # --- index -----------------------------------------------------------------------------

    def _read_index(self) -> None:
        what = "the index"
        (magic,) = self._unpack("I", self._index_at, what)
        if magic != _INDEX_MAGIC:
            raise self._wrong(f"{what} is not where the header says")
        names = ("chrom", "start", "end_chrom", "end", "place", "size")
        kind = np.dtype([(n, f"{self._order}u{8 if n in names[4:] else 4}") for n in names])
        parts = [
            np.frombuffer(self._bytes(place, count * 32, what), dtype=kind)
            for place, count in self._leaves(self._index_at + 48, 32, 24, what)
        ]
        raw = np.concatenate(parts) if parts else np.empty(0, dtype=kind)
        if (raw["place"] >= 1 << 62).any() or (raw["size"] >= 1 << 62).any():
            raise self._wrong("a section lies past the end of the file")
        self._index = raw.astype([(name, np.int64) for name in names])
        self._check_index()
        found, first, number = np.unique(
            self._index["chrom"], return_index=True, return_counts=True
        )
        # How far the sections up to each one reach: an index may overstate an end, by no more
        # than the gap behind a section's last interval.
        self._reach = self._index["end"].copy()
        for f, n in zip(first.tolist(), number.tolist(), strict=True):
            np.maximum.accumulate(self._reach[f : f + n], out=self._reach[f : f + n])
        self._range = {
            int(c): (int(f), int(f + n)) for c, f, n in zip(found, first, number, strict=True)
        }

    def _check_index(self) -> None:
        index = self._index
        chrom, start, end = index["chrom"], index["start"], index["end"]
        if (index["place"] + index["size"] > self._file.size).any():
            raise self._wrong("a section lies past the end of the file")
        if (index["size"] > _SECTION_MAX * 2).any():
            raise self._wrong("a section claims more bytes than it can have")
        listed = np.isin(chrom, list(self._ids.values()))
        if (chrom != index["end_chrom"]).any() or not listed.all():
            raise self._wrong("a section is on a chromosome that the file does not list")
        if (start >= end).any():
            raise self._wrong("a section is reversed")
        later = chrom[1:] > chrom[:-1]
        if not (later | ((chrom[1:] == chrom[:-1]) & (start[1:] >= start[:-1]))).all():
            raise self._wrong("its sections are not in order")

    # --- sections --------------------------------------------------------------------------

    def _section(self, i: int) -> Steps:
        found = self._kept.pop(i, None)
        if found is None:
            found = self._decode(i)
        self._kept[i] = found
        while len(self._kept) > _KEPT_SECTIONS:
            self._kept.popitem(last=False)
        return found

    def _decode(self, i: int) -> Steps:
        row = self._index[i]
        raw = self._inflate(self._bytes(int(row["place"]), int(row["size"]), "a section"), i)
        if len(raw) < _SECTION_HEAD:
            raise self._wrong(f"section {i} is cut short")
        head = struct.unpack_from(f"{self._order}IIIIIBBH", raw)
        chrom, first, _, step, span, kind, _, count = head
        size = {_BED_GRAPH: 12, _VARIABLE: 8, _FIXED: 4}.get(kind)
        if size is None or len(raw) != _SECTION_HEAD + size * count:
            raise self._wrong(f"section {i} does not hold the {count} items it claims")
        table = np.frombuffer(raw, dtype=f"{self._order}u4", offset=_SECTION_HEAD)
        table = table.reshape(count, size // 4)
        value = table[:, -1].copy().view(f"{self._order}f4").astype(np.float32)
        if kind == _FIXED:
            start = first + step * np.arange(count, dtype=np.int64)
        else:
            start = table[:, 0].astype(np.int64)
        end = table[:, 1].astype(np.int64) if kind == _BED_GRAPH else start + span
        if (start >= end).any() or (start[1:] < end[:-1]).any():
            raise self._wrong(f"section {i} has overlapping or reversed intervals")
        # Libraries write empty sections too.
        inside = not count or (start[0] >= row["start"] and end[-1] <= row["end"])
        if chrom != row["chrom"] or not inside:
            raise self._wrong(f"section {i} is not what the index says")
        if count and end[-1] > self._limits[int(chrom)]:
            raise self._wrong(f"section {i} goes past the end of its chromosome")
        return Steps(start, end, value)

    def _inflate(self, raw: bytes, i: int) -> bytes:
        if not self._inflated:
            return raw
        tool = zlib.decompressobj()
        try:
            out = tool.decompress(raw, _SECTION_MAX + 1)
        except zlib.error as err:
            raise self._wrong(f"section {i} does not inflate ({err})") from None
        if len(out) > _SECTION_MAX or not tool.eof:
            raise self._wrong(f"section {i} is cut short or longer than a section can be")
        return out
