// Vectors of 32 bytes, one source for all processors: the compiler lowers them to what it has.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

namespace {

typedef float VecF __attribute__((vector_size(32)));
typedef double VecD __attribute__((vector_size(32)));
typedef int32_t VecI __attribute__((vector_size(32)));

template <class A> struct Lanes;
template <> struct Lanes<float> { typedef VecF V; static constexpr int W = 8; };
template <> struct Lanes<double> { typedef VecD V; static constexpr int W = 4; };
template <class A> using Vec = typename Lanes<A>::V;

template <class A> INLINE Vec<A> splat(A value) { return value - Vec<A>{}; }

// Lanes are added in double and in one fixed order: a tree, which is shorter than a chain.
INLINE double add_lanes(VecD v) { return (v[0] + v[1]) + (v[2] + v[3]); }
INLINE double add_lanes(VecF v) {
#if defined(__AVX2__)
  // The same sum without the way through memory that compilers take from the lines below.
  const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
  return add_lanes(VecD(_mm256_add_pd(low, _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)))));
#else
  typedef float Half __attribute__((vector_size(16)));
  Half half[2];
  memcpy(half, &v, sizeof v);
  return add_lanes(__builtin_convertvector(half[0], VecD) + __builtin_convertvector(half[1], VecD));
#endif
}

INLINE VecF square_root(VecF v) {
  for (int k = 0; k < 8; ++k) v[k] = sqrtf(v[k]);
  return v;
}
INLINE VecD square_root(VecD v) {
  for (int k = 0; k < 4; ++k) v[k] = sqrt(v[k]);
  return v;
}

// Plain loads and stores of the compute types.
template <class A> INLINE Vec<A> load_vector(const A* p) {
  Vec<A> v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class A> INLINE void store_vector(A* p, Vec<A> v) { memcpy(p, &v, sizeof v); }

// Ask for a cache line before it is needed. Only advice: the address may be of nothing.
INLINE void fetch(const void* p) { __builtin_prefetch(p, 0); }
INLINE void fetch_to_write(const void* p) { __builtin_prefetch(p, 1); }

// K running sums. Four sets of lanes hide the latency of the additions; they are emptied into
// doubles before a sum of floats gets long.
constexpr int64_t BLOCK = 2048;

template <class A, int K> struct LaneSums {
  typedef Vec<A> V;
  V a[K] = {}, b[K] = {}, c[K] = {}, d[K] = {};
  double total[K] = {};
  int64_t held = 0;

  INLINE void empty() {
    for (int k = 0; k < K; ++k) {
      total[k] += add_lanes((a[k] + b[k]) + (c[k] + d[k]));
      a[k] = b[k] = c[k] = d[k] = V{};
    }
    held = 0;
  }

  // term(i, m, acc) adds its W (or, at the end, m) values to acc[0..K), for i in [0, n).
  template <class F> INLINE void add(int64_t n, F term) {
    constexpr int W = Lanes<A>::W;
    for (int64_t start = 0; start < n; start += BLOCK) {
      const int64_t end = start + BLOCK < n ? start + BLOCK : n;
      // Vectors that are not four together all go to the same lanes, so each counts as four.
      const int64_t turns = (end - start) / (4 * W) + ((end - start) % (4 * W) + W - 1) / W;
      if (held + turns * 4 * W > BLOCK) empty();
      held += turns * 4 * W;
      int64_t i = start;
      for (; i + 4 * W <= end; i += 4 * W) {
        term(i, W, a);
        term(i + W, W, b);
        term(i + 2 * W, W, c);
        term(i + 3 * W, W, d);
      }
      for (; i + W <= end; i += W) term(i, W, a);
      if (i < end) term(i, int(end - i), b);
    }
  }
};

template <class A, int K, class F> INLINE void lane_sums(int64_t n, F term, double* total) {
  LaneSums<A, K> sums;
  sums.add(n, term);
  sums.empty();
  for (int k = 0; k < K; ++k) total[k] += sums.total[k];
}

// memset to zero; short stretches, as those of padding are, do better with plain stores.
INLINE void zero(void* p, int64_t bytes) {
  char* to = static_cast<char*>(p);
  int64_t i = 0;
  for (; i + 32 <= bytes; i += 32) store_vector(reinterpret_cast<float*>(to + i), VecF{});
  for (; i + 2 <= bytes; i += 2) memset(to + i, 0, 2);
}

// body(i, m) for whole vectors, then for the rest of n.
template <class A, class F> INLINE void each(int64_t n, F body) {
  constexpr int W = Lanes<A>::W;
  int64_t i = 0;
  for (; i + W <= n; i += W) body(i, W);
  if (i < n) body(i, int(n - i));
}

// The same where results do not depend on what was stored before: the last vector then reaches
// back over numbers that are already done, which costs less than a part of one.
template <class A, class F> INLINE void map_lanes(int64_t n, F body) {
  constexpr int W = Lanes<A>::W;
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    body(i, W);
    body(i + W, W);
  }
  if (i + W <= n) {
    body(i, W);
    i += W;
  }
  if (i < n && n >= W) body(n - W, W);
  else if (i < n) body(i, int(n - i));
}

}  // namespace
