// Rows over threads; where there are few, their segments too.
#include <torch/csrc/stable/ops.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "../ops.h"
#include "scan.h"

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

template <class C>
Scan<C> scan_for(Kind kind) {
  static const Isa isa = choose_isa();
  constexpr bool is_float = sizeof(C) == sizeof(float);
#ifdef __x86_64__
  if constexpr (is_float) {
    if (isa == Isa::Avx512) return avx512::scan_float(kind);
    if (isa == Isa::Avx2) return avx2::scan_float(kind);
  } else {
    if (isa == Isa::Avx512) return avx512::scan_double(kind);
    if (isa == Isa::Avx2) return avx2::scan_double(kind);
  }
#endif
  if constexpr (is_float) {
    return portable::scan_float(kind);
  } else {
    return portable::scan_double(kind);
  }
}

template <class In, class C>
void finish_row(const Rows& rows, int64_t row, const Partial<C, double>& all) {
  thread_local std::vector<C> values;
  values.resize(rows.slots);
  for (int64_t i = 0; i < rows.slots; ++i) {
    const int64_t id = rows.ids[row * rows.slots + i];
    if (id >= 0) values[i] = logit_at<In, C>(rows, row, id);
  }
  const C excluded = rows.exclude < 0 ? -static_cast<C>(__builtin_inf())
                                      : logit_at<In, C>(rows, row, rows.exclude);
  finish<In, C>(rows, row, all, values.data(), excluded);
}

template <class In, class C>
void run(const Rows& rows) {
  const Scan<C> scan = scan_for<C>(rows.kind);
  thread_local std::vector<int64_t> wanted_rows;
  thread_local std::vector<Partial<C, double>> partials;
  std::vector<int64_t>& wanted = wanted_rows;  // the workers use this thread's
  wanted.clear();
  for (int64_t row = 0; row < rows.count; ++row) {
    if (rows.need && !rows.need[row]) {
      skip_row(rows, row);
    } else {
      wanted.push_back(row);
    }
  }
  const int64_t count = wanted.size(), segments = (rows.vocabulary + kSegment - 1) / kSegment;
  const auto scan_segment = [&](int64_t row, int64_t segment) {
    const int64_t begin = segment * kSegment, end = begin + kSegment;
    return scan(rows, row, begin, end < rows.vocabulary ? end : rows.vocabulary);
  };
  if (count >= 4 * static_cast<int64_t>(torch::stable::get_num_threads())) {
    torch::stable::parallel_for(0, count, 1, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        Partial<C, double> all;
        for (int64_t s = 0; s < segments; ++s) all = merge(all, scan_segment(wanted[i], s));
        finish_row<In, C>(rows, wanted[i], all);
      }
    });
    return;
  }
  std::vector<Partial<C, double>>& parts = partials;
  parts.resize(count * segments);
  torch::stable::parallel_for(0, count * segments, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      parts[i] = scan_segment(wanted[i / segments], i % segments);
    }
  });
  for (int64_t i = 0; i < count; ++i) {
    Partial<C, double> all;
    for (int64_t s = 0; s < segments; ++s) all = merge(all, parts[i * segments + s]);
    finish_row<In, C>(rows, wanted[i], all);
  }
}

}  // namespace

void propose(const Rows& rows) {
  const bool wide = rows.wide_output;
  switch (rows.kind) {
    case Kind::Float:
      return wide ? run<float, double>(rows) : run<float, float>(rows);
    case Kind::BFloat16:
      return wide ? run<BFloat16, double>(rows) : run<BFloat16, float>(rows);
    case Kind::Half:
      return wide ? run<Half, double>(rows) : run<Half, float>(rows);
    case Kind::Double:
      return run<double, double>(rows);
  }
}

}  // namespace dlmdecode::cpu
