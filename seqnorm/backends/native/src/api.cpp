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
sn_thread_number thread_number = nullptr;

constexpr int32_t MOST_THREADS = 256;

// A thread's share of the pieces: the same stretch in every call, as in torch's own operations, so
// that it finds in its cache what it, or they, left there. Who is done early helps the others.
struct Share {
  alignas(64) std::atomic<int64_t> next;
  int64_t end;
};

struct Work {
  int32_t threads;
  int64_t stride;
  sn_piece run;
  void* context;
  Share shares[MOST_THREADS];
};

void take_pieces(void* pointer) {
  Work& work = *static_cast<Work*>(pointer);
  const int32_t own = thread_number ? thread_number() % work.threads : 0;
  for (int32_t turn = 0; turn < work.threads; ++turn) {
    Share& share = work.shares[(own + turn) % work.threads];
    for (;;) {
      const int64_t start = share.next.fetch_add(work.stride);
      if (start >= share.end) break;
      const int64_t stop = start + work.stride < share.end ? start + work.stride : share.end;
      for (int64_t piece = start; piece < stop; ++piece) work.run(work.context, piece);
    }
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

void sn_use_pool(sn_gomp_parallel parallel, sn_thread_number number) {
  pool = parallel;
  thread_number = number;
}

void sn_share_out(int64_t pieces, int32_t threads, sn_piece run, void* context) {
  if (threads > pieces) threads = static_cast<int32_t>(pieces);
  if (threads <= 1 || pool == nullptr) {
    for (int64_t piece = 0; piece < pieces; ++piece) run(context, piece);
    return;
  }
  if (threads > MOST_THREADS) threads = MOST_THREADS;
  Work work;
  work.threads = threads;
  // Several turns a thread, so that there is something to take over from one that was late to wake.
  const int64_t turns = int64_t(threads) * 8;
  work.stride = pieces / turns > 0 ? pieces / turns : 1;
  work.run = run;
  work.context = context;
  for (int32_t t = 0; t < threads; ++t) {
    work.shares[t].next = pieces * t / threads;
    work.shares[t].end = pieces * (t + 1) / threads;
  }
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
