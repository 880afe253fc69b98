// Rows over threads; where there are few, their segments too.
#include "../propose.h"

#include <vector>

#include "scan/rows.h"

namespace dlmdecode::cpu {
namespace {

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

}  // namespace

void propose(const Rows& rows) {
  dispatch(rows, [&]<class In, class C>() { run<In, C>(rows); });
}

}  // namespace dlmdecode::cpu

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) {
  m.impl("propose", TORCH_BOX(&dlmdecode::propose<dlmdecode::cpu::propose>));
  m.impl("credit", TORCH_BOX(&dlmdecode::credit<dlmdecode::cpu::propose>));
}
