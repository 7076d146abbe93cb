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
Durstenfeld (1964), Algorithm 235: random permutation. Commun. ACM 7, 420.
Propp & Wilson (1998), How to get a perfectly random sample from a generic Markov chain and
generate a random spanning tree of a directed graph. J. Algorithms 27, 170-217.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools import kernels
from data_tools.counter_random import Words, child_keys, uniforms
from data_tools.encode import Codes
from data_tools.kernels import trails as compiled

IntArray = NDArray[np.int64]
Letters = NDArray[np.uint8]
_Shuffle = Callable[[Letters, IntArray, IntArray, IntArray, Words], None]

_FEW_ROWS = 150
"""Trails that plain Python walks faster one by one than NumPy all together."""

_TOGETHER = 2048
"""Trails that are walked together: enough to pay for NumPy's calls, few enough for the cache."""

_PART = 1 << 16
"""Random numbers that are held as Python's own at a time."""

_LETTERS = 4
_NO_EXIT = 4

_ORDER, _TREE = range(2)


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
        Edges of each.
    exits : ndarray, shape (T, V, 4)
        Edges out of each vertex by their letter.
    """

    first: IntArray
    root: IntArray
    edges: IntArray
    exits: NDArray[np.int32]

    @property
    def vertices(self) -> int:
        """How many vertices a graph has, V."""
        return int(self.exits.shape[1])


def graphs(codes: Codes, lengths: IntArray, k: int) -> Graphs:
    """Make the k-mer graphs of sequences.

    Parameters
    ----------
    codes
        Shape (T, L), values 0 to 3, padded with anything beyond each sequence's length.
    lengths
        Shape (T,), at least k.
    k
        Length of the words whose counts are kept.
    """
    edges = lengths - k + 1
    widest = int(edges.max())
    vertices = 4 ** (k - 1)
    small = np.uint8 if k <= 4 else np.uint16
    found: NDArray[Any] = codes[:, :widest].astype(small)
    for offset in range(1, k):
        found = (found << small(2)) | codes[:, offset : offset + widest]
    counter = compiled.count_edges if kernels.available() else _count_edges
    counts = counter(found, edges, _LETTERS * vertices)
    return Graphs(
        # A k-mer's source is its first k-1 letters and its target its last k-1.
        first=found[:, 0].astype(np.int64) >> 2,
        root=found[np.arange(len(codes)), edges - 1].astype(np.int64) & (vertices - 1),
        edges=edges,
        exits=counts.reshape(len(codes), vertices, _LETTERS),
    )


def _count_edges(found: NDArray[Any], edges: IntArray, numbers: int) -> NDArray[np.int32]:
    """The same as `data_tools.kernels.count_edges`."""
    number, widest = found.shape
    place = found + np.arange(number)[:, None] * numbers
    size = numbers * number
    place[np.arange(widest) >= edges[:, None]] = size
    counts = np.bincount(place.ravel(), minlength=size + 1)[:size]
    return counts.astype(np.int32).reshape(number, -1)


def random_trails(graph: Graphs, rows: IntArray, keys: Words) -> Letters:
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
    ndarray of uint8, shape (R, E)
        The letter of each step, E the most edges of a graph. Beyond a trail's end, any.
    """
    result = np.empty((len(rows), int(graph.edges.max())), dtype=np.uint8)
    for lo in range(0, len(rows), _TOGETHER):
        part = slice(lo, lo + _TOGETHER)
        own = rows[part]
        exits = _last_exits(graph, own, child_keys(keys[part], _TREE))
        orders = child_keys(keys[part], _ORDER)
        if kernels.available():
            result[part] = compiled.draw_trails(
                graph.exits, graph.edges, graph.first, own, exits, orders
            )
        else:
            result[part] = _drawn(graph, own, exits, orders)
    return result


# --- the tree of last exits --------------------------------------------------------------------


def _last_exits(graph: Graphs, rows: IntArray, keys: Words) -> Letters:
    """Draw a uniform tree of last exits for each trail, (R, V): letters, 4 where there is none."""
    vertices = graph.vertices
    exits = np.cumsum(graph.exits, axis=2, dtype=np.int32)
    leaves = exits[rows, :, -1] > 0
    leaves[np.arange(len(rows)), graph.root[rows]] = False
    parents = np.tile(np.arange(vertices), (len(rows), 1))
    chosen = np.full(leaves.shape, _NO_EXIT, dtype=np.uint8)
    # A trail and a vertex are one number, a pair: one-dimensional gathers are the fast ones.
    pairs = np.flatnonzero(leaves)
    redraw = 0
    while pairs.size:
        trails, tails = np.divmod(pairs, vertices)
        drawn = uniforms(keys[trails], (redraw * vertices + tails).astype(np.uint64))
        letters = _letters(exits, (rows[trails] * vertices + tails) * _LETTERS, drawn)
        chosen.ravel()[pairs] = letters
        parents.ravel()[pairs] = (tails * _LETTERS + letters) & (vertices - 1)
        active = trails[np.diff(trails, prepend=-1) > 0]
        cyclic = np.flatnonzero(_on_cycles(parents[active]) & leaves[active])
        which, tails = np.divmod(cyclic, vertices)
        pairs = active[which] * vertices + tails
        redraw += 1
    return chosen


