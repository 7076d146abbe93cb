// Rows whose positions lie apart, side by side with those of other channels: (N, L, C) over L, CL
// and NL. The lanes of a vector are channels.
#pragma once
#include "sets.h"

namespace {

template <class T, int ACT> struct Columns {
  typedef ComputeOf<T> A;
  typedef Vec<A> V;
  static constexpr bool rows_first = true;  // sets are merged from the moments of rows
  static constexpr int64_t WIDTH = 64;  // channels done together
  static constexpr int64_t DEPTH = 64;  // positions whose sums stay in the compute type
  static constexpr int W = Lanes<A>::W;

  static int64_t channels(const sn_problem& p) { return p.c < WIDTH ? p.c : WIDTH; }

  // body(c, size) for stripes of at most WIDTH channels.
  template <class F> static INLINE void each_stripe(int64_t start, int64_t end, F body) {
    for (int64_t c = start; c < end; c += WIDTH) body(c, end - c < WIDTH ? end - c : WIDTH);
  }

  static void row_moments(const Job<T>& job, int64_t n, int64_t start, int64_t end) {
    each_stripe(start, end, [&](int64_t c, int64_t size) {
      double mean[WIDTH] = {}, m2[WIDTH] = {}, count = 0;
      each_piece(job.valid, n, DEPTH, [&](int64_t from, int64_t to) {
        each<A>(size, [&](int64_t k, int m) {
          const T* x = job.x + (n * job.p.l + from) * job.p.c + c + k;
          block_moments(job, x, to - from, count, m, mean + k, m2 + k);
        });
        count += double(to - from);
      });
      memcpy(job.first + n * job.p.c + c, mean, sizeof(double) * size);
      memcpy(job.second + n * job.p.c + c, m2, sizeof(double) * size);
    });
  }

  static void set_moments(const Job<T>&, int64_t, int64_t, int64_t) {}

  // Merge the moments of `depth` positions of m channels into those of the `count` before.
  static INLINE void block_moments(const Job<T>& job, const T* x, int64_t depth, double count,
                                   int m, double* mean, double* m2) {
    const int64_t stride = job.p.c;
    V shift = {}, plain = {}, square = {};
    if (job.p.center) {
      for (int64_t i = 0; i < depth; ++i) shift += load(x + i * stride, m, 0);
      shift /= A(depth);
    }
    for (int64_t i = 0; i < depth; ++i) {
      const V d = load(x + i * stride, m, 0) - shift;
      plain += d;
      square += d * d;
    }
    const double share = double(depth) / (count + double(depth));
    for (int k = 0; k < m; ++k) {
      if (!job.p.center) {
        m2[k] += double(square[k]);
        continue;
      }
      const double delta = double(plain[k]) / double(depth);
      const double own = double(square[k]) - double(plain[k]) * delta;
      const double gap = double(shift[k]) + delta - mean[k];
      m2[k] += (own < 0 ? 0 : own) + gap * gap * count * share;
      mean[k] += gap * share;
    }
  }

  // The maps of a stripe, field by field.
  struct Maps {
    A hi[WIDTH] = {}, scale[WIDTH] = {}, offset[WIDTH] = {};
    Maps(const Job<T>& job, int64_t n, int64_t c, int64_t size) {
      for (int64_t k = 0; k < size; ++k) {
        const Map<A> map(job, n, c + k);
        hi[k] = map.hi;
        scale[k] = map.scale;
        offset[k] = map.offset;
      }
    }
  };

  static void apply(const Job<T>& job, int64_t n, int64_t start, int64_t end) {
    each_stripe(start, end, [&](int64_t c, int64_t size) {
      const Maps maps(job, n, c, size);
      each_stretch(job.valid, n, 0, job.p.l, [&](int64_t from, int64_t to, bool valid) {
        for (int64_t l = from; l < to; ++l) {
          const int64_t at = (n * job.p.l + l) * job.p.c + c;
          if (!valid) zero(job.y + at, sizeof(T) * size);
          else if (job.residual) apply_position<true>(job, at, size, maps);
          else apply_position<false>(job, at, size, maps);
        }
      });
    });
  }

  template <bool RES>
  static INLINE void apply_position(const Job<T>& job, int64_t at, int64_t size,
                                    const Maps& maps) {
    map_lanes<A>(size, [&](int64_t i, int m) {
      V v = (load(job.x + at + i, m, 0) - load(maps.hi + i)) * load(maps.scale + i) +
            load(maps.offset + i);
      if (RES) v += load(job.residual + at + i, m, 0);
      store(job.y + at + i, activate<A, ACT>(v), m);
    });
  }

  // Gradient before the activation, whose input is found again from x.
  template <bool RES>
  static INLINE V before(const Maps& maps, V grad, V deviation, const T* residual, int64_t i,
                         int m) {
    if constexpr (ACT == SN_NONE) return grad;
    V v = deviation * load(maps.scale + i) + load(maps.offset + i);
    if (RES) v += load(residual + i, m, 0);
    return backward<A, ACT>(grad, v);
  }

  static void sums(const Job<T>& job, int64_t n, int64_t start, int64_t end) {
    each_stripe(start, end, [&](int64_t c, int64_t size) {
      const Maps maps(job, n, c, size);
      double first[WIDTH] = {}, second[WIDTH] = {};
      each_piece(job.valid, n, DEPTH, [&](int64_t from, int64_t to) {
        A plain[WIDTH] = {}, times[WIDTH] = {};
        for (int64_t l = from; l < to; ++l) {
          const int64_t at = (n * job.p.l + l) * job.p.c + c;
          if (job.residual) sum_position<true>(job, at, size, maps, plain, times);
          else sum_position<false>(job, at, size, maps, plain, times);
        }
        for (int64_t k = 0; k < size; ++k) {
          first[k] += double(plain[k]);
          second[k] += double(times[k]);
        }
      });
      for (int64_t k = 0; k < size; ++k) {
        job.first[n * job.p.c + c + k] = first[k];
        job.second[n * job.p.c + c + k] = second[k] - job.mean(n, c + k).lo * first[k];
      }
    });
  }

  template <bool RES>
  static INLINE void sum_position(const Job<T>& job, int64_t at, int64_t size, const Maps& maps,
                                  A* plain, A* times) {
    each<A>(size, [&](int64_t i, int m) {
      const V d = load(job.x + at + i, m, 0) - load(maps.hi + i);
      const V g = before<RES>(maps, load(job.grad + at + i, m, 0), d, job.residual + at, i, m);
      store(plain + i, load(plain + i) + g);
      store(times + i, load(times + i) + g * d);
    });
  }

  struct BackwardMaps {
    A scale[WIDTH] = {}, slope[WIDTH] = {}, offset[WIDTH] = {};
    BackwardMaps(const Job<T>& job, int64_t n, int64_t c, int64_t size) {
      for (int64_t k = 0; k < size; ++k) {
        const BackwardMap<A> map(job, n, c + k);
        scale[k] = map.scale;
        slope[k] = map.slope;
        offset[k] = map.offset;
      }
    }
  };

  static void gradients(const Job<T>& job, int64_t n, int64_t start, int64_t end) {
    each_stripe(start, end, [&](int64_t c, int64_t size) {
      const Maps maps(job, n, c, size);
      const BackwardMaps back(job, n, c, size);
      each_stretch(job.valid, n, 0, job.p.l, [&](int64_t from, int64_t to, bool valid) {
        for (int64_t l = from; l < to; ++l) {
          const int64_t at = (n * job.p.l + l) * job.p.c + c;
          if (!valid) {
            zero(job.grad_x + at, sizeof(T) * size);
            if (job.grad_residual) zero(job.grad_residual + at, sizeof(T) * size);
          } else if (job.residual) {
            gradient_position<true>(job, at, size, maps, back);
          } else {
            gradient_position<false>(job, at, size, maps, back);
          }
        }
      });
    });
  }

  template <bool RES>
  static INLINE void gradient_position(const Job<T>& job, int64_t at, int64_t size,
                                       const Maps& maps, const BackwardMaps& back) {
    map_lanes<A>(size, [&](int64_t i, int m) {
      const V d = load(job.x + at + i, m, 0) - load(maps.hi + i);
      const V g = before<RES>(maps, load(job.grad + at + i, m, 0), d, job.residual + at, i, m);
      if (RES) store(job.grad_residual + at + i, g, m);
      store(job.grad_x + at + i,
            g * load(back.scale + i) + d * load(back.slope + i) + load(back.offset + i), m);
    });
  }
};

}  // namespace
