// Over C where positions are contiguous, (N, C, L): the lanes of a vector are positions. A block of
// positions is copied on the first pass over its channels, whose rows lie far apart, to where the
// next pass finds it together and in the cache.
#pragma once
#include "spans.h"

namespace {

template <class T, int ACT> struct Positions {
  typedef ComputeOf<T> A;
  typedef Vec<A> V;
  static constexpr int W = Lanes<A>::W;
  static constexpr int U = 8;               // vectors side by side
  static constexpr int64_t WIDTH = U * W;   // positions of a block
  static constexpr int64_t SPAN = 2048;     // a multiple of WIDTH
  static constexpr int64_t DEPTH = 64;      // channels summed before sums are put aside
  static constexpr int64_t GUESSED = 8;     // channels whose mean is the first guess
  struct Block {
    V v[U];
  };

  // Room for a block of x and of the gradient, and for sums of the weight gradients.
  struct Space {
    A *x, *grad, *sums;
    explicit Space(int64_t channels) {
      const int64_t size = channels * WIDTH;
      x = static_cast<A*>(malloc(sizeof(A) * (2 * size + 2 * channels * W)));
      grad = x + size;
      sums = grad + size;
    }
    ~Space() { free(x); }
  };

  // m positions: WIDTH, a constant in the usual case, or what is left of a run.
  template <class P> static INLINE Block get(const P* p, int64_t m) {
    Block b;
    for (int u = 0; u < U; ++u) {
      const int64_t rest = m - u * W;
      b.v[u] = rest >= W ? load(p + u * W) : (rest > 0 ? load(p + u * W, int(rest), 0) : V{});
    }
    return b;
  }
  template <class P> static INLINE void put(P* p, const Block& b, int64_t m) {
    for (int u = 0; u < U; ++u) {
      const int64_t rest = m - u * W;
      if (rest >= W) store(p + u * W, b.v[u]);
      else if (rest > 0) store(p + u * W, b.v[u], int(rest));
    }
  }

  // Sums over channels, K at a time: term(c, block of K sums).
  template <int K, class F> static INLINE void over_channels(int64_t channels, F term, Block* out) {
    for (int k = 0; k < K; ++k) out[k] = Block{};
    for (int64_t start = 0; start < channels; start += DEPTH) {
      const int64_t end = start + DEPTH < channels ? start + DEPTH : channels;
      Block part[K] = {};
      for (int64_t c = start; c < end; ++c) term(c, part);
      for (int k = 0; k < K; ++k)
        for (int u = 0; u < U; ++u) out[k].v[u] += part[k].v[u];
    }
  }

  // Call body(n, group, start, end, valid, space, span) for what each span holds.
  template <class F, class G> static bool run(const Job<T>& job, F body, G finish) {
    const sn_problem& p = job.p;
    const int64_t channels = p.c / p.groups;
    bool good = true;
    each_span(p, SPAN, [&](int64_t n, int64_t start, int64_t end, int64_t span) {
      Space space(channels);
      if (!space.x) {
        good = false;
        return;
      }
      for (int64_t g = 0; g < p.groups; ++g) {
        memset(space.sums, 0, sizeof(A) * 2 * channels * W);
        each_stretch(job.valid, n, start, end, [&](int64_t from, int64_t to, bool valid) {
          body(n, g, from, to, valid, space);
        });
        finish(g, span, space);
      }
    });
    return good;
  }

  // A block's rows lie far apart, too far for the processor to see where the next ones are.
  static INLINE void fetch_row(const T* p) {
    for (int64_t i = 0; i < WIDTH; i += 64 / int64_t(sizeof(T))) fetch(p + i);
  }
  static INLINE void fetch_row_to_write(const T* p) {
    for (int64_t i = 0; i < WIDTH; i += 64 / int64_t(sizeof(T))) fetch_to_write(p + i);
  }

  static void blank(T* rows, int64_t stride, int64_t channels, int64_t from, int64_t to) {
    for (int64_t c = 0; c < channels; ++c) zero(rows + c * stride + from, sizeof(T) * (to - from));
  }

  static bool forward(const Job<T>& job) {
    const sn_problem& p = job.p;
    const int64_t channels = p.c / p.groups;
    const auto body = [&](int64_t n, int64_t g, int64_t from, int64_t to, bool valid,
                          const Space& space) {
      const int64_t rows = (n * p.c + g * channels) * p.l, sets = (n * p.groups + g) * p.l;
      if (!valid) {
        blank(job.y + rows, p.l, channels, from, to);
        for (int64_t l = from; l < to; ++l) p.mean[sets + l] = p.var[sets + l] = 0;
        return;
      }
      int64_t l = from;
      for (; l + WIDTH <= to; l += WIDTH) forward_block(job, g, rows + l, sets + l, WIDTH, space);
      if (l < to) forward_block(job, g, rows + l, sets + l, to - l, space);
    };
    return run(job, body, [](int64_t, int64_t, const Space&) {});
  }

  static INLINE void forward_block(const Job<T>& job, int64_t g, int64_t at, int64_t set,
                                   int64_t m, const Space& space) {
    if (job.residual) forward_block<true>(job, g, at, set, m, space.x);
    else forward_block<false>(job, g, at, set, m, space.x);
  }

  template <bool RES>
  static INLINE void forward_block(const Job<T>& job, int64_t g, int64_t at, int64_t set,
                                   int64_t m, A* kept) {
    const sn_problem& p = job.p;
    const int64_t channels = p.c / p.groups, stride = p.l;
    const T* x = job.x + at;
    Block shift = {};
    if (p.center) {
      const int64_t first = channels < GUESSED ? channels : GUESSED;
      for (int64_t c = 0; c < first; ++c) {
        const Block b = get(x + c * stride, m);
        for (int u = 0; u < U; ++u) shift.v[u] += b.v[u];
      }
      for (int u = 0; u < U; ++u) shift.v[u] /= A(first);
    }
    Block moments[2];
    over_channels<2>(channels, [&](int64_t c, Block* sum) {
      const Block b = get(x + c * stride, m);
      for (int u = 0; u < U; ++u) {
        const V d = b.v[u] - shift.v[u];
        sum[0].v[u] += d;
        sum[1].v[u] += d * d;
      }
      put(kept + c * WIDTH, b, WIDTH);
      fetch_row_to_write(job.y + at + c * stride);
    }, moments);
    Block delta, var;
    if (p.center && !settle(channels, moments, shift, delta, var)) {
      over_channels<2>(channels, [&](int64_t c, Block* sum) {
        const Block b = get(kept + c * WIDTH, WIDTH);
        for (int u = 0; u < U; ++u) {
          const V d = b.v[u] - shift.v[u];
          sum[0].v[u] += d;
          sum[1].v[u] += d * d;
        }
      }, moments);
      settle(channels, moments, shift, delta, var);
    } else if (!p.center) {
      delta = Block{};
      for (int u = 0; u < U; ++u) var.v[u] = moments[1].v[u] / A(channels);
    }
    put_statistics(p, set, m, shift, delta, var);
    Block rstd, offset;
    for (int u = 0; u < U; ++u) {
      rstd.v[u] = A(1) / square_root(var.v[u] + A(p.eps));
      offset.v[u] = -(delta.v[u] * rstd.v[u]);
    }
    const A *weight = job.weight + g * channels, *bias = job.bias + g * channels;
    for (int64_t c = 0; c < channels; ++c) {
      Block v = get(kept + c * WIDTH, WIDTH), added;
      fetch_row(x + c * stride + WIDTH);
      if (RES) added = get(job.residual + at + c * stride, m);
      for (int u = 0; u < U; ++u) {
        v.v[u] = ((v.v[u] - shift.v[u]) * rstd.v[u] + offset.v[u]) * weight[c] + bias[c];
        if (RES) v.v[u] += added.v[u];
        v.v[u] = activate<A, ACT>(v.v[u]);
      }
      put(job.y + at + c * stride, v, m);
    }
  }

  // Mean and variance from the sums of deviations from a guess. False where the guess was too far
  // off for the correction (see moments_of): the guess is then the mean, to be summed from again.
  static INLINE bool settle(int64_t channels, const Block* moments, Block& shift, Block& delta,
                            Block& var) {
    bool good = true;
    for (int u = 0; u < U; ++u) {
      delta.v[u] = moments[0].v[u] / A(channels);
      const V square = delta.v[u] * delta.v[u], spread = moments[1].v[u] / A(channels) - square;
      var.v[u] = spread < A(0) ? V{} : spread;  // NaN stays
      const auto far = square > spread;
      for (int k = 0; k < W; ++k) {
        if (!far[k]) continue;
        good = false;
        shift.v[u][k] += delta.v[u][k];
      }
    }
    return good;
  }

  static INLINE void put_statistics(const sn_problem& p, int64_t set, int64_t m,
                                    const Block& shift, const Block& delta, const Block& var) {
    A lanes[3][WIDTH];
    put(lanes[0], shift, WIDTH);
    put(lanes[1], delta, WIDTH);
    put(lanes[2], var, WIDTH);
    for (int64_t i = 0; i < m; ++i) {
      p.mean[set + i] = double(lanes[0][i]) + double(lanes[1][i]);
      p.var[set + i] = double(lanes[2][i]);
    }
  }

  static bool backward_all(const Job<T>& job) {
    const sn_problem& p = job.p;
    const int64_t channels = p.c / p.groups;
    double* partial = weight_gradient_room(p, SPAN);
    if (!partial) return false;
    const auto body = [&](int64_t n, int64_t g, int64_t from, int64_t to, bool valid,
                          const Space& space) {
      const int64_t rows = (n * p.c + g * channels) * p.l, sets = (n * p.groups + g) * p.l;
      if (!valid) {
        blank(job.grad_x + rows, p.l, channels, from, to);
        if (job.grad_residual) blank(job.grad_residual + rows, p.l, channels, from, to);
        return;
      }
      int64_t l = from;
      for (; l + WIDTH <= to; l += WIDTH) backward_block(job, g, rows + l, sets + l, WIDTH, space);
      if (l < to) backward_block(job, g, rows + l, sets + l, to - l, space);
    };
    const bool good = run(job, body, [&](int64_t g, int64_t span, const Space& space) {
      double* sums = partial + span * 2 * p.c + g * channels;
      for (int64_t c = 0; c < channels; ++c) {
        sums[c] = add_lanes(load(space.sums + 2 * c * W));
        sums[p.c + c] = add_lanes(load(space.sums + (2 * c + 1) * W));
      }
    });
    put_weight_gradients(job, SPAN, partial);
    free(partial);
    return good;
  }

  static INLINE void backward_block(const Job<T>& job, int64_t g, int64_t at, int64_t set,
                                    int64_t m, const Space& space) {
    if (job.residual) backward_block<true>(job, g, at, set, m, space);
    else backward_block<false>(job, g, at, set, m, space);
  }

  template <bool RES>
  static INLINE void backward_block(const Job<T>& job, int64_t g, int64_t at, int64_t set,
                                    int64_t m, const Space& space) {
    const sn_problem& p = job.p;
    const int64_t channels = p.c / p.groups, stride = p.l;
    A his[WIDTH] = {}, offsets[WIDTH] = {}, rstds[WIDTH] = {};  // 0 where there is no position
    for (int64_t i = 0; i < m; ++i) {
      const Mean<A> split(p.mean[set + i]);
      const double factor = reciprocal_deviation(p.var[set + i], p.eps);
      his[i] = split.hi;
      rstds[i] = A(factor);
      offsets[i] = A(-split.lo * factor);
    }
    const Block hi = get(his, WIDTH), rstd = get(rstds, WIDTH), offset = get(offsets, WIDTH);
    const A *weight = job.weight + g * channels, *bias = job.bias + g * channels;
    Block totals[2];
    over_channels<2>(channels, [&](int64_t c, Block* total) {
      Block v = get(job.x + at + c * stride, m), d = get(job.grad + at + c * stride, m), added;
      if (RES && ACT != SN_NONE) added = get(job.residual + at + c * stride, m);
      V weights = {}, biases = {};
      for (int u = 0; u < U; ++u) {
        v.v[u] = (v.v[u] - hi.v[u]) * rstd.v[u] + offset.v[u];
        if constexpr (ACT != SN_NONE) {
          V before = v.v[u] * weight[c] + bias[c];
          if (RES) before += added.v[u];
          d.v[u] = backward<A, ACT>(d.v[u], before);
        }
        weights += d.v[u] * v.v[u];
        biases += d.v[u];
      }
      if (RES) put(job.grad_residual + at + c * stride, d, m);
      for (int u = 0; u < U; ++u) {
        d.v[u] *= weight[c];
        total[0].v[u] += d.v[u];
        total[1].v[u] += d.v[u] * v.v[u];
      }
      fetch_row_to_write(job.grad_x + at + c * stride);
      put(space.x + c * WIDTH, v, WIDTH);
      put(space.grad + c * WIDTH, d, WIDTH);
      A* sum = space.sums + 2 * c * W;
      store(sum, load(sum) + weights);
      store(sum + W, load(sum + W) + biases);
    }, totals);
    for (int u = 0; u < U; ++u) {
      totals[0].v[u] = p.center ? totals[0].v[u] / A(channels) : V{};
      totals[1].v[u] /= A(channels);
    }
    for (int64_t c = 0; c < channels; ++c) {
      Block v = get(space.x + c * WIDTH, WIDTH), d = get(space.grad + c * WIDTH, WIDTH);
      fetch_row(job.x + at + c * stride + WIDTH);
      fetch_row(job.grad + at + c * stride + WIDTH);
      for (int u = 0; u < U; ++u)
        d.v[u] = (d.v[u] - totals[0].v[u] - v.v[u] * totals[1].v[u]) * rstd.v[u];
      put(job.grad_x + at + c * stride, d, m);
    }
  }
};

}  // namespace
