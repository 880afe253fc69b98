// The kernels of the machine's instruction set, for `rows.h`.
#include <cstdlib>
#include <cstring>

#include "rows.h"

namespace dlmdecode::cpu {
namespace {

enum class Isa { Portable, Avx2, Avx512 };

// DLMDECODE_ISA=portable|avx2 lowers the choice, for tests.
Isa choose_isa() {
#ifdef __x86_64__
  const char* wish = std::getenv("DLMDECODE_ISA");
  const bool low = wish && std::strcmp(wish, "portable") == 0;
  const bool middle = wish && std::strcmp(wish, "avx2") == 0;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && !low && !middle) return Isa::Avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && !low) return Isa::Avx2;
#endif
  return Isa::Portable;
}

}  // namespace

template <class C>
Kernels<C> kernels(Kind kind) {
  static const Isa isa = choose_isa();
  constexpr bool is_float = sizeof(C) == sizeof(float);
#ifdef __x86_64__
  if constexpr (is_float) {
    if (isa == Isa::Avx512) return {avx512::scan_float(kind), avx512::select_float(kind),
              avx512::compare_float(kind)};
    if (isa == Isa::Avx2) return {avx2::scan_float(kind), avx2::select_float(kind),
              avx2::compare_float(kind)};
  } else {
    if (isa == Isa::Avx512) return {avx512::scan_double(kind), avx512::select_double(kind),
              avx512::compare_double(kind)};
    if (isa == Isa::Avx2) return {avx2::scan_double(kind), avx2::select_double(kind),
              avx2::compare_double(kind)};
  }
#endif
  if constexpr (is_float) {
    return {portable::scan_float(kind), portable::select_float(kind),
              portable::compare_float(kind)};
  } else {
    return {portable::scan_double(kind), portable::select_double(kind),
              portable::compare_double(kind)};
  }
}

template Kernels<float> kernels<float>(Kind kind);
template Kernels<double> kernels<double>(Kind kind);

}  // namespace dlmdecode::cpu
