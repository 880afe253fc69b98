// The vector kernels of one row, compiled once per instruction set and chosen at run time.
#pragma once

#include <cstring>

#include "../../divergence.h"
#include "../../partial.h"

namespace dlmdecode::cpu {

// Rows are cut here whatever the number of threads, so that sums do not depend on it.
constexpr int64_t kSegment = 65536;

// Statistics of tokens [begin, end) of a row, leaving out those that stand apart.
template <class C>
using Scan = Partial<C, double> (*)(const Rows& rows, int64_t row, int64_t begin, int64_t end);

// The m best tokens of a row, best first, lowest id first among equals; how many there are.
template <class C>
using Select = int64_t (*)(const Rows& rows, int64_t row, int64_t m, int64_t* ids, C* values);

// Sums of a row beside a row of `before`.
template <class C>
using Compare = Moved<C> (*)(const Divergence& d, int64_t row, int64_t at);

#define DLM_DECLARE_SCANS(isa)          \
  namespace isa {                       \
  Scan<float> scan_float(Kind);         \
  Scan<double> scan_double(Kind);       \
  Select<float> select_float(Kind);     \
  Select<double> select_double(Kind);   \
  Compare<float> compare_float(Kind);   \
  Compare<double> compare_double(Kind); \
  }

DLM_DECLARE_SCANS(portable)
DLM_DECLARE_SCANS(avx2)
DLM_DECLARE_SCANS(avx512)
#undef DLM_DECLARE_SCANS

}  // namespace dlmdecode::cpu