def _letters(exits: NDArray[np.int32], at: IntArray, drawn: NDArray[np.float64]) -> IntArray:
    """Letter of a random edge out of each vertex, whose sums over letters begin at ``at``."""
    number = (drawn * exits.take(at + 3)).astype(np.int64)
    letters = np.zeros(len(at), dtype=np.int64)
    for letter in range(_LETTERS - 1):
        letters += number >= exits.take(at + letter)
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


# --- what `data_tools.kernels.draw_trails` does: the order of the other exits, and the walk ------


def _drawn(graph: Graphs, rows: IntArray, exits: Letters, keys: Words) -> Letters:
    few = len(rows) < _FEW_ROWS
    order = _random_order(
        graph, rows, exits, keys, _shuffle_one_by_one if few else _shuffle_together
    )
    return (_walk_one_by_one if few else _walk_together)(graph, rows, order)


def _random_order(
    graph: Graphs, rows: IntArray, exits: Letters, keys: Words, shuffle: _Shuffle
) -> Letters:
    """Letters of the edges by source, in random order with the last exit last: (R, E)."""
    edges = graph.edges[rows]
    has_last = exits < _NO_EXIT
    runs = np.empty((*exits.shape, _LETTERS + 1), dtype=np.int64)
    runs[..., :_LETTERS] = graph.exits[rows] - (exits[..., None] == np.arange(_LETTERS))
    runs[..., _LETTERS] = has_last
    letters = np.tile(np.arange(_LETTERS + 1, dtype=np.uint8), (*exits.shape, 1))
    letters[..., _LETTERS] = exits
    flat = np.repeat(letters.ravel(), runs.ravel())
    sizes = runs.sum(axis=2).ravel()
    starts = np.cumsum(sizes) - sizes
    # Where in its trail each vertex's edges begin: the counter of their random numbers.
    own = starts - np.repeat(np.cumsum(edges) - edges, graph.vertices)
    shuffle(flat, starts, sizes - has_last.ravel(), own, np.repeat(keys, graph.vertices))
    order = np.zeros((len(rows), int(graph.edges.max())), dtype=np.uint8)
    order[np.arange(order.shape[1]) < edges[:, None]] = flat
    return order


def _shuffle_one_by_one(
    flat: Letters, starts: IntArray, sizes: IntArray, counters: IntArray, keys: Words
) -> None:
    """Put stretches in random order (Durstenfeld 1964, from the front)."""
    for row in np.flatnonzero(sizes > 1).tolist():
        letters = flat[starts[row] : starts[row] + sizes[row]]
        mixed = memoryview(letters.data)
        for lo in range(1, len(letters), _PART):
            places = np.arange(lo, min(lo + _PART, len(letters)))
            drawn = uniforms(keys[row : row + 1], (counters[row] + places).astype(np.uint64))
            for here, there in enumerate((drawn * (places + 1)).astype(np.int64).tolist(), lo):
                mixed[here], mixed[there] = mixed[there], mixed[here]


def _shuffle_together(
    flat: Letters, starts: IntArray, sizes: IntArray, counters: IntArray, keys: Words
) -> None:
    """The same, a place of all stretches at a time."""
    largest_first = np.argsort(-sizes, kind="stable")
    starts, counters, keys = starts[largest_first], counters[largest_first], keys[largest_first]
    many = np.searchsorted(-sizes[largest_first], -np.arange(sizes.max(initial=0)))
    for place in range(1, len(many)):
        part = slice(many[place])
        drawn = uniforms(keys[part], (counters[part] + place).astype(np.uint64))
        here, there = starts[part] + place, starts[part] + (drawn * (place + 1)).astype(np.int64)
        flat[here], flat[there] = flat[there], flat[here]


def _walk_one_by_one(graph: Graphs, rows: IntArray, order: Letters) -> Letters:
    out = np.zeros_like(order)
    mask = graph.vertices - 1
    for trail, row in enumerate(rows.tolist()):
        ends = np.cumsum(graph.exits[row].sum(axis=1)).tolist()
        exits = [iter(part.tolist()) for part in np.split(order[trail], ends)]
        at = int(graph.first[row])
        for step in range(int(graph.edges[row])):
            out[trail, step] = letter = next(exits[at])
            at = (at * _LETTERS + letter) & mask
    return out


def _walk_together(graph: Graphs, rows: IntArray, order: Letters) -> Letters:
    """All trails take a step at a time; `place` is where a trail's vertex keeps its next edge."""
    number, width = order.shape
    counts = graph.exits.sum(axis=2)
    starts = np.cumsum(counts, axis=1) - counts
    following = (starts[rows] + np.arange(number)[:, None] * width).ravel()
    flat = order.ravel()
    out = np.zeros((width, number), dtype=np.uint8)
    at = graph.first[rows]
    trails = np.arange(number) * graph.vertices
    edges = graph.edges[rows]
    longest_first = np.argsort(-edges, kind="stable")
    many = np.searchsorted(-edges[longest_first], -np.arange(width))
    for step in range(width):
        now = longest_first[: many[step]]
        place = trails[now] + at[now]
        edge = following.take(place)
        letters = flat.take(edge)
        following[place] = edge + 1
        out[step, now] = letters
        at[now] = (at[now] * _LETTERS + letters) & (graph.vertices - 1)
    return out.T
