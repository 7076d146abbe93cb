// Compiled once for each set of instructions, under the names that KERNEL makes. Everything else
// is local to the file, so that no code for one processor is linked into that for another.
#include "columns.h"
#include "features.h"
#include "positions.h"
#include "rows.h"

#define JOIN(a, b) a##b
#define NAME(a, b) JOIN(a, b)
#define KERNEL(name) NAME(name, SEQNORM_INSTRUCTIONS)

namespace {

enum { DONE = 0, NO_MEMORY = 1, LENGTH_OUTSIDE = 2 };

struct Room {
  void* start;
  explicit Room(size_t bytes) : start(malloc(bytes)) {}
  ~Room() { free(start); }
};

template <class T, int ACT> bool compute(Job<T>& job, bool forward) {
  const sn_problem& p = job.p;
  const bool over_channels = p.over == SN_OVER_C && !p.given;
  if (over_channels && p.channels_last)
    return forward ? Features<T, ACT>::forward(job) : Features<T, ACT>::backward_all(job);
  if (over_channels)
    return forward ? Positions<T, ACT>::forward(job) : Positions<T, ACT>::backward_all(job);
  if (p.channels_last)
    forward ? sets_forward<T, ACT, Columns>(job) : sets_backward<T, ACT, Columns>(job);
  else
    forward ? sets_forward<T, ACT, Rows>(job) : sets_backward<T, ACT, Rows>(job);
  return true;
}

// Column sums of (N, C), in double and in the order of n, so that they depend on nothing else.
template <class A> void sum_samples(const A* rows, int64_t n, int64_t c, double* total, A* result) {
  for (int64_t k = 0; k < c; ++k) total[k] = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < c; ++k) total[k] += double(rows[i * c + k]);
  for (int64_t k = 0; k < c; ++k) result[k] = A(total[k]);
}

template <class T, int ACT> int run(const sn_problem& p, bool forward) {
  typedef ComputeOf<T> A;
  Valid valid;
  const Room room(sizeof(double) * Job<T>::room(p));
  const bool summed = p.summed && !forward;
  const Room samples(summed ? sizeof(A) * 2 * p.n * p.c : 1);
  if (!valid.find(p) || !room.start || !samples.start) return NO_MEMORY;
  if (!valid.within) return LENGTH_OUTSIDE;
  Job<T> job(p, valid, static_cast<double*>(room.start));
  A* const rows = static_cast<A*>(samples.start);
  if (summed) {
    job.grad_weight = rows;
    job.grad_bias = rows + p.n * p.c;
  }
  if (!compute<T, ACT>(job, forward)) return NO_MEMORY;
  if (summed) {
    double* total = static_cast<double*>(room.start);
    sum_samples(rows, p.n, p.c, total, static_cast<A*>(p.grad_weight));
    sum_samples(rows + p.n * p.c, p.n, p.c, total, static_cast<A*>(p.grad_bias));
  }
  return DONE;
}

template <class T> int run(const sn_problem& p, bool forward) {
  if (p.activation == SN_RELU) return run<T, SN_RELU>(p, forward);
  if (p.activation == SN_GELU) return run<T, SN_GELU>(p, forward);
  return run<T, SN_NONE>(p, forward);
}

int run(const sn_problem& p, bool forward) {
  switch (p.dtype) {
    case SN_FLOAT64: return run<double>(p, forward);
    case SN_BFLOAT16: return run<BF16>(p, forward);
    case SN_FLOAT16: return run<FP16>(p, forward);
    default: return run<float>(p, forward);
  }
}

}  // namespace

extern "C" {
int KERNEL(sn_forward_)(const sn_problem* problem) { return run(*problem, true); }
int KERNEL(sn_backward_)(const sn_problem* problem) { return run(*problem, false); }
}
