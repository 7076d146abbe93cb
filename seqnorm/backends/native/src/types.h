// Types of the data. Loads widen to the compute type, float or double, and stores narrow again.
#pragma once
#include "vec.h"

namespace {

struct BF16 { uint16_t bits; };
struct FP16 { uint16_t bits; };

template <class T> struct Compute { typedef float A; };
template <> struct Compute<double> { typedef double A; };
template <class T> using ComputeOf = typename Compute<T>::A;

typedef uint16_t VecH __attribute__((vector_size(16)));
typedef uint32_t VecU __attribute__((vector_size(32)));

INLINE VecF load(const float* p) { return load_vector(p); }
INLINE VecD load(const double* p) { return load_vector(p); }
INLINE void store(float* p, VecF v) { store_vector(p, v); }
INLINE void store(double* p, VecD v) { store_vector(p, v); }

INLINE VecF load(const BF16* p) {
  VecH half;
  memcpy(&half, p, sizeof half);
  const VecU bits = __builtin_convertvector(half, VecU) << 16;
  VecF v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

INLINE void store(BF16* p, VecF v) {
  VecU bits;
  memcpy(&bits, &v, sizeof bits);
  // To nearest, ties to even; NaN stays NaN, whatever its payload.
  const VecU rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const VecU kept = (bits & 0x7fffffff) > 0x7f800000 ? (VecU{} + 0x7fc0) : rounded;
  const VecH half = __builtin_convertvector(kept, VecH);
  memcpy(p, &half, sizeof half);
}

#if defined(__F16C__)
INLINE VecF load(const FP16* p) {
  return VecF(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
INLINE void store(FP16* p, VecF v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(__m256(v), _MM_FROUND_TO_NEAREST_INT));
}
#else
INLINE float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
INLINE uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

INLINE float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7fff;
  if (rest >= 0x7c00) return bits_to_float(sign | 0x7f800000 | ((rest & 0x3ff) << 13));
  if (rest >= 0x0400) return bits_to_float(sign | ((rest << 13) + 0x38000000));
  const float small = float(rest) * 5.9604644775390625e-8f;  // 2^-24: subnormal
  return bits_to_float(sign | float_to_bits(small));
}

INLINE uint16_t float_to_half(float value) {
  const uint32_t bits = float_to_bits(value), sign = (bits >> 16) & 0x8000;
  const uint32_t rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (rest >= 0x477ff000) return uint16_t(sign | 0x7c00);  // 65520 and above round to infinity
  if (rest < 0x38800000) {  // below 2^-14: the addition of 2^-1 rounds at the place of 2^-24
    const float shifted = bits_to_float(rest) + 0.5f;
    return uint16_t(sign | (float_to_bits(shifted) - 0x3f000000));
  }
  return uint16_t(sign | ((rest - 0x38000000 + 0xfff + ((rest >> 13) & 1)) >> 13));
}

INLINE VecF load(const FP16* p) {
  VecF v;
  for (int k = 0; k < 8; ++k) v[k] = half_to_float(p[k].bits);
  return v;
}
INLINE void store(FP16* p, VecF v) {
  for (int k = 0; k < 8; ++k) p[k].bits = float_to_half(v[k]);
}
#endif

// The first m lanes, where m is W in all but the last turn of a loop; the others are `fill`.
template <class T> INLINE Vec<ComputeOf<T>> load(const T* p, int m, ComputeOf<T> fill) {
  typedef ComputeOf<T> A;
  constexpr int W = Lanes<A>::W;
  if (m == W) return load(p);
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const VecI lanes = {0, 1, 2, 3, 4, 5, 6, 7}, mask = lanes < m;
    const VecF v = VecF(_mm256_maskload_ps(p, __m256i(mask)));
    return mask ? v : splat(fill);
  }
#endif
  T part[W] = {};
  for (int k = 0; k < m; ++k) part[k] = p[k];
  const Vec<A> v = load(part);
  if (fill == A(0)) return v;
  A lanes[W];
  for (int k = 0; k < W; ++k) lanes[k] = fill;
  store_vector(lanes, v);
  for (int k = m; k < W; ++k) lanes[k] = fill;
  return load_vector(lanes);
}

template <class T> INLINE void store(T* p, Vec<ComputeOf<T>> v, int m) {
  constexpr int W = Lanes<ComputeOf<T>>::W;
  if (m == W) return store(p, v);
  T part[W];
  store(part, v);
  for (int k = 0; k < m; ++k) p[k] = part[k];
}

// Mean and sum of squared deviations from it, in one pass where a guess of the mean serves: the
// deviations from it are small, so the correction for its error (Chan, Golub & LeVeque 1983,
// eq. 1.7) costs at most one bit. Where it does not serve, the pass is made again from the mean.
struct MeanAndM2 {
  double mean, m2;
};

// each_run(body) calls body(pointer, size) for the runs of numbers, `first` points to one of them.
template <class T, class F>
INLINE MeanAndM2 moments_of(double count, const T* first, int64_t size, F each_run) {
  typedef ComputeOf<T> A;
  typedef Vec<A> V;
  const int known = size < Lanes<A>::W ? int(size) : Lanes<A>::W;
  A shift = A(add_lanes(load(first, known, 0)) / double(known));
  for (bool again = true;; again = false) {
    LaneSums<A, 2> sums;
    const A from = shift;
    each_run([&](const T* x, int64_t n) INLINE_LAMBDA {
      sums.add(n, [&](int64_t i, int m, V* acc) INLINE_LAMBDA {
        const V d = load(x + i, m, from) - from;
        acc[0] += d;
        acc[1] += d * d;
      });
    });
    sums.empty();
    const double delta = sums.total[0] / count, m2 = sums.total[1] - sums.total[0] * delta;
    if (!again || delta * sums.total[0] <= m2)
      return {double(shift) + delta, m2 < 0 ? 0 : m2};  // NaN stays
    shift = A(double(shift) + delta);
  }
}

template <class T> INLINE MeanAndM2 moments_of(const T* x, int64_t n) {
  return moments_of(double(n), x, n, [&](auto body) INLINE_LAMBDA { body(x, n); });
}

template <class T> INLINE double square_of(const T* x, int64_t n) {
  typedef ComputeOf<T> A;
  double total[1] = {0};
  lane_sums<A, 1>(n, [&](int64_t i, int m, Vec<A>* acc) {
    const Vec<A> v = load(x + i, m, 0);
    acc[0] += v * v;
  }, total);
  return total[0];
}

}  // namespace
