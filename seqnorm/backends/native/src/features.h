// Over C where channels are contiguous, (N, L, C): a position is a short row of its own, small
// enough for all passes to be made while it is in the first cache.
#pragma once
#include "spans.h"

namespace {

template <class T, int ACT> struct Features {
  typedef ComputeOf<T> A;
  typedef Vec<A> V;
  static constexpr int64_t SPAN = 128;

  // body(position, valid, index of the span), for each position of a span in order.
  template <class F, class G> static void run(const Job<T>& job, F body, G finish) {
    const sn_problem& p = job.p;
    each_span(p, SPAN, [&](int64_t n, int64_t start, int64_t end, int64_t span) {
      each_stretch(job.valid, n, start, end, [&](int64_t from, int64_t to, bool valid) {
        for (int64_t l = from; l < to; ++l) body(n * p.l + l, valid, span);
      });
      finish(span);
    });
  }

  static bool forward(const Job<T>& job) {
    const sn_problem& p = job.p;
    const auto body = [&](int64_t position, bool valid, int64_t) {
      if (valid && job.residual) {
        forward_position<true>(job, position);
      } else if (valid) {
        forward_position<false>(job, position);
      } else {
        zero(job.y + position * p.c, sizeof(T) * p.c);
        for (int64_t g = position * p.groups; g < (position + 1) * p.groups; ++g)
          p.mean[g] = p.var[g] = 0;
      }
    };
    run(job, body, [](int64_t) {});
    return true;
  }

  template <bool RES> static INLINE void forward_position(const Job<T>& job, int64_t position) {
    const sn_problem& p = job.p;
    const int64_t size = p.c / p.groups;
    for (int64_t g = 0; g < p.groups; ++g) {
      const int64_t at = position * p.c + g * size, set = position * p.groups + g;
      const A *weight = job.weight + g * size, *bias = job.bias + g * size;
      const T *x = job.x + at, *residual = job.residual + at;
      T* y = job.y + at;
      const MeanAndM2 found =
          p.center ? moments_of(x, size) : MeanAndM2{0, square_of(x, size)};
      const double var = found.m2 / double(size);
      p.mean[set] = found.mean;
      p.var[set] = var;
      const Mean<A> mean(found.mean);
      const double factor = reciprocal_deviation(var, p.eps);
      const A rstd = A(factor), offset = A(-mean.lo * factor);
      map_lanes<A>(size, [&](int64_t i, int m) {
        V v = (load(x + i, m, 0) - mean.hi) * rstd + offset;
        v = v * load(weight + i, m, 0) + load(bias + i, m, 0);
        if (RES) v += load(residual + i, m, 0);
        store(y + i, activate<A, ACT>(v), m);
      });
    }
  }

  static bool backward_all(const Job<T>& job) {
    const sn_problem& p = job.p;
    double* partial = weight_gradient_room(p, SPAN);
    // Sums of a span in the compute type: SPAN of them lose little, and stay in the cache.
    const int64_t room = p.n * spans_of(p, SPAN) * 2 * p.c;
    A* sums = static_cast<A*>(calloc(room + 1, sizeof(A)));
    if (partial && sums) {
      const auto body = [&](int64_t position, bool valid, int64_t span) {
        A* own = sums + span * 2 * p.c;
        if (valid && job.residual) {
          backward_position<true>(job, position, own);
        } else if (valid) {
          backward_position<false>(job, position, own);
        } else {
          zero(job.grad_x + position * p.c, sizeof(T) * p.c);
          if (job.grad_residual) zero(job.grad_residual + position * p.c, sizeof(T) * p.c);
        }
      };
      run(job, body, [&](int64_t span) {
        for (int64_t i = span * 2 * p.c; i < (span + 1) * 2 * p.c; ++i) partial[i] = sums[i];
      });
      put_weight_gradients(job, SPAN, partial);
    }
    const bool good = partial && sums;
    free(partial);
    free(sums);
    return good;
  }

  template <bool RES>
  static INLINE void backward_position(const Job<T>& job, int64_t position, A* sums) {
    const sn_problem& p = job.p;
    const int64_t size = p.c / p.groups;
    for (int64_t g = 0; g < p.groups; ++g) {
      const int64_t at = position * p.c + g * size, set = position * p.groups + g;
      const A *weight = job.weight + g * size, *bias = job.bias + g * size;
      const T *x = job.x + at, *grad = job.grad + at, *residual = job.residual + at;
      T *grad_x = job.grad_x + at, *grad_residual = job.grad_residual + at;
      A *weights = sums + g * size, *biases = weights + p.c;
      const Mean<A> mean(p.mean[set]);
      const double factor = reciprocal_deviation(p.var[set], p.eps);
      const A rstd = A(factor), offset = A(-mean.lo * factor);
      const auto before = [&](int64_t i, int m, V w, V v) {
        const V d = load(grad + i, m, 0);
        if constexpr (ACT == SN_NONE) return d;
        V input = v * w + load(bias + i, m, 0);
        if (RES) input += load(residual + i, m, 0);
        return backward<A, ACT>(d, input);
      };
      double totals[2] = {0, 0};
      lane_sums<A, 2>(size, [&](int64_t i, int m, V* acc) {
        const V w = load(weight + i, m, 0);
        const V v = (load(x + i, m, mean.hi) - mean.hi) * rstd + offset;
        const V d = before(i, m, w, v);
        store(weights + i, load(weights + i, m, 0) + d * v, m);
        store(biases + i, load(biases + i, m, 0) + d, m);
        acc[0] += d * w;
        acc[1] += d * w * v;
      }, totals);
      const A plain = p.center ? A(totals[0] / double(size)) : A(0);
      const A times = A(totals[1] / double(size));
      map_lanes<A>(size, [&](int64_t i, int m) {
        const V w = load(weight + i, m, 0);
        const V v = (load(x + i, m, 0) - mean.hi) * rstd + offset;
        const V d = before(i, m, w, v);
        if (RES) store(grad_residual + i, d, m);
        store(grad_x + i, (d * w - plain - v * times) * rstd, m);
      });
    }
  }
};

}  // namespace
