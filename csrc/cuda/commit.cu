// A block for each row. Positions are ranked by counting the better ones: windows are short.
#include "../commit.h"

#include "launch.h"

namespace dlmdecode::cuda {
namespace {

constexpr int kThreads = 256;

// order and written: (rows, length) of scratch.
__global__ void __launch_bounds__(kThreads) commit_rows(const Commit c, int* order, int* written) {
  __shared__ int open_count, taken, total;
  const int64_t row = blockIdx.x;
  order += row * c.length;
  written += row * c.length;
  if (threadIdx.x == 0) open_count = total = 0;
  __syncthreads();
  const int64_t first = first_position(c, row), last = last_position(c, row);
  for (int64_t i = first + threadIdx.x; i < last; i += kThreads) {
    if (!eligible(c, row, i)) continue;
    const double p = confidence_at(c, row, i);
    int rank = 0;
    for (int64_t j = first; j < last; ++j) {
      if (!eligible(c, row, j)) continue;
      const double q = confidence_at(c, row, j);
      rank += q > p || (q == p && j < i);
    }
    order[rank] = static_cast<int>(i);
    atomicAdd(&open_count, 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    taken = static_cast<int>(
        prefix_length(c, row, open_count, [&](int64_t k) { return int64_t{order[k]}; }));
  }
  __syncthreads();
  for (int k = threadIdx.x; k < open_count; k += kThreads) {
    written[k] = k < taken || (c.rule == Rule::Relaxed && leaps(c, row, order[k]));
  }
  __syncthreads();  // leaps reads its neighbours' masks: none may be gone before
  for (int k = threadIdx.x; k < open_count; k += kThreads) {
    if (!written[k]) continue;
    c.tokens[row * c.stride + order[k]] = c.proposed[row * c.length + order[k]];
    atomicAdd(&total, 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) c.count[row] = total;
}

}  // namespace

void commit(const Commit& c) {
  const Device device(c.device);
  const int64_t size = c.rows * c.length;
  const torch::stable::Tensor room = device.scratch(2 * size * sizeof(int));
  int* order = static_cast<int*>(room.data_ptr());
  device.launch(commit_rows, c.rows, kThreads, 0, c, order, order + size);
}

}  // namespace dlmdecode::cuda

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, DLM_DEVICE, m) {
  m.impl("commit", TORCH_BOX(&dlmdecode::commit<dlmdecode::cuda::commit>));
}
