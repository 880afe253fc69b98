// Counter-based Gumbel noise with the same bits as dlmdecode/ops/philox.py, on every device.
//
// Plain IEEE operations in a fixed order: the build forbids fused multiply-add on the host
// (-ffp-contract=off), and the device code uses the rounding intrinsics.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define DLM_SHARED __host__ __device__ __forceinline__
#define DLM_UNROLL  // nvcc unrolls by itself
#else
#define DLM_UNROLL _Pragma("GCC unroll 10")
#define DLM_SHARED inline __attribute__((always_inline))
#endif

namespace dlmdecode {

// No draw is larger: the smallest uniform is 2^-33.
constexpr float kLargestGumbel = 23.0f;

template <class To, class From>
DLM_SHARED To bits_as(From value) {
  return __builtin_bit_cast(To, value);
}

DLM_SHARED float mul(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

DLM_SHARED double mul(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

DLM_SHARED float add(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

DLM_SHARED double add(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(a, b);
#else
  return a + b;
#endif
}

struct Words {
  uint32_t a, b, c, d;
};

constexpr uint32_t kPhilox0 = 0xD2511F53, kPhilox1 = 0xCD9E8D57;
constexpr uint32_t kPhiloxKey0 = 0x9E3779B9, kPhiloxKey1 = 0xBB67AE85;

// Philox4x32-10 (Salmon et al., SC 2011).
DLM_SHARED Words philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t seed) {
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  DLM_UNROLL
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = static_cast<uint64_t>(c0) * kPhilox0;
    const uint64_t second = static_cast<uint64_t>(c2) * kPhilox1;
    c0 = static_cast<uint32_t>(second >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(second);
    c2 = static_cast<uint32_t>(first >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(first);
    k0 += kPhiloxKey0;
    k1 += kPhiloxKey1;
  }
  return {c0, c1, c2, c3};
}

// Natural logarithm of positive normal numbers, within 2 units in the last place.
DLM_SHARED float log32(float x) {
  const int32_t shifted = bits_as<int32_t>(x) - 0x3F3504F3;  // sqrt(1/2): keeps 1 + f near 1
  const float exponent = static_cast<float>(shifted >> 23);
  const float f = add(bits_as<float>((shifted & 0x7FFFFF) + 0x3F3504F3), -1.0f);
  float tail = -0.0790274366736412f;
  tail = add(mul(tail, f), 0.12622319161891937f);
  tail = add(mul(tail, f), -0.12998183071613312f);
  tail = add(mul(tail, f), 0.14214496314525604f);
  tail = add(mul(tail, f), -0.166412815451622f);
  tail = add(mul(tail, f), 0.20001044869422913f);
  tail = add(mul(tail, f), -0.25000306963920593f);
  tail = add(mul(tail, f), 0.3333333134651184f);
  const float square = mul(f, f);
  const float small = add(mul(tail, mul(square, f)), mul(exponent, -2.12194440e-4f));
  return add(add(f, add(small, -mul(square, 0.5f))), mul(exponent, 0.693359375f));
}

// Standard Gumbel noise of one random word.
DLM_SHARED float gumbel(uint32_t word) {
  float w = mul(add(static_cast<float>(word), 0.5f), 0x1p-32f);
  w = w < 1 - 0x1p-24f ? w : 1 - 0x1p-24f;
  const float rest = add(1.0f, -w);
  const float exponential = -add(log32(rest), add(add(1.0f, -rest), -w));  // -log1p(-w)
  return -log32(exponential);
}

DLM_SHARED Words words_of(uint64_t seed, int64_t stream, int64_t position, int64_t token) {
  return philox(static_cast<uint32_t>(token >> 2), static_cast<uint32_t>(position),
                static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32), seed);
}

DLM_SHARED uint32_t word_at(const Words& words, int64_t token) {
  const uint32_t low = token & 1 ? words.b : words.a, high = token & 1 ? words.d : words.c;
  return token & 2 ? high : low;
}

// The noise of one token: what the vector loops compute four at a time.
DLM_SHARED float gumbel_at(uint64_t seed, int64_t stream, int64_t position, int64_t token) {
  return gumbel(word_at(words_of(seed, stream, position, token), token));
}

}  // namespace dlmdecode
