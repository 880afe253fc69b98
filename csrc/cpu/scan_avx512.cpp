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
#include "scan.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
