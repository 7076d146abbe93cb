// Share out independent pieces of work. Results never depend on who does which piece.
#pragma once
#include <stdint.h>

typedef void (*sn_piece)(void* context, int64_t piece);
extern "C" void sn_share_out(int64_t pieces, int32_t threads, sn_piece run, void* context);

template <class F>
static inline void share_out(int64_t pieces, int32_t threads, F run) {
  sn_share_out(
      pieces, threads, [](void* context, int64_t piece) { (*static_cast<F*>(context))(piece); },
      &run);
}
