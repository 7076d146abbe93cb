"""Random Eulerian trails through the k-mers of many sequences at once.

A sequence is a trail through the graph whose vertices are its (k-1)-mers and whose edges are its
k-mers; the trails with the same first vertex and the same edges are the sequences with the same
k-mer counts. To draw one uniformly (Altschul & Erickson 1985): draw, uniformly, a tree of *last
exits*, which leads from every vertex to the last one; put the other edges out of each vertex in
random order before its last exit; walk, taking each vertex's edges in that order.

The trees are drawn by cycle popping (Propp & Wilson 1998), not by the paper's rejection, whose
chance to be accepted falls quickly with k. Each vertex draws an exit; as long as exits form
cycles, the vertices on them draw anew. The tree that is left is uniform whatever the order in
which cycles are popped, so all cycles of all sequences are popped together.

References
----------
Altschul & Erickson (1985), Significance of nucleotide sequence alignments: a method for random
sequence permutation that preserves dinucleotide and codon usage. Mol. Biol. Evol. 2, 526-538.
Propp & Wilson (1998), How to get a perfectly random sample from a generic Markov chain and
generate a random spanning tree of a directed graph. J. Algorithms 27, 170-217.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools import kernels
from data_tools.counter_random import Words, child_keys, uniforms, words
from data_tools.encode import Codes
from data_tools.kernels import trails as compiled

IntArray = NDArray[np.int64]
Keys = NDArray[Any]

_FEW_ROWS = 150
"""Trails that plain Python walks faster one by one than NumPy all together."""

_TOGETHER = 2048
"""Trails that are walked together: enough to pay for NumPy's calls, few enough for the cache."""

_CACHED = 1 << 15
"""Edges whose keys stay in the processor's cache from the draw to the sorted order."""

_ORDER, _TREE, _TIES = range(3)


@dataclass(frozen=True)
class _Layout:
    """Where the parts of an edge's sorting key stand: source, last exit, random, target."""

    bits: int
    vertex_bits: int
    target_bits: int

    @property
    def dtype(self) -> Any:
        return np.uint32 if self.bits == 32 else np.uint64

    @property
    def target_dtype(self) -> Any:
        return np.uint8 if self.target_bits <= 8 else np.uint16

    @property
    def last(self) -> int:
        return 1 << (self.bits - self.vertex_bits - 1)

    @property
    def random(self) -> int:
        return self.last - (1 << self.target_bits)

    def keys_of_words(self) -> Keys:
        """The key of each k-mer, without its random part, by the k-mer's number.

        A k-mer's source is its first k-1 letters and its target its last k-1. With k = 1 there is
        one vertex, and the letter stands in the place of the target.
        """
        every = np.arange(4 << self.vertex_bits, dtype=self.dtype)
        target: Keys = every & self.dtype((1 << self.target_bits) - 1)
        if self.vertex_bits:
            target |= (every >> self.dtype(2)) << self.dtype(self.bits - self.vertex_bits)
        return target


def _layout(k: int, edges: int) -> _Layout:
    """Keys of 32 bits where two of a trail's edges seldom draw the same number, else of 64."""
    vertex_bits = 2 * (k - 1)
    target_bits = max(vertex_bits, 2)
    spare = 32 - vertex_bits - target_bits - 1 - 2 * max(edges, 1).bit_length()
    return _Layout(32 if spare >= 2 else 64, vertex_bits, target_bits)


@dataclass(frozen=True)
class Graphs:
    """The k-mer graphs of T sequences, for drawing trails.

    Attributes
    ----------
    first : ndarray, shape (T,)
        Vertex at which each trail begins.
    root : ndarray, shape (T,)
        Vertex at which each ends.
    edges : ndarray, shape (T,)
        Edges of each, from many to few.
    template : ndarray, shape (T, E)
        Edges as sorting keys without their random part; all ones beyond the last.
    exits : ndarray, shape (T, V, 4)
        Edges out of each vertex by their letter, summed up over the letters.
    slots : ndarray, shape (T, V, 4)
        Where in ``template`` one of these edges stands.
    layout
        Where the parts of a key stand.
    """

    first: IntArray
    root: IntArray
    edges: IntArray
    template: Keys
    exits: NDArray[np.int32]
    slots: NDArray[np.int32]
    layout: _Layout

    @property
    def vertices(self) -> int:
        """How many vertices a graph has, V."""
        return int(self.exits.shape[1])

    @property
    def counts(self) -> NDArray[np.int32]:
        """Edges out of each vertex, shape (T, V)."""
        return self.exits[:, :, 3]


