// A block for each row.
#include "../canvas.h"

#include "launch.h"
#include "reduce.h"

namespace dlmdecode::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) survey_rows(const Survey s) {
  __shared__ int64_t room[kThreads / kWarp];
  const int64_t row = blockIdx.x;
  Counts mine{0, 0, s.length, s.length, 0};
  for (int64_t i = threadIdx.x; i < s.length; i += kThreads) {
    const Place place = place_at(s, row, i);
    s.masked[row * s.length + i] = place.masked;
    s.open[row * s.length + i] = place.open;
    mine.masks += place.masked;
    mine.open += place.open;
    mine.bad += place.bad;
    if (place.masked && i < mine.mask_at) mine.mask_at = i;
    if (place.end && i < mine.eos_at) mine.eos_at = i;
  }
  mine.masks = reduce_block(mine.masks, room, Plus{});
  mine.open = reduce_block(mine.open, room, Plus{});
  mine.bad = reduce_block(mine.bad, room, Plus{});
  mine.mask_at = reduce_block(mine.mask_at, room, Smaller{});
  mine.eos_at = reduce_block(mine.eos_at, room, Smaller{});
  if (threadIdx.x == 0) write_row(s, row, mine);
}

__global__ void __launch_bounds__(kThreads) put_rows(const Put p) {
  const int64_t row = blockIdx.x;
  for (int64_t i = threadIdx.x; i < p.length; i += kThreads) {
    put_one(p, row * p.length + i, p.kept, row * p.length + i);
  }
  __syncthreads();
  for (int64_t k = threadIdx.x; k < p.width; k += kThreads) put_new(p, row, k);
}

__global__ void __launch_bounds__(kThreads) choose_in_rows(const Choose c) {
  __shared__ int64_t best[kThreads];
  const int64_t first = blockIdx.x * c.length, last = first + c.length;
  int64_t mine = -1;
  bool any = false;
  for (int64_t at = first + threadIdx.x; at < last; at += kThreads) {
    c.chosen[at] = c.open[at] && c.where[at];
    any |= c.chosen[at];
    if (c.open[at] && (mine < 0 || surer(c.confidence[at], c.confidence[mine]))) mine = at;
  }
  best[threadIdx.x] = mine;
  if (__syncthreads_or(any) || threadIdx.x > 0) return;
  for (int i = 1; i < kThreads; ++i) {
    const int64_t other = best[i];
    if (other < 0) continue;
    const bool tied = mine >= 0 && !surer(c.confidence[mine], c.confidence[other]);
    if (mine < 0 || surer(c.confidence[other], c.confidence[mine]) || (tied && other < mine)) {
      mine = other;
    }
  }
  if (mine >= 0) c.chosen[mine] = true;
}

}  // namespace

void survey(const Survey& s) { Device(s.device).launch(survey_rows, s.rows, kThreads, 0, s); }

void put(const Put& p) { Device(p.device).launch(put_rows, p.rows, kThreads, 0, p); }

void choose(const Choose& c) { Device(c.device).launch(choose_in_rows, c.rows, kThreads, 0, c); }

}  // namespace dlmdecode::cuda

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, DLM_DEVICE, m) {
  m.impl("survey", TORCH_BOX(&dlmdecode::survey<dlmdecode::cuda::survey>));
  m.impl("put", TORCH_BOX(&dlmdecode::put<dlmdecode::cuda::put>));
  m.impl("choose", TORCH_BOX(&dlmdecode::choose<dlmdecode::cuda::choose>));
}
