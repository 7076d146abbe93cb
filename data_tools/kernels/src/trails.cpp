// Two loops of data_tools.eulerian: edges counted, and trails walked.
#include <stdint.h>
#include <string.h>

namespace {

constexpr int64_t MOST_VERTICES = 1024;
constexpr int TOGETHER = 4;  // trails side by side: a step waits for the one before it

// kmers (T, W): the edges of each graph by number, `edges` of them; counts (T, 4 V): how often each
// occurs; slots (T, 4 V): where in its row the last one stands.
template <class K>
bool count(const K* kmers, const int64_t* edges, int32_t* counts, int32_t* slots, int64_t rows,
           int64_t width, int64_t numbers) {
  for (int64_t row = 0; row < rows; ++row) {
    const K* mine = kmers + row * width;
    int32_t *sum = counts + row * numbers, *last = slots + row * numbers;
    memset(sum, 0, sizeof(int32_t) * numbers);
    memset(last, 0, sizeof(int32_t) * numbers);
    if (edges[row] > width) return false;
    for (int64_t i = 0; i < edges[row]; ++i) {
      if (mine[i] >= numbers) return false;
      ++sum[mine[i]];
      last[mine[i]] = int32_t(i);
    }
  }
  return true;
}

template <class T> struct Trail {
  const T* order;
  T* out;
  int64_t at, left;
  int32_t next[MOST_VERTICES];

  bool step(int64_t i, int64_t width, int64_t vertices) {
    if (uint64_t(at) >= uint64_t(vertices) || uint64_t(next[at]) >= uint64_t(width)) return false;
    at = order[next[at]++];
    out[i] = T(at);
    return true;
  }
};

// order (R, W): targets of the edges, by source, in the order in which they are taken; starts
// (T, V): where in its row the edges of a vertex begin; graph, edges (R): which graph a trail runs
// through and how many edges it takes; first (T): where it begins; out (R, W): vertices after the
// first. False where an edge would lie outside its row.
template <class T>
bool walk(const T* order, const int32_t* starts, const int64_t* graph, const int64_t* first,
          const int64_t* edges, T* out, int64_t rows, int64_t width, int64_t vertices) {
  Trail<T> trails[TOGETHER];
  for (int64_t row = 0; row < rows; row += TOGETHER) {
    const int many = rows - row < TOGETHER ? int(rows - row) : TOGETHER;
    int64_t common = width;
    for (int t = 0; t < many; ++t) {
      const int64_t g = graph[row + t];
      trails[t].order = order + (row + t) * width;
      trails[t].out = out + (row + t) * width;
      trails[t].at = first[g];
      trails[t].left = edges[row + t];
      memcpy(trails[t].next, starts + g * vertices, sizeof(int32_t) * vertices);
      if (trails[t].left > width) return false;
      if (trails[t].left < common) common = trails[t].left;
    }
    bool good = true;
    if (many == TOGETHER) {
      for (int64_t i = 0; i < common && good; ++i)
        for (int t = 0; t < TOGETHER; ++t) good = trails[t].step(i, width, vertices) && good;
    } else {
      common = 0;
    }
    for (int t = 0; t < many; ++t)
      for (int64_t i = common; i < trails[t].left && good; ++i)
        good = trails[t].step(i, width, vertices);
    if (!good) return false;
  }
  return true;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

// Both give 0 when done and 1 where what was handed in does not fit together; `bytes` is the size
// of a number in the first array.
EXPORT int dt_count(const void* kmers, int64_t bytes, const int64_t* edges, int32_t* counts,
                    int32_t* slots, int64_t rows, int64_t width, int64_t numbers) {
  const bool good =
      bytes == 1 ? count(static_cast<const uint8_t*>(kmers), edges, counts, slots, rows, width,
                         numbers)
                 : count(static_cast<const uint16_t*>(kmers), edges, counts, slots, rows, width,
                         numbers);
  return good ? 0 : 1;
}

EXPORT int dt_walk(const void* order, int64_t bytes, const int32_t* starts, const int64_t* graph,
                   const int64_t* first, const int64_t* edges, void* out, int64_t rows,
                   int64_t width, int64_t vertices) {
  if (vertices > MOST_VERTICES || vertices < 1) return 1;
  const bool good =
      bytes == 1 ? walk(static_cast<const uint8_t*>(order), starts, graph, first, edges,
                        static_cast<uint8_t*>(out), rows, width, vertices)
                 : walk(static_cast<const uint16_t*>(order), starts, graph, first, edges,
                        static_cast<uint16_t*>(out), rows, width, vertices);
  return good ? 0 : 1;
}
