// Rows over threads.
#include "../divergence.h"

#include "scan/rows.h"

namespace dlmdecode::cpu {
namespace {

template <class C>
void run(const Divergence& d) {
  const Compare<C> compare = kernels<C>(d.now.kind).compare;
  torch::stable::parallel_for(0, d.now.count, grain(d.now), [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; ++row) {
      if (!skipped(d, row)) finish(d, row, compare(d, row, partner(d, row)));
    }
  });
}

}  // namespace

void divergence(const Divergence& d) { d.now.kind == Kind::Double ? run<double>(d) : run<float>(d); }

}  // namespace dlmdecode::cpu

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) {
  m.impl("divergence", TORCH_BOX(&dlmdecode::divergence<dlmdecode::cpu::divergence>));
}
