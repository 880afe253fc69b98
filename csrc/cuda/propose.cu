// Two launches: chunks of rows to statistics, then a warp for each row that merges them.
//
// Chunks depend on the vocabulary alone, so a row's numbers do not depend on its batch. A row that
// does not start at a multiple of 16 bytes is read element by element.
#include "../ops.h"
#include "chunk.h"

namespace dlmdecode::cuda {
namespace {

constexpr int kMostTouched = 128;  // ids of a chunk that are edited or stand apart, at a time

__device__ float exp_below(float d) { return exp2f(d * 1.44269504f); }
__device__ double exp_below(double d) { return exp(d); }

// Chunk statistics as they are stored; ids count from the start of the row.
template <class C>
struct ChunkResult {
  C best, second, key, rest, slope;
  int token, drawn;
  bool bad;
};

// Adds a value to the logit at an offset of the chunk, in the thread that holds it.
template <class In, class C>
__device__ void touch(C (&z)[kPerThread], int offset, C value) {
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (Layout<In>::offset(i) == offset) z[i] = add(z[i], value);
  }
}

// Ids of the list that lie in the chunk, in their order, by the first warp; returns how many.
__device__ int gather_touched(const int64_t* ids, int64_t from, int64_t to, int64_t begin,
                              int64_t end, int* where) {
  __shared__ int found;
  __syncthreads();
  if (threadIdx.x < kWarp) {
    int count = 0;
    for (int64_t base = from; base < to; base += kWarp) {
      const int64_t i = base + threadIdx.x;
      const int64_t id = i < to ? ids[i] : -1;
      const bool inside = id >= begin && id < end;
      const unsigned votes = __ballot_sync(kAll, inside);
      if (inside) where[count + __popc(votes & ((1u << threadIdx.x) - 1))] = static_cast<int>(i);
      count += __popc(votes);
    }
    if (threadIdx.x == 0) found = count;
  }
  __syncthreads();
  return found;
}

// Edits, then the tokens that stand apart: their value is added when the row is finished.
template <class In, class C>
__device__ void change(const Rows& rows, int64_t row, int64_t begin, int64_t end,
                       C (&z)[kPerThread]) {
  __shared__ int where[kMostTouched];
  for (int64_t from = row * rows.edits; from < (row + 1) * rows.edits; from += kMostTouched) {
    const int64_t last = (row + 1) * rows.edits;
    const int64_t to = from + kMostTouched < last ? from + kMostTouched : last;
    const int found = gather_touched(rows.edit_ids, from, to, begin, end, where);
    for (int j = 0; j < found; ++j) {
      touch<In>(z, static_cast<int>(rows.edit_ids[where[j]] - begin),
                static_cast<C>(rows.edit_values[where[j]]));
    }
  }
}

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

template <class In, class C>
__global__ void __launch_bounds__(kThreads)
    scan(const Rows rows, int chunks, ChunkResult<C>* results) {
  const int64_t row = blockIdx.x / chunks;
  if (rows.need && !rows.need[row]) return;
  const int64_t begin = static_cast<int64_t>(blockIdx.x % chunks) * kChunk;
  const int64_t end = begin + kChunk < rows.vocabulary ? begin + kChunk : rows.vocabulary;
  constexpr C infinity = static_cast<C>(__builtin_inf());
  C z[kPerThread];
  load(static_cast<const In*>(rows.logits) + row * rows.stride + begin, end - begin, z);
  if (rows.uncond) {
    C u[kPerThread];
    load(static_cast<const In*>(rows.uncond) + row * rows.uncond_stride + begin, end - begin, u);
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) z[i] = guided(z[i], u[i], static_cast<C>(rows.guidance));
  }
  if (rows.edits > 0) change<In>(rows, row, begin, end, z);
  if (rows.slots > 0 || rows.exclude >= 0) set_apart<In>(rows, row, begin, end, z);

  C best = -infinity, second = -infinity, key = -infinity;
  int token = kNone, drawn = kNone;
  bool bad = false;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    bad |= !(z[i] < infinity);
    if (z[i] > best) {
      second = best;
      best = z[i];
      token = static_cast<int>(begin) + Layout<In>::offset(i);
    } else if (z[i] > second) {
      second = z[i];
    }
  }
  if (rows.temperature > 0) draw<In>(rows, row, begin, z, key, drawn);

  __shared__ C room[kThreads / kWarp];
  __shared__ int room_of_ids[kThreads / kWarp];
  const Candidate<C> top = best_of_block(Candidate<C>{best, token}, room, room_of_ids);
  const bool mine = token == top.id;
  const C runner_up = reduce_block(mine ? second : best, room, Larger{});
  C rest = 0, slope = 0;
  if (top.id != kNone) {
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      if (z[i] == -infinity || (mine && begin + Layout<In>::offset(i) == top.id)) continue;
      const C d = z[i] - top.value, e = exp_below(d);
      rest += e;
      slope -= e * d;
    }
  }
  rest = reduce_block(rest, room, Plus{});
  slope = reduce_block(slope, room, Plus{});
  Candidate<C> winner{-infinity, kNone};
  if (rows.temperature > 0) {
    winner = best_of_block(Candidate<C>{key, drawn}, room, room_of_ids);
  }
  const bool any_bad = __syncthreads_or(bad);
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

}  // namespace dlmdecode::cuda
