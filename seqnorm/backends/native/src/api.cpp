// Entry points: pick the instructions at run time, share out work on torch's own threads.
#include "pool.h"
#include "problem.h"

#include <atomic>
#if defined(__linux__)
#include <sys/mman.h>
#endif

extern "C" {
int sn_forward_portable(const sn_problem*);
int sn_backward_portable(const sn_problem*);
#ifdef SEQNORM_AVX2
int sn_forward_avx2(const sn_problem*);
int sn_backward_avx2(const sn_problem*);
#endif
}

namespace {

sn_gomp_parallel pool = nullptr;

struct Work {
  int64_t pieces, stride;
  sn_piece run;
  void* context;
  std::atomic<int64_t> next;
};

void take_pieces(void* pointer) {
  Work& work = *static_cast<Work*>(pointer);
  for (;;) {
    const int64_t start = work.next.fetch_add(work.stride);
    if (start >= work.pieces) return;
    const int64_t stop = start + work.stride < work.pieces ? start + work.stride : work.pieces;
    for (int64_t piece = start; piece < stop; ++piece) work.run(work.context, piece);
  }
}

bool has_avx2() {
#ifdef SEQNORM_AVX2
  static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  return found;
#else
  return false;
#endif
}

// A result above 32 MiB is new memory, never recycled by the C library, and the system gives it
// page by page; large pages spare most of that time. Smaller results are often recycled, where the
// advice does harm. It is only advice, so the answer does not matter.
void prefer_large_pages(const sn_problem& p, void* result) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  static const uintptr_t least = 1 << 25, page = 4096;
  const uintptr_t width = p.dtype == SN_FLOAT64 ? 8 : (p.dtype == SN_FLOAT32 ? 4 : 2);
  const uintptr_t start = (reinterpret_cast<uintptr_t>(result) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(result) + width * p.n * p.c * p.l;
  if (result && end > start + least)
    madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);
#else
  (void)p;
  (void)result;
#endif
}

}  // namespace

extern "C" {

void sn_use_pool(sn_gomp_parallel parallel) { pool = parallel; }

void sn_share_out(int64_t pieces, int32_t threads, sn_piece run, void* context) {
  if (threads > pieces) threads = static_cast<int32_t>(pieces);
  if (threads <= 1 || pool == nullptr) {
    for (int64_t piece = 0; piece < pieces; ++piece) run(context, piece);
    return;
  }
  // Several turns a thread, so that one that was late to wake does not hold up the rest.
  const int64_t turns = int64_t(threads) * 8;
  Work work{pieces, pieces / turns > 0 ? pieces / turns : 1, run, context, {0}};
  pool(take_pieces, &work, static_cast<unsigned>(threads), 0);
}

int sn_forward(const sn_problem* problem) {
  prefer_large_pages(*problem, problem->y);
#ifdef SEQNORM_AVX2
  if (!problem->portable && has_avx2()) return sn_forward_avx2(problem);
#endif
  return sn_forward_portable(problem);
}

int sn_backward(const sn_problem* problem) {
  prefer_large_pages(*problem, problem->grad_x);
  prefer_large_pages(*problem, problem->grad_residual);
#ifdef SEQNORM_AVX2
  if (!problem->portable && has_avx2()) return sn_backward_avx2(problem);
#endif
  return sn_backward_portable(problem);
}

const char* sn_instructions(void) { return has_avx2() ? "avx2" : "portable"; }
}
