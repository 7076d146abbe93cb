// What follows the affine map, and its derivative: nothing, ReLU, or GELU in its exact form,
// x * Phi(x) with Phi the normal distribution function (Hendrycks & Gimpel 2016,
// arXiv:1606.08415).
#pragma once
#include "problem.h"
#include "vec.h"

namespace {

// erf by a rational function, fitted to erf by least squares with weights that even out the
// relative error; off by at most 4e-7 in float arithmetic. Beyond 3.92 it is 1 to that precision.
INLINE VecF error_function(VecF x) {
  x = x > 3.92f ? splat(3.92f) : x;
  x = x < -3.92f ? splat(-3.92f) : x;
  const VecF t = x * x;
  VecF p = splat(1.9923890e-08f);
  p = p * t - 1.9578024e-06f;
  p = p * t + 1.4184773e-04f;
  p = p * t + 3.7015416e-03f;
  p = p * t + 5.0573148e-02f;
  p = p * t + 1.9992328e-01f;
  p = p * t + 1.1283791e+00f;
  VecF q = splat(9.5601886e-04f);
  q = q * t + 1.4353082e-02f;
  q = q * t + 1.1499788e-01f;
  q = q * t + 5.1050901e-01f;
  q = q * t + 1.0f;
  const VecF y = x * (p / q);
  return y > 1.0f ? splat(1.0f) : (y < -1.0f ? splat(-1.0f) : y);
}

INLINE VecD error_function(VecD x) {
  for (int k = 0; k < 4; ++k) x[k] = erf(x[k]);
  return x;
}

// exp of numbers of at most 0: powers of two times the Taylor series on |r| <= ln(2) / 2.
INLINE VecF exponential(VecF x) {
  x = x < -87.0f ? splat(-87.0f) : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const VecF n = (x * 1.44269504f + magic) - magic;
  const VecF r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  VecF p = splat(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const VecI bits = (__builtin_convertvector(n, VecI) + 127) << 23;
  VecF power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

INLINE VecD exponential(VecD x) {
  for (int k = 0; k < 4; ++k) x[k] = exp(x[k]);
  return x;
}

template <class A> INLINE Vec<A> normal_cdf(Vec<A> x) {
  return (error_function(x * A(0.70710678118654752440)) + A(1)) * A(0.5);
}

template <class A, int ACT> INLINE Vec<A> activate(Vec<A> x) {
  if constexpr (ACT == SN_RELU) return x < A(0) ? Vec<A>{} : x;  // NaN stays NaN
  if constexpr (ACT == SN_GELU) return x * normal_cdf<A>(x);
  return x;
}

// The gradient before the activation, from that after it and the activation's input.
template <class A, int ACT> INLINE Vec<A> backward(Vec<A> grad, Vec<A> x) {
  if constexpr (ACT == SN_RELU) return x > A(0) ? grad : Vec<A>{};
  if constexpr (ACT == SN_GELU) {
    const Vec<A> density = exponential(x * x * A(-0.5)) * A(0.39894228040143267794);
    return grad * (normal_cdf<A>(x) + x * density);
  }
  return grad;
}

}  // namespace