def graphs(codes: Codes, lengths: IntArray, k: int) -> Graphs:
    """Make the k-mer graphs of sequences.

    Parameters
    ----------
    codes
        Shape (T, L), values 0 to 3, padded with anything beyond each sequence's length.
    lengths
        Shape (T,), at least k, from long to short.
    k
        Length of the words whose counts are kept.
    """
    edges = lengths - k + 1
    widest = int(edges[0])
    vertices = 4 ** (k - 1)
    layout = _layout(k, widest)
    small = np.uint8 if k <= 4 else np.uint16
    found: NDArray[Any] = codes[:, :widest].astype(small)
    for offset in range(1, k):
        found = (found << small(2)) | codes[:, offset : offset + widest]
    template = layout.keys_of_words()[found]
    if edges[-1] < widest:
        template[np.arange(widest) >= edges[:, None]] = np.iinfo(layout.dtype).max
    counter = compiled.count_edges if kernels.available() else _count_edges
    counts, slots = counter(found, edges, 4 * vertices)
    rows = np.arange(len(codes))
    shape = (len(codes), vertices, 4)
    return Graphs(
        first=found[:, 0].astype(np.int64) >> 2,
        root=found[rows, edges - 1].astype(np.int64) & (vertices - 1),
        edges=edges,
        template=template,
        exits=np.cumsum(counts.reshape(shape), axis=2, dtype=np.int32),
        slots=slots.reshape(shape),
        layout=layout,
    )


