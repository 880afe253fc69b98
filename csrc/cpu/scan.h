// The vector kernels of one row, compiled once per instruction set and chosen at run time.
#pragma once

#include "../partial.h"

namespace dlmdecode::cpu {

// Rows are cut here whatever the number of threads, so that sums do not depend on it.
constexpr int64_t kSegment = 32768;

// Statistics of tokens [begin, end) of a row, leaving out those that stand apart.
template <class C>
using Scan = Partial<C, double> (*)(const Rows& rows, int64_t row, int64_t begin, int64_t end);

#define DLM_DECLARE_SCANS(isa)      \
  namespace isa {                   \
  Scan<float> scan_float(Kind);     \
  Scan<double> scan_double(Kind);   \
  }

DLM_DECLARE_SCANS(portable)
DLM_DECLARE_SCANS(avx2)
DLM_DECLARE_SCANS(avx512)
#undef DLM_DECLARE_SCANS

}  // namespace dlmdecode::cpu
