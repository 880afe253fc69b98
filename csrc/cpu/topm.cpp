// Rows over threads.
#include "../topm.h"

#include "scan/rows.h"

namespace dlmdecode::cpu {
namespace {

template <class C>
void run(const Rows& rows, const Top& top) {
  const Kernels<C> kernel = kernels<C>(rows.kind);
  torch::stable::parallel_for(0, rows.count, grain(rows), [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) {
      int64_t* ids = top.ids + row * top.m;
      float* log_prob = top.log_prob + row * top.m;
      C values[kMostTop];
      const Partial<C, double> all = scan_row(kernel.scan, rows, row);
      const bool bad = all.bad || all.token < 0;
      const int64_t kept = bad ? 0 : kernel.select(rows, row, top.m, ids, values);
      const double total = log1p(all.rest);
      for (int64_t i = 0; i < top.m; ++i) {
        const double below = i < kept ? static_cast<double>(values[i]) - all.best : 0;
        ids[i] = i < kept ? ids[i] : bad ? kBad : kUnneeded;
        log_prob[i] = i < kept ? static_cast<float>(below - total) : -INFINITY;
      }
    }
  });
}

}  // namespace

void topm(const Rows& rows, const Top& top) {
  rows.kind == Kind::Double ? run<double>(rows, top) : run<float>(rows, top);
}

}  // namespace dlmdecode::cpu

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) {
  m.impl("topm", TORCH_BOX(&dlmdecode::topm<dlmdecode::cpu::topm>));
}