def _count_edges(
    found: NDArray[Any], edges: IntArray, numbers: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The same as `data_tools.kernels.count_edges`."""
    number, widest = found.shape
    place = found + np.arange(number)[:, None] * numbers
    place[np.arange(widest) >= edges[:, None]] = numbers * number
    size = numbers * number
    counts = np.bincount(place.ravel(), minlength=size + 1)[:size].astype(np.int32)
    # Of several equal edges any may stand for all: the last one written stays.
    slots = np.zeros(size + 1, dtype=np.int32)
    slots[place] = np.arange(widest, dtype=np.int32)
    return counts.reshape(number, -1), slots[:size].reshape(number, -1)


def random_trails(graph: Graphs, rows: IntArray, keys: Words) -> NDArray[Any]:
    """Draw a trail for each row, uniform over the trails of its graph.

    Parameters
    ----------
    graph
        The graphs.
    rows
        Which graph each trail runs through, ascending, shape (R,).
    keys
        Key of each trail's random numbers, shape (R,).

    Returns
    -------
    ndarray of unsigned integers, shape (R, E)
        Vertices after the first; the lowest two bits are the letter. Beyond a trail's end, any.
    """
    width = graph.template.shape[1]
    few = len(rows) < _FEW_ROWS
    result = np.empty((len(rows), width), dtype=graph.layout.target_dtype)
    for lo in range(0, len(rows), _TOGETHER):
        part = slice(lo, lo + _TOGETHER)
        order = _random_order(graph, rows[part], keys[part])
        if graph.vertices == 1:
            result[part] = order
        elif kernels.available():
            result[part] = _walk_compiled(graph, rows[part], order)
        else:
            walk = _walk_one_by_one if few else _walk_together
            result[part] = walk(graph, rows[part], order)
    return result


# --- the order in which each vertex's edges are taken --------------------------------------


def _random_order(graph: Graphs, rows: IntArray, keys: Words) -> NDArray[Any]:
    """Targets of the edges, by source, in random order with the last exit last: (R, E)."""
    layout = graph.layout
    width = graph.template.shape[1]
    order = np.empty((len(rows), width), dtype=layout.target_dtype)
    trails, slots = _last_exits(graph, rows, child_keys(keys, _TREE))
    own, ties = child_keys(keys, _ORDER), child_keys(keys, _TIES)
    step = max(1, _CACHED // width)
    for lo in range(0, len(rows), step):
        part = slice(lo, lo + step)
        drawn = _random_bits(layout, own[part], width)
        drawn |= graph.template[rows[part]]
        mine = slice(*np.searchsorted(trails, [lo, lo + step]))
        drawn[trails[mine] - lo, slots[mine]] |= layout.dtype(layout.last)
        drawn.sort(axis=1)
        _break_ties(drawn, layout, ties[part])
        drawn &= layout.dtype((1 << layout.target_bits) - 1)
        order[part] = drawn
    return order


def _random_bits(layout: _Layout, keys: Words, width: int) -> Keys:
    """The random part of so many edges' keys for each key."""
    counters = np.arange(-(-width * layout.bits // 64), dtype=np.uint64)
    drawn: Keys = words(keys[:, None], counters).view(layout.dtype)[:, :width]
    drawn &= layout.dtype(layout.random)
    return drawn


def _break_ties(sorted_keys: Keys, layout: _Layout, keys: Words) -> None:
    """Put edges that drew the same number in random order, where it makes a difference."""
    gaps = np.diff(sorted_keys, axis=1)
    targets = 1 << layout.target_bits
    if not gaps.size or gaps.min() >= targets:
        return
    tied = ((gaps > 0) & (gaps < targets)).any(axis=1)
    counters = np.arange(sorted_keys.shape[1], dtype=np.uint64)
    for row in np.flatnonzero(tied):
        again = words(keys[row : row + 1], counters)
        drawn = sorted_keys[row] >> layout.dtype(layout.target_bits)
        sorted_keys[row] = sorted_keys[row][np.lexsort((again, drawn))]


def _last_exits(graph: Graphs, rows: IntArray, keys: Words) -> tuple[IntArray, IntArray]:
    """Draw a uniform tree of last exits for each trail: trail and slot of each exit."""
    vertices = graph.vertices
    leaves = graph.counts[rows] > 0
    leaves[np.arange(len(rows)), graph.root[rows]] = False
    parents = np.tile(np.arange(vertices), (len(rows), 1))
    chosen = np.zeros(leaves.shape, dtype=np.int64)
    # A trail and a vertex are one number, a pair: one-dimensional gathers are the fast ones.
    pairs = np.flatnonzero(leaves)
    redraw = 0
    while pairs.size:
        trails, tails = np.divmod(pairs, vertices)
        drawn = uniforms(keys[trails], (redraw * vertices + tails).astype(np.uint64))
        letters = _letters(graph, (rows[trails] * vertices + tails) * 4, drawn)
        chosen.ravel()[pairs] = letters
        parents.ravel()[pairs] = (tails * 4 + letters) & (vertices - 1)
        active = trails[np.diff(trails, prepend=-1) > 0]
        cyclic = np.flatnonzero(_on_cycles(parents[active]) & leaves[active])
        which, tails = np.divmod(cyclic, vertices)
        pairs = active[which] * vertices + tails
        redraw += 1
    trails, tails = np.nonzero(leaves)
    return trails, graph.slots[rows[trails], tails, chosen[trails, tails]].astype(np.int64)


def _letters(graph: Graphs, at: IntArray, drawn: NDArray[np.float64]) -> IntArray:
    """Letter of a random edge out of each vertex, whose counts by letter begin at ``at``."""
    number = (drawn * graph.exits.take(at + 3)).astype(np.int64)
    letters = np.zeros(len(at), dtype=np.int64)
    for letter in range(3):
        letters += number >= graph.exits.take(at + letter)
    return letters


def _on_cycles(parents: IntArray) -> NDArray[np.bool_]:
    """Which vertices lie on a cycle of the map, fixed points included: those that it ends at."""
    number, vertices = parents.shape
    steps = parents + np.arange(number)[:, None] * vertices
    for _ in range((vertices - 1).bit_length()):
        steps = steps.take(steps)
    result = np.zeros(parents.shape, dtype=np.bool_)
    result.ravel()[steps] = True
    return result


# --- the walk --------------------------------------------------------------------------------


def _walk_compiled(graph: Graphs, rows: IntArray, order: NDArray[Any]) -> NDArray[Any]:
    starts = np.cumsum(graph.counts, axis=1, dtype=np.int32) - graph.counts
    return compiled.walk(order, starts, rows, graph.first, graph.edges[rows])


def _walk_one_by_one(graph: Graphs, rows: IntArray, order: NDArray[Any]) -> NDArray[Any]:
    out = np.zeros_like(order)
    for trail, row in enumerate(rows.tolist()):
        ends = np.cumsum(graph.counts[row]).tolist()
        exits = [iter(part.tolist()) for part in np.split(order[trail], ends)]
        at = int(graph.first[row])
        number = int(graph.edges[row])
        out[trail, :number] = [at := next(exits[at]) for _ in range(number)]
    return out


def _walk_together(graph: Graphs, rows: IntArray, order: NDArray[Any]) -> NDArray[Any]:
    """All trails take a step at a time; `place` is where a trail's vertex keeps its next edge."""
    number, width = order.shape
    starts = np.cumsum(graph.counts, axis=1) - graph.counts
    first_place = np.arange(number) * graph.vertices
    place = first_place + graph.first[rows]
    edge = np.empty(number, dtype=np.int64)
    following = (starts[rows] + np.arange(number)[:, None] * width).ravel()
    flat = order.ravel()
    out = np.empty((width, number), dtype=order.dtype)
    for begin, end, active in _steps(graph.edges[rows]):
        place, edge, base = place[:active], edge[:active], first_place[:active]
        for line in out[begin:end, :active]:
            following.take(place, out=edge, mode="clip")
            flat.take(edge, out=line, mode="clip")
            edge += 1
            following[place] = edge
            np.add(base, line, out=place)
    return out.T


def _steps(edges: IntArray) -> Iterator[tuple[int, int, int]]:
    """Runs of steps (begin, end) that the first so many trails take; they get fewer."""
    begin = 0
    for end in np.unique(edges).tolist():
        yield begin, end, int(np.count_nonzero(edges >= end))
        begin = end
