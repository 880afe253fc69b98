#include "scan.h"

#ifdef __x86_64__
#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif
#define DLM_FMA
#define DLM_ISA avx512
#define DLM_STRIP 2048
#define DLM_SUMS "sum_avx512.inc"

namespace dlmdecode::cpu::avx512 {
namespace {

typedef uint64_t Lanes __attribute__((vector_size(64)));

inline Lanes product(Lanes a, uint32_t b) {
  return (Lanes)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
}

inline uint32_t at_most(const uint32_t* words, uint32_t limit) {
  return _mm512_cmple_epu32_mask(_mm512_loadu_si512(words), _mm512_set1_epi32(limit));
}

}  // namespace
}  // namespace dlmdecode::cpu::avx512

#include "scan.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
