// Two launches: chunks of rows to statistics, then a warp for each row that merges them.
//
// Chunks depend on the vocabulary alone, so a row's numbers do not depend on its batch. A row that
// does not start at a multiple of 16 bytes is read element by element.
#include "../propose.h"
#include "chunk.h"

namespace dlmdecode::cuda {
namespace {

__device__ float exp_below(float d) { return exp2f(d * 1.44269504f); }
__device__ double exp_below(double d) { return exp(d); }

// Chunk statistics as they are stored; ids count from the start of the row.
template <class C>
struct ChunkResult {
  C best, second, key, rest, slope;
  int token, drawn;
  bool bad;
};

// Tokens that stand apart are added when the row is finished.
template <class In, class C>
__device__ void set_apart(const Rows& rows, int64_t row, int64_t begin, int64_t end,
                          C (&z)[kPerThread]) {
  const auto remove = [&](int64_t id) {
    if (id < begin || id >= end) return;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      if (Layout<In>::offset(i) == id - begin) z[i] = -static_cast<C>(__builtin_inf());
    }
  };
  for (int64_t i = row * rows.slots; i < (row + 1) * rows.slots; ++i) remove(rows.ids[i]);
  remove(rows.exclude);
}

template <class In, class C>
__device__ void draw(const Rows& rows, int64_t row, int64_t begin, const C (&z)[kPerThread], C& key,
                     int& drawn) {
  constexpr int group = Layout<In>::width < 4 ? Layout<In>::width : 4;  // of one Philox call
  const C inverse = static_cast<C>(1 / rows.temperature);
  const int64_t stream = stream_of(rows, row), position = position_of(rows, row);
#pragma unroll
  for (int i = 0; i < kPerThread; i += group) {
    C high = z[i];
#pragma unroll
    for (int e = 1; e < group; ++e) high = z[i + e] > high ? z[i + e] : high;
    if (high * inverse + kLargestGumbel < key) continue;
    const int64_t id = begin + Layout<In>::offset(i);
    const Words words = words_of(rows.seed, stream, position, id);
#pragma unroll
    for (int e = 0; e < group; ++e) {
      const C value = noisy(z[i + e], inverse, gumbel(word_at(words, id + e)));
      if (value > key) {  // a thread's ids rise with i
        key = value;
        drawn = static_cast<int>(id + e);
      }
    }
  }
}

// What a thread finds among its numbers.
template <class C>
struct Found {
  C best = -static_cast<C>(__builtin_inf()), second = best, key = best;
  int token = kNone, drawn = kNone;
  bool bad = false;
};

template <class In, class C>
__device__ Found<C> best_two(const C (&z)[kPerThread], int64_t begin) {
  Found<C> found;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    found.bad |= !(z[i] < static_cast<C>(__builtin_inf()));
    if (z[i] > found.best) {
      found.second = found.best;
      found.best = z[i];
      found.token = static_cast<int>(begin) + Layout<In>::offset(i);
    } else if (z[i] > found.second) {
      found.second = z[i];
    }
  }
  return found;
}

// Adds exp(z - best) and exp(z - best) (best - z) of the thread's numbers beside the best one.
template <class In, class C>
__device__ void sum_beside(const C (&z)[kPerThread], int64_t begin, Candidate<C> top, bool mine,
                           C& rest, C& slope) {
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (z[i] == -static_cast<C>(__builtin_inf())) continue;
    if (mine && begin + Layout<In>::offset(i) == top.id) continue;
    const C d = z[i] - top.value, e = exp_below(d);
    rest += e;
    slope -= e * d;
  }
}

