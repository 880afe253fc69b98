#include "scan.h"

#ifdef __x86_64__
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define DLM_FMA
#define DLM_ISA avx2
#define DLM_STRIP 1024
#include "scan.inc"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
