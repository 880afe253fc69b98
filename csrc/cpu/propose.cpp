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

// The kernels of this machine's instruction set.
template <class C>
struct Kernels {
  Scan<C> scan;
  Select<C> select;
};

template <class C>
Kernels<C> kernels(Kind kind) {
  static const Isa isa = choose_isa();
  constexpr bool is_float = sizeof(C) == sizeof(float);
#ifdef __x86_64__
  if constexpr (is_float) {
    if (isa == Isa::Avx512) return {avx512::scan_float(kind), avx512::select_float(kind)};
    if (isa == Isa::Avx2) return {avx2::scan_float(kind), avx2::select_float(kind)};
  } else {
    if (isa == Isa::Avx512) return {avx512::scan_double(kind), avx512::select_double(kind)};
    if (isa == Isa::Avx2) return {avx2::scan_double(kind), avx2::select_double(kind)};
  }
#endif
  if constexpr (is_float) {
    return {portable::scan_float(kind), portable::select_float(kind)};
  } else {
    return {portable::scan_double(kind), portable::select_double(kind)};
  }
}

int64_t segments_of(const Rows& rows) { return (rows.vocabulary + kSegment - 1) / kSegment; }

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

// Rows a thread takes at least: a smaller share is not worth waking it.
int64_t grain(const Rows& rows) {
  constexpr int64_t kLeast = 16384;
  return rows.vocabulary < kLeast ? kLeast / rows.vocabulary : 1;
}

template <class In, class C>
void run(const Rows& rows) {
  const Scan<C> scan = kernels<C>(rows.kind).scan;
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
  const int64_t count = wanted.size(), segments = segments_of(rows);
  if (segments == 1 || count >= 4 * static_cast<int64_t>(torch::stable::get_num_threads())) {
    torch::stable::parallel_for(0, count, grain(rows), [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        finish_row<In, C>(rows, wanted[i], scan_row(scan, rows, wanted[i]));
      }
    });
    return;
  }
  std::vector<Partial<C, double>>& parts = partials;
  parts.resize(count * segments);
  torch::stable::parallel_for(0, count * segments, 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      parts[i] = scan_segment(scan, rows, wanted[i / segments], i % segments);
    }
  });
  for (int64_t i = 0; i < count; ++i) {
    Partial<C, double> all;
    for (int64_t s = 0; s < segments; ++s) all = merge(all, parts[i * segments + s]);
    finish_row<In, C>(rows, wanted[i], all);
  }
}

template <class C>
void run_top(const Rows& rows, const Top& top) {
  const Kernels<C> kernel = kernels<C>(rows.kind);
  torch::stable::parallel_for(0, rows.count, grain(rows), [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) {
      int64_t* ids = top.ids + row * top.m;
      float* log_prob = top.log_prob + row * top.m;
      C values[kMostTop];
      const Partial<C, double> all = scan_row(kernel.scan, rows, row);
      const bool bad = all.bad || all.token < 0;
      const int64_t kept = bad ? 0 : kernel.select(rows, row, top.m, ids, values);
      for (int64_t i = 0; i < top.m; ++i) {
        const double below = i < kept ? static_cast<double>(values[i]) - all.best : 0;
        ids[i] = i < kept ? ids[i] : bad ? kBad : kUnneeded;
        log_prob[i] = i < kept ? static_cast<float>(below - log1p(all.rest)) : -INFINITY;
      }
    }
  });
}

}  // namespace

void topm(const Rows& rows, const Top& top) {
  rows.kind == Kind::Double ? run_top<double>(rows, top) : run_top<float>(rows, top);
}

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