template <class In, class C>
__global__ void __launch_bounds__(kThreads)
    scan(const Rows rows, int chunks, ChunkResult<C>* results) {
  const int64_t row = blockIdx.x / chunks;
  if (rows.need && !rows.need[row]) return;
  const int64_t begin = static_cast<int64_t>(blockIdx.x % chunks) * kChunk;
  const int64_t end = begin + kChunk < rows.vocabulary ? begin + kChunk : rows.vocabulary;
  C z[kPerThread];
  load(static_cast<const In*>(rows.logits) + row * rows.stride + begin, end - begin, z);
  if (rows.slots > 0 || rows.exclude >= 0) set_apart<In>(rows, row, begin, end, z);

  Found<C> found = best_two<In>(z, begin);
  if (rows.temperature > 0) draw<In>(rows, row, begin, z, found.key, found.drawn);

  __shared__ C room[kThreads / kWarp];
  __shared__ int room_of_ids[kThreads / kWarp];
  const Candidate<C> top = best_of_block(Candidate<C>{found.best, found.token}, room, room_of_ids);
  const bool mine = found.token == top.id;
  const C runner_up = reduce_block(mine ? found.second : found.best, room, Larger{});
  C rest = 0, slope = 0;
  if (top.id != kNone) sum_beside<In>(z, begin, top, mine, rest, slope);
  rest = reduce_block(rest, room, Plus{});
  slope = reduce_block(slope, room, Plus{});
  Candidate<C> winner{-static_cast<C>(__builtin_inf()), kNone};
  if (rows.temperature > 0) {
    winner = best_of_block(Candidate<C>{found.key, found.drawn}, room, room_of_ids);
  }
  const bool any_bad = __syncthreads_or(found.bad);
  if (threadIdx.x == 0) {
    results[blockIdx.x] = {top.value,
                           runner_up,
                           winner.value,
                           rest,
                           slope,
                           top.id == kNone ? -1 : top.id,
                           winner.id == kNone ? -1 : winner.id,
                           any_bad};
  }
}

template <class In, class C>
__global__ void __launch_bounds__(kWarp)
    finish_rows(const Rows rows, int chunks, const ChunkResult<C>* results) {
  C* values = reinterpret_cast<C*>(dynamic_shared());
  const int64_t row = blockIdx.x;
  if (rows.need && !rows.need[row]) {
    if (threadIdx.x == 0) skip_row(rows, row);
    return;
  }
  Partial<C, double> all;
  for (int i = threadIdx.x; i < chunks; i += kWarp) {
    const ChunkResult<C>& r = results[row * chunks + i];
    Partial<C, double> one;
    one.best = r.best;
    one.second = r.second;
    one.key = r.key;
    one.token = r.token;
    one.drawn = r.drawn;
    one.rest = r.rest;
    one.slope = r.slope;
    one.bad = r.bad;
    all = merge(all, one);
  }
  all = merge_warp(all);
  for (int64_t i = threadIdx.x; i < rows.slots; i += kWarp) {
    const int64_t id = rows.ids[row * rows.slots + i];
    values[i] = id >= 0 ? logit_at<In, C>(rows, row, id) : 0;
  }
  __syncwarp();
  if (threadIdx.x == 0) {
    const C excluded = rows.exclude < 0 ? -static_cast<C>(__builtin_inf())
                                        : logit_at<In, C>(rows, row, rows.exclude);
    finish<In, C>(rows, row, all, values, excluded);
  }
}

template <class In, class C>
void run(const Rows& rows) {
  const Device device(rows.device);
  const int chunks = chunks_of(rows);
  const torch::stable::Tensor room =
      device.scratch(rows.count * chunks * static_cast<int64_t>(sizeof(ChunkResult<C>)));
  ChunkResult<C>* results = static_cast<ChunkResult<C>*>(room.data_ptr());
  device.launch(scan<In, C>, rows.count * chunks, kThreads, 0, rows, chunks, results);
  device.launch(finish_rows<In, C>, rows.count, kWarp, rows.slots * sizeof(C), rows, chunks,
                results);
}

}  // namespace

void propose(const Rows& rows) {
  dispatch(rows, [&]<class In, class C>() { run<In, C>(rows); });
}

}  // namespace dlmdecode::cuda

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, DLM_DEVICE, m) {
  m.impl("propose", TORCH_BOX(&dlmdecode::propose<dlmdecode::cuda::propose>));
  m.impl("credit", TORCH_BOX(&dlmdecode::credit<dlmdecode::cuda::propose>));
}
