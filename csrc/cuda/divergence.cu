// A block for each row.
#include "../divergence.h"

#include "launch.h"
#include "reduce.h"

namespace dlmdecode::cuda {
namespace {

constexpr int kThreads = 256;

template <class In, class C>
__global__ void __launch_bounds__(kThreads) compare_rows(const Divergence d) {
  __shared__ C room[kThreads / kWarp];
  __shared__ double wide_room[kThreads / kWarp];
  constexpr C infinity = static_cast<C>(__builtin_inf());
  const int64_t row = blockIdx.x, at = partner(d, row);
  if (d.need && !d.need[row]) {
    if (threadIdx.x == 0) skipped(d, row);
    return;
  }
  Moved<C> mine;
  mine.base = at < 0 ? 0 : static_cast<C>(d.norm_before[at]);
  for (int64_t i = threadIdx.x; i < d.now.vocabulary; i += kThreads) {
    const C z = logit_at<In, C>(d.now, row, i);
    mine.bad |= !(z < infinity);
    if (!(z > -infinity)) continue;  // 0 inf is 0
    if (z > mine.best) mine.raise(z, mine.base);
    const C below = z - mine.best;
    const double weight = exp(static_cast<double>(below));
    mine.sum += weight;
    if (at < 0) continue;
    const C before = logit_at<In, C>(d.before, at, i) - mine.base;
    mine.gap += weight * static_cast<double>(below - before);
  }
  mine.raise(reduce_block(mine.best, room, Larger{}), mine.base);
  mine.sum = reduce_block(mine.sum, wide_room, Plus{});
  mine.gap = reduce_block(mine.gap, wide_room, Plus{});
  mine.bad = __syncthreads_or(mine.bad);
  if (threadIdx.x == 0) finish(d, row, mine);
}

}  // namespace

void divergence(const Divergence& d) {
  const Device device(d.now.device);
  dispatch(d.now, [&]<class In, class C>() {
    device.launch(compare_rows<In, C>, d.now.count, kThreads, 0, d);
  });
}

}  // namespace dlmdecode::cuda

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, DLM_DEVICE, m) {
  m.impl("divergence", TORCH_BOX(&dlmdecode::divergence<dlmdecode::cuda::divergence>));
}
