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

template <class T, int ACT> bool run(const sn_problem& p, bool forward) {
  Valid valid;
  double* room = static_cast<double*>(malloc(sizeof(double) * Job<T>::room(p)));
  bool good = valid.find(p) && room;
  if (good) {
    Job<T> job(p, valid, room);
    const bool over_channels = p.over == SN_OVER_C && !p.given;
    if (over_channels && p.channels_last) {
      good = forward ? Features<T, ACT>::forward(job) : Features<T, ACT>::backward_all(job);
    } else if (over_channels) {
      good = forward ? Positions<T, ACT>::forward(job) : Positions<T, ACT>::backward_all(job);
    } else if (p.channels_last) {
      forward ? sets_forward<T, ACT, Columns>(job) : sets_backward<T, ACT, Columns>(job);
    } else {
      forward ? sets_forward<T, ACT, Rows>(job) : sets_backward<T, ACT, Rows>(job);
    }
  }
  free(room);
  return good;
}

template <class T> bool run(const sn_problem& p, bool forward) {
  if (p.activation == SN_RELU) return run<T, SN_RELU>(p, forward);
  if (p.activation == SN_GELU) return run<T, SN_GELU>(p, forward);
  return run<T, SN_NONE>(p, forward);
}

int run(const sn_problem& p, bool forward) {
  switch (p.dtype) {
    case SN_FLOAT64: return !run<double>(p, forward);
    case SN_BFLOAT16: return !run<BF16>(p, forward);
    case SN_FLOAT16: return !run<FP16>(p, forward);
    default: return !run<float>(p, forward);
  }
}

}  // namespace

extern "C" {
int KERNEL(sn_forward_)(const sn_problem* problem) { return run(*problem, true); }
int KERNEL(sn_backward_)(const sn_problem* problem) { return run(*problem, false); }
}
