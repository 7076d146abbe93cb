// Rows of contiguous positions: (N, C, L).
#pragma once
#include "sets.h"

namespace {

template <class T, int ACT> struct Rows {
  typedef ComputeOf<T> A;
  typedef Vec<A> V;
  static constexpr bool rows_first = false;  // sets of one sequence are summed as a whole

  // Enough rows that a piece is worth handing to a thread.
  static int64_t channels(const sn_problem& p) {
    const int64_t rows = 16384 / (p.l + 1);
    return rows < 1 ? 1 : (rows > p.c ? p.c : rows);
  }

  static void row_moments(const Job<T>& job, int64_t n, int64_t start, int64_t end) {
    for (int64_t c = start; c < end; ++c) {
      const int64_t row = n * job.p.c + c;
      const T* x = job.x + row * job.p.l;
      double count = 0, mean = 0, m2 = 0;
      each_piece(job.valid, n, BLOCK, [&](int64_t from, int64_t to) {
        const double size = double(to - from);
        if (!job.p.center) {
          m2 += square_of(x + from, to - from);
          return;
        }
        const MeanAndM2 part = moments_of(x + from, to - from);
        const double gap = part.mean - mean, share = size / (count + size);
        m2 += part.m2 + gap * gap * count * share;
        mean += gap * share;
        count += size;
      });
      job.first[row] = mean;
      job.second[row] = m2;
    }
  }

  // Of channels [start, end), which share their moments.
  static void set_moments(const Job<T>& job, int64_t n, int64_t start, int64_t end) {
    const T* rows = job.x + n * job.p.c * job.p.l;
    const int64_t runs = job.valid.first[n], set = job.set(n, start);
    if (runs == job.valid.first[n + 1]) return job.know(set, 0, 0);
    const double count = double(job.valid.count[n]) * double(end - start);
    const auto each_run = [&](auto body) INLINE_LAMBDA {
      for (int64_t c = start; c < end; ++c) {
        each_piece(job.valid, n, job.p.l, [&](int64_t from, int64_t to) INLINE_LAMBDA {
          body(rows + c * job.p.l + from, to - from);
        });
      }
    };
    if (job.p.center) {
      const Run run = job.valid.runs[runs];
      const T* first = rows + start * job.p.l + run.start;
      const MeanAndM2 found = moments_of(count, first, run.end - run.start, each_run);
      return job.know(set, found.mean, found.m2 / count);
    }
    double square = 0;
    each_run([&](const T* x, int64_t size) { square += square_of(x, size); });
    job.know(set, 0, square / count);
  }

  static INLINE void zero_gaps(const Job<T>& job, int64_t n, T* row) {
    if (job.valid.count[n] == job.p.l) return;
    each_stretch(job.valid, n, 0, job.p.l, [&](int64_t from, int64_t to, bool valid) {
      if (!valid) zero(row + from, sizeof(T) * (to - from));
    });
  }

  static void apply(const Job<T>& job, int64_t n, int64_t start, int64_t end) {
    for (int64_t c = start; c < end; ++c) {
      const int64_t row = (n * job.p.c + c) * job.p.l;
      const Map<A> map(job, n, c);
      zero_gaps(job, n, job.y + row);
      each_piece(job.valid, n, job.p.l, [&](int64_t from, int64_t to) {
        const int64_t at = row + from;
        if (job.residual) apply_run<true>(job, at, to - from, map);
        else apply_run<false>(job, at, to - from, map);
      });
    }
  }

  template <bool RES>
  static void apply_run(const Job<T>& job, int64_t at, int64_t size, const Map<A>& map) {
    const T *x = job.x + at, *residual = job.residual + at;
    T* y = job.y + at;
    const A hi = map.hi, scale = map.scale, offset = map.offset;
    const int64_t ahead = job.next_set;
    map_lanes<A>(size, [&](int64_t i, int m) {
      fetch(x + i + ahead);
      fetch_to_write(y + i + ahead);
      V v = (load(x + i, m, 0) - hi) * scale + offset;
      if (RES) v += load(residual + i, m, 0);
      store(y + i, activate<A, ACT>(v), m);
    });
  }

  // Gradient before the activation, whose input is found again from x.
  template <bool RES>
  static INLINE V before(const Map<A>& map, V grad, V deviation, const T* residual, int m) {
    if constexpr (ACT == SN_NONE) return grad;
    V v = deviation * map.scale + map.offset;
    if (RES) v += load(residual, m, 0);
    return backward<A, ACT>(grad, v);
  }

  static void sums(const Job<T>& job, int64_t n, int64_t start, int64_t end) {
    for (int64_t c = start; c < end; ++c) {
      const int64_t row = n * job.p.c + c;
      const Map<A> map(job, n, c);
      double total[2] = {0, 0};
      each_piece(job.valid, n, job.p.l, [&](int64_t from, int64_t to) {
        const int64_t at = row * job.p.l + from;
        if (job.residual) sum_run<true>(job, at, to - from, map, total);
        else sum_run<false>(job, at, to - from, map, total);
      });
      job.first[row] = total[0];
      job.second[row] = total[1] - job.mean(n, c).lo * total[0];
    }
  }

  template <bool RES>
  static void sum_run(const Job<T>& job, int64_t at, int64_t size, const Map<A>& map,
                      double* total) {
    const T *x = job.x + at, *grad = job.grad + at, *residual = job.residual + at;
    const Map<A> kept = map;
    lane_sums<A, 2>(size, [&](int64_t i, int m, V* acc) {
      const V d = load(x + i, m, kept.hi) - kept.hi;
      const V g = before<RES>(kept, load(grad + i, m, 0), d, residual + i, m);
      acc[0] += g;
      acc[1] += g * d;
    }, total);
  }

  static void gradients(const Job<T>& job, int64_t n, int64_t start, int64_t end) {
    for (int64_t c = start; c < end; ++c) {
      const int64_t row = (n * job.p.c + c) * job.p.l;
      const Map<A> map(job, n, c);
      const BackwardMap<A> back(job, n, c);
      zero_gaps(job, n, job.grad_x + row);
      if (job.grad_residual) zero_gaps(job, n, job.grad_residual + row);
      each_piece(job.valid, n, job.p.l, [&](int64_t from, int64_t to) {
        const int64_t at = row + from;
        if (job.residual) gradient_run<true>(job, at, to - from, map, back);
        else gradient_run<false>(job, at, to - from, map, back);
      });
    }
  }

  template <bool RES>
  static void gradient_run(const Job<T>& job, int64_t at, int64_t size, const Map<A>& map,
                           const BackwardMap<A>& back) {
    const T *x = job.x + at, *grad = job.grad + at, *residual = job.residual + at;
    T *grad_x = job.grad_x + at, *grad_residual = job.grad_residual + at;
    const Map<A> kept = map;
    const BackwardMap<A> to = back;
    const int64_t ahead = job.next_set;
    map_lanes<A>(size, [&](int64_t i, int m) {
      fetch(x + i + ahead);
      fetch(grad + i + ahead);
      fetch_to_write(grad_x + i + ahead);
      const V d = load(x + i, m, 0) - kept.hi;
      const V g = before<RES>(kept, load(grad + i, m, 0), d, residual + i, m);
      if (RES) store(grad_residual + i, g, m);
      store(grad_x + i, g * to.scale + d * to.slope + to.offset, m);
    });
  }
};

}  // namespace
