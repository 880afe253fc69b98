#include "scan.h"

#ifdef __x86_64__
#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define DLM_FMA
#define DLM_ISA avx2
#define DLM_STRIP 1024

namespace dlmdecode::cpu::avx2 {
namespace {

typedef uint64_t Lanes __attribute__((vector_size(32)));

inline Lanes product(Lanes a, uint32_t b) {
  return (Lanes)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
}

inline uint32_t at_most(const uint32_t* words, uint32_t limit) {
  const auto eight = [&](const uint32_t* start) {
    const __m256i w = _mm256_loadu_si256((const __m256i*)start);
    const __m256i low = _mm256_min_epu32(w, _mm256_set1_epi32(limit));
    return (uint32_t)_mm256_movemask_ps((__m256)_mm256_cmpeq_epi32(w, low));
  };
  return eight(words) | eight(words + 8) << 8;
}

}  // namespace
}  // namespace dlmdecode::cpu::avx2

#include "scan.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
