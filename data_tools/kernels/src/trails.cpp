// Two loops of data_tools.eulerian: edges counted, and random trails drawn and walked.
#include <stdint.h>
#include <string.h>

namespace {

constexpr int64_t MOST_VERTICES = 1024;
constexpr int LETTERS = 4;
constexpr int TOGETHER = 4;  // trails side by side: a step waits for the one before it

// kmers (T, W): the edges of each graph by number, `edges` of them; counts (T, numbers): how often
// each occurs.
template <class K>
bool count(const K* kmers, const int64_t* edges, int32_t* counts, int64_t rows, int64_t width,
           int64_t numbers) {
  memset(counts, 0, sizeof(int32_t) * rows * numbers);
  for (int64_t row = 0; row < rows; ++row) {
    const K* mine = kmers + row * width;
    int32_t* sum = counts + row * numbers;
    if (edges[row] > width) return false;
    for (int64_t i = 0; i < edges[row]; ++i) {
      if (mine[i] >= numbers) return false;
      ++sum[mine[i]];
    }
  }
  return true;
}

// A random number of [0, size), as data_tools.counter_random has it (SplitMix64).
inline int64_t below(int64_t size, uint64_t key, uint64_t counter) {
  uint64_t state = (counter + 1) * 0x9E3779B97F4A7C15u + key;
  state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9u;
  state = (state ^ (state >> 27)) * 0x94D049BB133111EBu;
  state ^= state >> 31;
  return int64_t(double(int64_t(state >> 11)) * 0x1p-53 * double(size));
}

struct Trail {
  uint8_t* order;  // letters of the edges by source, in the order in which they are taken
  uint8_t* out;
  int64_t at, edges;
  int64_t next[MOST_VERTICES];

  // counts (V, 4): edges by source and letter; last (V): the letter of each last exit, 4 for none.
  bool draw(const int32_t* counts, const uint8_t* last, uint64_t key, int64_t vertices) {
    int64_t place = 0;
    for (int64_t v = 0; v < vertices; ++v) {
      const int64_t begin = next[v] = place;
      for (uint8_t letter = 0; letter < LETTERS; ++letter) {
        const int64_t many = counts[LETTERS * v + letter] - (last[v] == letter);
        if (many < 0 || many > edges - place) return false;
        memset(order + place, letter, many);
        place += many;
      }
      for (int64_t i = begin + 1; i < place; ++i) {
        const int64_t other = begin + below(i - begin + 1, key, i);
        const uint8_t letter = order[i];
        order[i] = order[other];
        order[other] = letter;
      }
      if (last[v] < LETTERS) {
        if (place == edges) return false;
        order[place++] = last[v];
      }
    }
    return place == edges;
  }

  bool step(int64_t i, int64_t vertices) {
    if (next[at] >= edges) return false;
    out[i] = order[next[at]++];
    at = (at * LETTERS + out[i]) & (vertices - 1);
    return true;
  }
};

// Several trails take their steps in turn.
bool walk(Trail* trails, int many, int64_t vertices) {
  int64_t common = trails[0].edges;
  for (int t = 1; t < many; ++t)
    if (trails[t].edges < common) common = trails[t].edges;
  bool good = true;
  if (many < TOGETHER) common = 0;
  for (int64_t i = 0; i < common && good; ++i)
    for (int t = 0; t < TOGETHER; ++t) good = trails[t].step(i, vertices) && good;
  for (int t = 0; t < many; ++t)
    for (int64_t i = common; i < trails[t].edges && good; ++i) good = trails[t].step(i, vertices);
  return good;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Both give 0 when done and 1 where what was handed in does not fit together.

// bytes: the size of a number in the first array.
EXPORT int dt_count(const void* kmers, int64_t bytes, const int64_t* edges, int32_t* counts,
                    int64_t rows, int64_t width, int64_t numbers) {
  const bool good =
      bytes == 1 ? count(static_cast<const uint8_t*>(kmers), edges, counts, rows, width, numbers)
                 : count(static_cast<const uint16_t*>(kmers), edges, counts, rows, width, numbers);
  return good ? 0 : 1;
}

// counts (T, V, 4), edges, first (T): the graphs, and where their trails begin; graph (R), last
// (R, V), keys (R): which graph a trail runs through, its last exits and the key of its random
// numbers; out (R, W): the letters of its steps; room (4, W): for the work.
EXPORT int dt_trails(const int32_t* counts, const int64_t* edges, const int64_t* first,
                     int64_t vertices, const int64_t* graph, const uint8_t* last,
                     const uint64_t* keys, uint8_t* out, uint8_t* room, int64_t rows,
                     int64_t width) {
  if (vertices > MOST_VERTICES || vertices < 1 || (vertices & (vertices - 1))) return 1;
  Trail trails[TOGETHER];
  for (int64_t row = 0; row < rows; row += TOGETHER) {
    const int many = rows - row < TOGETHER ? int(rows - row) : TOGETHER;
    for (int t = 0; t < many; ++t) {
      const int64_t mine = graph[row + t];
      Trail& trail = trails[t];
      trail.order = room + t * width;
      trail.out = out + (row + t) * width;
      trail.at = first[mine];
      trail.edges = edges[mine];
      if (uint64_t(trail.at) >= uint64_t(vertices) || trail.edges > width) return 1;
      const int32_t* own = counts + mine * vertices * LETTERS;
      if (!trail.draw(own, last + (row + t) * vertices, keys[row + t], vertices)) return 1;
    }
    if (!walk(trails, many, vertices)) return 1;
  }
  return 0;
}
