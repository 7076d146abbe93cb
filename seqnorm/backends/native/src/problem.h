// The C interface: one struct says what is normalized and where the results go.
// Mirrored field by field by the ctypes structure in seqnorm/backends/native/__init__.py.
#pragma once
#include <stdint.h>

#define SN_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

enum sn_dtype { SN_FLOAT32 = 0, SN_FLOAT64 = 1, SN_BFLOAT16 = 2, SN_FLOAT16 = 3 };
enum sn_over { SN_OVER_L = 0, SN_OVER_NL = 1, SN_OVER_CL = 2, SN_OVER_C = 3 };
enum sn_activation { SN_NONE = 0, SN_RELU = 1, SN_GELU = 2 };

// Shapes: x, residual, y, grad, grad_x, grad_residual (N, C, L), or (N, L, C) if channels_last;
// weight, bias (C); grad_weight, grad_bias (N, C), or (C) if summed; mean, var double, of the shape
// of the sets: (N, C) over L, (C) over NL, (N, G) over CL, (N, G, L) or (N, L, G) over C.
// "compute" below is double where dtype is SN_FLOAT64, else float. Pointers may be null where the
// comment says optional.
struct sn_problem {
  int32_t dtype, over, channels_last, center, activation;
  int32_t given;    // mean and var are (C) and known: not taken from x
  int32_t threads;  // at most so many
  int32_t portable; // do not use the instructions that only some processors have
  int32_t summed;   // backward: grad_weight and grad_bias are sums over the sequences
  int32_t unused;
  int64_t n, c, l, groups;
  double eps;
  const int64_t* lengths;  // optional (N): valid positions at the start of each sequence
  const uint8_t* mask;     // optional (N, L): 1 where valid
  const void* x;
  const void* residual;       // optional
  const void* weight;         // optional, compute
  const void* bias;           // optional, compute
  double* mean;
  double* var;
  void* y;                    // forward
  const void* grad;           // backward
  void* grad_x;
  void* grad_residual;        // optional
  void* grad_weight;          // compute
  void* grad_bias;            // compute
};

// 0; 1 if memory for the work could not be had; 2 if a length is outside 0..L.
SN_API int sn_forward(const struct sn_problem* problem);
SN_API int sn_backward(const struct sn_problem* problem);

// The pool of threads to share: GOMP_parallel and omp_get_thread_num of the OpenMP runtime that
// torch has loaded. Without one everything runs in the calling thread.
typedef void (*sn_gomp_parallel)(void (*)(void*), void*, unsigned, unsigned);
typedef int (*sn_thread_number)(void);
SN_API void sn_use_pool(sn_gomp_parallel parallel, sn_thread_number number);

// "avx2" or "portable": what a call that does not ask for portable will use.
SN_API const char* sn_instructions(void);

#ifdef __cplusplus
}
#endif
