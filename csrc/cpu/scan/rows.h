// Whole rows out of the segments that the vector kernels take.
#pragma once

#include "scan.h"

namespace dlmdecode::cpu {

// The kernels of this machine's instruction set.
template <class C>
struct Kernels {
  Scan<C> scan;
  Select<C> select;
  Compare<C> compare;
};

template <class C>
Kernels<C> kernels(Kind kind);

inline int64_t segments_of(const Rows& rows) { return (rows.vocabulary + kSegment - 1) / kSegment; }

template <class C>
Partial<C, double> scan_segment(Scan<C> scan, const Rows& rows, int64_t row, int64_t segment) {
  const int64_t begin = segment * kSegment, end = begin + kSegment;
  return scan(rows, row, begin, end < rows.vocabulary ? end : rows.vocabulary);
}

template <class C>
Partial<C, double> scan_row(Scan<C> scan, const Rows& rows, int64_t row) {
  Partial<C, double> all;
  const int64_t segments = segments_of(rows);
  for (int64_t s = 0; s < segments; ++s) all = merge(all, scan_segment(scan, rows, row, s));
  return all;
}

// Rows a thread takes at least: a smaller share is not worth waking it.
inline int64_t grain(const Rows& rows) {
  constexpr int64_t kLeast = 16384;
  return rows.vocabulary < kLeast ? kLeast / rows.vocabulary : 1;
}

}  // namespace dlmdecode::cpu
