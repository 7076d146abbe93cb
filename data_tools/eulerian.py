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

from data_tools.counter_random import Words, child_keys, uniforms, words
from data_tools.encode import Codes

IntArray = NDArray[np.int64]
Keys = NDArray[Any]

_FEW_ROWS = 150
"""Trails that plain Python walks faster one by one than NumPy all together."""

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
    def last(self) -> int:
        return 1 << (self.bits - self.vertex_bits - 1)

    @property
    def random(self) -> int:
        return self.last - (1 << self.target_bits)


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
        Edges as sorting keys without their random part, sorted; all ones beyond the last.
    starts, counts : ndarray, shape (T, V)
        Where the edges out of each vertex begin in ``template``, and how many there are.
    layout
        Where the parts of a key stand.
    """

    first: IntArray
    root: IntArray
    edges: IntArray
    template: Keys
    starts: IntArray
    counts: IntArray
    layout: _Layout

    def targets(self, rows: IntArray, slots: IntArray) -> IntArray:
        """Vertices to which these edges lead."""
        mask = self.template.dtype.type((1 << self.layout.target_bits) - 1)
        return (self.template[rows, slots] & mask).astype(np.int64)


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
    words_at = np.zeros((len(codes), widest), dtype=np.uint32)
    for offset in range(k):
        words_at = (words_at << np.uint32(2)) | codes[:, offset : offset + widest]
    rows = np.arange(len(codes))
    # A k-mer's source is its first k-1 letters and its target the last k-1; with k = 1 there is
    # one vertex, and the "target" is the letter.
    layout = _layout(k, widest)
    shift = layout.bits - layout.vertex_bits
    source = (words_at >> np.uint32(2)).astype(layout.dtype)
    target = (words_at & np.uint32((1 << layout.target_bits) - 1)).astype(layout.dtype)
    beyond = np.arange(widest) >= edges[:, None]
    flat = (rows[:, None] * vertices + source.astype(np.int64))[~beyond]
    counts = np.bincount(flat, minlength=len(codes) * vertices).reshape(len(codes), vertices)
    template = (source << layout.dtype(shift)) | target if k > 1 else target
    template[beyond] = np.iinfo(layout.dtype).max
    template.sort(axis=1)
    final = words_at[rows, edges - 1].astype(np.int64) & (vertices - 1)
    first = words_at[:, 0].astype(np.int64) >> 2
    return Graphs(
        first, final, edges, template, np.cumsum(counts, axis=1) - counts, counts, layout
    )


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
    order = _random_order(graph, rows, keys)
    if graph.counts.shape[1] == 1:
        return order
    if len(rows) < _FEW_ROWS:
        return _walk_one_by_one(graph, rows, order)
    return _walk_together(graph, rows, order)


# --- the order in which each vertex's edges are taken --------------------------------------


def _random_order(graph: Graphs, rows: IntArray, keys: Words) -> NDArray[Any]:
    """Targets of the edges, by source, in random order with the last exit last: (R, E)."""
    layout = graph.layout
    width = graph.template.shape[1]
    per_word = 64 // layout.bits
    counters = np.arange(-(-width // per_word), dtype=np.uint64)
    drawn = words(child_keys(keys, _ORDER)[:, None], counters).view(layout.dtype)[:, :width]
    drawn &= layout.dtype(layout.random)
    drawn |= graph.template[rows]
    trails, exits = _last_exits(graph, rows, child_keys(keys, _TREE))
    drawn[trails, exits] |= layout.dtype(layout.last)
    drawn = np.sort(drawn, axis=1)
    _break_ties(drawn, layout, child_keys(keys, _TIES))
    small = np.uint8 if layout.target_bits <= 8 else np.uint16
    order: NDArray[Any] = drawn.astype(small)
    order &= small((1 << layout.target_bits) - 1)
    return order


def _break_ties(sorted_keys: Keys, layout: _Layout, keys: Words) -> None:
    """Put edges that drew the same number in random order, where it makes a difference."""
    gaps = np.diff(sorted_keys, axis=1)
    # Unsigned: 0, which is two equal edges, becomes the largest number.
    gaps -= layout.dtype(1)
    least = (1 << layout.target_bits) - 1
    if not gaps.size or gaps.min() >= least:
        return
    counters = np.arange(sorted_keys.shape[1], dtype=np.uint64)
    for row in np.flatnonzero((gaps < least).any(axis=1)):
        again = words(keys[row : row + 1], counters)
        drawn = sorted_keys[row] >> layout.dtype(layout.target_bits)
        sorted_keys[row] = sorted_keys[row][np.lexsort((again, drawn))]


def _last_exits(graph: Graphs, rows: IntArray, keys: Words) -> tuple[IntArray, IntArray]:
    """Draw a uniform tree of last exits for each trail: trail and slot of each exit."""
    vertices = graph.counts.shape[1]
    leaves = graph.counts[rows] > 0
    everyone = np.arange(len(rows))
    leaves[everyone, graph.root[rows]] = False
    exits = np.zeros(leaves.shape, dtype=np.int64)
    parents = np.tile(np.arange(vertices), (len(rows), 1))
    trails, tails = np.nonzero(leaves)
    redraw = 0
    while trails.size:
        graph_rows = rows[trails]
        drawn = uniforms(keys[trails], (redraw * vertices + tails).astype(np.uint64))
        slots = (drawn * graph.counts[graph_rows, tails]).astype(np.int64)
        slots += graph.starts[graph_rows, tails]
        exits[trails, tails] = slots
        parents[trails, tails] = graph.targets(graph_rows, slots)
        active = trails[np.diff(trails, prepend=-1) > 0]
        on_cycle = _on_cycles(parents[active]) & leaves[active]
        which, tails = np.nonzero(on_cycle)
        trails = active[which]
        redraw += 1
    trails, tails = np.nonzero(leaves)
    return trails, exits[trails, tails]


def _on_cycles(parents: IntArray) -> NDArray[np.bool_]:
    """Which vertices lie on a cycle of the map, fixed points included: those that it ends at."""
    steps = parents
    for _ in range((parents.shape[1] - 1).bit_length()):
        steps = np.take_along_axis(steps, steps, axis=1)
    result = np.zeros(parents.shape, dtype=np.bool_)
    np.put_along_axis(result, steps, True, axis=1)
    return result


# --- the walk --------------------------------------------------------------------------------


def _walk_one_by_one(graph: Graphs, rows: IntArray, order: NDArray[Any]) -> NDArray[Any]:
    out = np.zeros_like(order)
    for trail, row in enumerate(rows.tolist()):
        bounds = zip(graph.starts[row].tolist(), graph.counts[row].tolist(), strict=True)
        exits = [iter(order[trail, at : at + size].tolist()) for at, size in bounds]
        at = int(graph.first[row])
        number = int(graph.edges[row])
        out[trail, :number] = [at := next(exits[at]) for _ in range(number)]
    return out


def _walk_together(graph: Graphs, rows: IntArray, order: NDArray[Any]) -> NDArray[Any]:
    """All trails take a step at a time; `place` is where a trail's vertex keeps its next edge."""
    number, width = order.shape
    vertices = graph.counts.shape[1]
    first_place = np.arange(number) * vertices
    place = first_place + graph.first[rows]
    edge = np.empty(number, dtype=np.int64)
    following = (graph.starts[rows] + np.arange(number)[:, None] * width).ravel()
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
