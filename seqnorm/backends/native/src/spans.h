// Statistics that differ by position: over C. A sequence is cut into spans of positions that are
// shared out. Sums for the weight gradients are kept by span and added up in the order of spans,
// so that they do not depend on the threads.
#pragma once
#include "job.h"

namespace {

inline int64_t spans_of(const sn_problem& p, int64_t span) { return (p.l + span - 1) / span; }

// body(n, start, end, index of the span)
template <class F> INLINE void each_span(const sn_problem& p, int64_t span, F body) {
  const int64_t spans = spans_of(p, span);
  share_out(p.n * spans, p.threads, [&](int64_t piece) {
    const int64_t start = piece % spans * span;
    body(piece / spans, start, start + span < p.l ? start + span : p.l, piece);
  });
}

// Room for sums by span: (N * spans, 2, C).
inline double* weight_gradient_room(const sn_problem& p, int64_t span) {
  return static_cast<double*>(malloc(sizeof(double) * (p.n * spans_of(p, span) * 2 * p.c + 1)));
}

template <class T>
void put_weight_gradients(const Job<T>& job, int64_t span, const double* partial) {
  const sn_problem& p = job.p;
  const int64_t spans = spans_of(p, span);
  for (int64_t n = 0; n < p.n; ++n) {
    for (int64_t c = 0; c < p.c; ++c) {
      double weight = 0, bias = 0;
      for (int64_t s = 0; s < spans; ++s) {
        weight += partial[((n * spans + s) * 2) * p.c + c];
        bias += partial[((n * spans + s) * 2 + 1) * p.c + c];
      }
      job.grad_weight[n * p.c + c] = ComputeOf<T>(weight);
      job.grad_bias[n * p.c + c] = ComputeOf<T>(bias);
    }
  }
}

}  // namespace
