// Statistics that are constant along a row, the positions of one channel of one sequence: over
// L, CL and NL, or given. Rows are summed, sets of rows merged, rows mapped. Where a set lies
// within one sequence the three steps follow each other while its rows are in the cache.
#pragma once
#include "job.h"

namespace {

// body(row, count) for the rows of the set that holds channel c of sequence n, in order.
template <class F>
INLINE void each_row(const sn_problem& p, const Valid& valid, int64_t n, int64_t c, F body) {
  if (p.over == SN_OVER_NL) {
    for (int64_t i = 0; i < p.n; ++i) body(i * p.c + c, double(valid.count[i]), c);
  } else {
    const int64_t width = p.over == SN_OVER_L ? 1 : p.c / p.groups;
    for (int64_t k = c; k < c + width; ++k) body(n * p.c + k, double(valid.count[n]), k);
  }
}

INLINE int64_t sums_of(const sn_problem& p, int64_t n, int64_t c) {
  return p.over == SN_OVER_NL && !p.given ? c : n * p.c + c;
}

// Chan, Golub & LeVeque (1979) for many parts at once: the gaps are taken from the merged mean.
template <class T> void merge_moments(const Job<T>& job, int64_t n, int64_t c) {
  double total = 0, sum = 0, m2 = 0;
  each_row(job.p, job.valid, n, c, [&](int64_t row, double count, int64_t) {
    total += count;
    sum += count * job.first[row];
  });
  const double mean = total > 0 ? sum / total : 0;
  each_row(job.p, job.valid, n, c, [&](int64_t row, double count, int64_t) {
    const double gap = job.first[row] - mean;
    m2 += job.second[row] + count * gap * gap;
  });
  job.know(job.set(n, c), mean, total > 0 ? m2 / total : 0);
}

// y = (x - hi) * scale + offset for one row.
template <class A> struct Map {
  A hi, scale, offset;
  template <class T> Map(const Job<T>& job, int64_t n, int64_t c) {
    const Mean<A> mean = job.mean(n, c);
    const double factor = job.rstd(n, c) * double(job.weight[c]);
    hi = mean.hi;
    scale = A(factor);
    offset = A(double(job.bias[c]) - mean.lo * factor);
  }
};

// grad_x = grad * scale + (x - hi) * slope + offset for one row.
template <class A> struct BackwardMap {
  A hi, scale, slope, offset;
  template <class T> BackwardMap(const Job<T>& job, int64_t n, int64_t c) {
    const SetSums& sums = job.sums[sums_of(job.p, n, c)];
    const Mean<A> mean = job.mean(n, c);
    hi = mean.hi;
    scale = A(job.rstd(n, c) * double(job.weight[c]));
    slope = A(sums.slope);
    offset = A(sums.offset - mean.lo * sums.slope);
  }
};

// What the rows of a set have in common in the backward pass, written for each of its channels:
// with xhat = (x - mean) * rstd, g = grad * weight and averages over the set,
// grad_x = rstd * (g - average(g) - xhat * average(g * xhat)); known statistics move with nothing.
template <class T> void merge_sums(const Job<T>& job, int64_t n, int64_t c0, int64_t c1) {
  const sn_problem& p = job.p;
  double total = 0, plain = 0, times = 0;
  if (!p.given) {
    each_row(p, job.valid, n, c0, [&](int64_t row, double count, int64_t k) {
      total += count;
      plain += double(job.weight[k]) * job.first[row];
      times += double(job.weight[k]) * job.second[row];
    });
  }
  const double rstd = job.rstd(n, c0);
  const double slope = total > 0 ? -rstd * rstd * rstd * times / total : 0;
  const double offset = total > 0 && p.center ? -rstd * plain / total : 0;
  for (int64_t c = c0; c < c1; ++c) job.sums[sums_of(p, n, c)] = SetSums{slope, offset};
}

template <class T> void put_weight_gradients(const Job<T>& job, int64_t n, int64_t c) {
  typedef ComputeOf<T> A;
  const int64_t row = n * job.p.c + c;
  job.grad_weight[row] = A(job.rstd(n, c) * job.second[row]);
  job.grad_bias[row] = A(job.first[row]);
}

// Channels whose sets are merged together: all that share one, or enough to be worth a call.
template <class T, template <class, int> class Axis> int64_t channels_a_piece(const sn_problem& p) {
  if (p.over == SN_OVER_CL && !p.given && Axis<T, 0>::rows_first) return p.c;
  if (p.over == SN_OVER_CL && !p.given) return p.c / p.groups;
  return Axis<T, 0>::channels(p);
}

template <class F> void each_piece_of_channels(const sn_problem& p, int64_t width, F body) {
  const int64_t pieces = (p.c + width - 1) / width;
  share_out(p.n * pieces, p.threads, [&](int64_t piece) {
    const int64_t n = piece / pieces, c = piece % pieces * width;
    body(n, c, c + width < p.c ? c + width : p.c);
  });
}

// body(c0, c1) for the channels of each set between two bounds of sets.
template <class F> INLINE void each_set(const sn_problem& p, int64_t start, int64_t end, F body) {
  const int64_t width = p.over == SN_OVER_CL && !p.given ? p.c / p.groups : 1;
  for (int64_t c = start; c < end; c += width) body(c, c + width);
}

// Whether sets are done one after the other: each lies in one sequence, and there are enough.
template <class T, template <class, int> class Axis> bool within_sequences(const sn_problem& p) {
  if (p.given) return true;
  const int64_t width = channels_a_piece<T, Axis>(p);
  return p.over != SN_OVER_NL && p.n * ((p.c + width - 1) / width) >= p.threads;
}

// body(n) for each sequence that holds a set of its own; BatchNorm's sets are found from any.
template <class F> INLINE void each_owner(const sn_problem& p, F body) {
  const int64_t owners = p.over == SN_OVER_NL && p.n ? 1 : p.n;
  for (int64_t n = 0; n < owners; ++n) body(n);
}

// Axis: Rows where positions are contiguous, Columns where channels are.
template <class T, int ACT, template <class, int> class Axis> void sets_forward(Job<T>& job) {
  typedef Axis<T, ACT> Ax;
  const sn_problem& p = job.p;
  const bool merges = p.over == SN_OVER_NL || Ax::rows_first;
  const auto moments = [&](int64_t n, int64_t start, int64_t end) {
    if (merges) Ax::row_moments(job, n, start, end);
    else each_set(p, start, end, [&](int64_t c0, int64_t c1) { Ax::set_moments(job, n, c0, c1); });
  };
  const auto merge = [&](int64_t n, int64_t start, int64_t end) {
    each_set(p, start, end, [&](int64_t c, int64_t) { merge_moments(job, n, c); });
  };
  if (p.given) job.know_all(p.c);
  if (within_sequences<T, Axis>(p)) {
    each_piece_of_channels(
        p, channels_a_piece<T, Axis>(p), [&](int64_t n, int64_t start, int64_t end) {
          if (!p.given) moments(n, start, end);
          if (!p.given && merges) merge(n, start, end);
          Ax::apply(job, n, start, end);
        });
    return;
  }
  each_piece_of_channels(p, merges ? Ax::channels(p) : p.c / p.groups, moments);
  if (merges) each_owner(p, [&](int64_t n) { merge(n, 0, p.c); });
  each_piece_of_channels(
      p, Ax::channels(p), [&](int64_t n, int64_t start, int64_t end) { Ax::apply(job, n, start, end); });
}

template <class T, int ACT, template <class, int> class Axis>
void sets_backward(Job<T>& job) {
  typedef Axis<T, ACT> Ax;
  const sn_problem& p = job.p;
  const bool of_channels = p.given || p.over == SN_OVER_NL;
  if (of_channels) job.know_all(p.c);
  const auto sum = [&](int64_t n, int64_t start, int64_t end) {
    Ax::sums(job, n, start, end);
    for (int64_t c = start; c < end; ++c) put_weight_gradients(job, n, c);
  };
  const auto merge = [&](int64_t n, int64_t start, int64_t end) {
    each_set(p, start, end, [&](int64_t c0, int64_t c1) { merge_sums(job, n, c0, c1); });
  };
  if (within_sequences<T, Axis>(p)) {
    each_piece_of_channels(
        p, channels_a_piece<T, Axis>(p), [&](int64_t n, int64_t start, int64_t end) {
          if (!of_channels)
            each_set(p, start, end, [&](int64_t c, int64_t) { job.know(job.set(n, c)); });
          sum(n, start, end);
          merge(n, start, end);
          Ax::gradients(job, n, start, end);
        });
    return;
  }
  if (!of_channels) job.know_all(p.n * (p.over == SN_OVER_L ? p.c : p.groups));
  const int64_t width = Ax::channels(p);
  each_piece_of_channels(p, width, sum);
  each_owner(p, [&](int64_t n) { merge(n, 0, p.c); });
  each_piece_of_channels(p, width, [&](int64_t n, int64_t start, int64_t end) {
    Ax::gradients(job, n, start, end);
  });
}

}  // namespace
