// One call: its pointers with their types, which positions are valid, room for what is summed.
#pragma once
#include "activation.h"
#include "pool.h"
#include "types.h"

#include <stdlib.h>

namespace {

struct Run { int64_t start, end; };  // valid positions [start, end)

// The valid positions of each sequence as runs: one run where lengths are given or nothing is
// padded, as many as there are holes where a mask is.
struct Valid {
  int64_t* first = nullptr;  // (N + 1): where the runs of a sequence begin
  int64_t* count = nullptr;  // (N): how many positions are valid
  Run* runs = nullptr;
  bool within = true;        // whether every length is in 0..L

  bool find(const sn_problem& p) {
    first = static_cast<int64_t*>(malloc(sizeof(int64_t) * (p.n + 1)));
    count = static_cast<int64_t*>(malloc(sizeof(int64_t) * (p.n + 1)));
    int64_t room = p.n;
    if (p.mask) {
      for (int64_t i = 0; i < p.n * p.l; ++i)
        room += p.mask[i] && (i % p.l == 0 || !p.mask[i - 1]);
    }
    runs = static_cast<Run*>(malloc(sizeof(Run) * (room + 1)));
    if (!first || !count || !runs) return false;
    int64_t used = 0;
    for (int64_t n = 0; n < p.n; ++n) {
      first[n] = used;
      count[n] = 0;
      if (!p.mask) {
        int64_t length = p.lengths ? p.lengths[n] : p.l;
        within = within && length >= 0 && length <= p.l;
        length = length < 0 ? 0 : (length > p.l ? p.l : length);
        if (length) runs[used++] = Run{0, length};
        count[n] = length;
        continue;
      }
      const uint8_t* row = p.mask + n * p.l;
      for (int64_t i = 0; i < p.l;) {
        for (; i < p.l && !row[i]; ++i) {}
        const int64_t start = i;
        for (; i < p.l && row[i]; ++i) {}
        if (i > start) runs[used++] = Run{start, i};
        count[n] += i - start;
      }
    }
    first[p.n] = used;
    return true;
  }

  ~Valid() {
    free(first);
    free(count);
    free(runs);
  }
};

// body(start, end, valid) for the runs of sequence n and the gaps between them, in order, as far
// as they lie in [start, end).
template <class F>
INLINE void each_stretch(const Valid& valid, int64_t n, int64_t start, int64_t end, F body) {
  int64_t done = start;
  for (int64_t r = valid.first[n]; r < valid.first[n + 1]; ++r) {
    const Run run = valid.runs[r];
    const int64_t from = run.start > start ? run.start : start;
    const int64_t to = run.end < end ? run.end : end;
    if (from >= to) continue;
    if (from > done) body(done, from, false);
    body(from, to, true);
    done = to;
  }
  if (done < end) body(done, end, false);
}

// The same for all valid positions, in pieces of at most `step`.
template <class F> INLINE void each_piece(const Valid& valid, int64_t n, int64_t step, F body) {
  for (int64_t r = valid.first[n]; r < valid.first[n + 1]; ++r) {
    const Run run = valid.runs[r];
    for (int64_t start = run.start; start < run.end; start += step)
      body(start, start + step < run.end ? start + step : run.end);
  }
}

// A mean in double as two numbers of the compute type: subtracting `hi` from values near it is
// exact, and what is left of the mean is small enough to be folded into an offset.
template <class A> struct Mean {
  A hi;
  double lo;
  explicit Mean(double mean) : hi(A(mean)), lo(mean - double(hi)) {}
};

inline double reciprocal_deviation(double var, double eps) { return 1.0 / sqrt(var + eps); }

// What the rows of a set have in common in the backward pass.
struct SetSums { double slope, offset; };

template <class T> struct Job {
  typedef T Element;
  typedef ComputeOf<T> A;
  const sn_problem& p;
  const Valid& valid;
  double* first;   // (N, C) room: means of rows, or sums of gradients
  double* second;  // (N, C) room: squared deviations of rows, or sums of gradient x deviation
  SetSums* sums;   // (N, C) room
  double* rstds;   // (sets) room, at most (N, C): 1 / sqrt(var + eps)
  int64_t* group;  // (C): which group of channels; a division for every row would cost much
  A* weight;  // (C), ones where the caller gives none
  A* bias;    // (C), zeros where the caller gives none
  const T* x;
  const T* residual;
  const T* grad;
  T* y;
  T* grad_x;
  T* grad_residual;
  A* grad_weight;
  A* grad_bias;
  int64_t next_set;  // how far ahead the numbers of the next set lie, to be fetched early

  // Doubles of room that a call needs.
  static int64_t room(const sn_problem& p) { return 5 * p.n * p.c + 4 * p.c + 1; }

  Job(const sn_problem& problem, const Valid& v, double* memory)
      : p(problem), valid(v), x(static_cast<const T*>(p.x)),
        residual(static_cast<const T*>(p.residual)), grad(static_cast<const T*>(p.grad)),
        y(static_cast<T*>(p.y)), grad_x(static_cast<T*>(p.grad_x)),
        grad_residual(static_cast<T*>(p.grad_residual)),
        grad_weight(static_cast<A*>(p.grad_weight)), grad_bias(static_cast<A*>(p.grad_bias)) {
    first = memory;
    second = first + p.n * p.c;
    sums = reinterpret_cast<SetSums*>(second + p.n * p.c);
    rstds = memory + 4 * p.n * p.c;
    group = reinterpret_cast<int64_t*>(rstds + p.n * p.c + p.c);
    weight = reinterpret_cast<A*>(group + p.c);
    bias = weight + p.c;
    next_set = set_ahead();
    for (int64_t c = 0; c < p.c; ++c) {
      group[c] = c / (p.c / p.groups);
      weight[c] = p.weight ? static_cast<const A*>(p.weight)[c] : A(1);
      bias[c] = p.bias ? static_cast<const A*>(p.bias)[c] : A(0);
    }
  }

  // While a set is mapped, the next one is fetched: its passes are short, and would wait for memory
  // longer than they work. Sets of a few lines are fetched several at a time; of those that outgrow
  // the near caches a few lines.
  int64_t set_ahead() const {
    const int64_t least = 2048 / sizeof(T), most = 65536 / sizeof(T);
    const int64_t size = (p.over == SN_OVER_CL && !p.given ? p.c / p.groups : 1) * p.l;
    if (size > most || size == 0) return least;
    return size < least ? (least / size + 1) * size : size;
  }

  // Take the statistics of sets for known, as they are in the backward pass.
  void know(int64_t set) const { rstds[set] = reciprocal_deviation(p.var[set], p.eps); }
  void know_all(int64_t sets) const {
    for (int64_t s = 0; s < sets; ++s) know(s);
  }
  void know(int64_t s, double mean, double var) const {
    p.mean[s] = mean;
    p.var[s] = var;
    rstds[s] = reciprocal_deviation(var, p.eps);
  }

  // Which statistics hold for a row, where they are constant along it.
  int64_t set(int64_t n, int64_t c) const {
    if (p.given || p.over == SN_OVER_NL) return c;
    return p.over == SN_OVER_L ? n * p.c + c : n * p.groups + group[c];
  }
  Mean<A> mean(int64_t n, int64_t c) const { return Mean<A>(p.mean[set(n, c)]); }
  double rstd(int64_t n, int64_t c) const { return rstds[set(n, c)]; }
};

}  // namespace
