// Two launches: the m best of each chunk, then a warp for each row that merges the chunks' lists.
#include "../topm.h"
#include "chunk.h"

namespace dlmdecode::cuda {
namespace {

// The best tokens of a chunk, best first; ids count from the start of the row.
template <class C>
struct ChunkTop {
  C value[kMostTop];
  int id[kMostTop];
  int count;
  C rest;  // sum of exp(z - value[0]) over the chunk's other tokens
  bool bad;
};

// The thread's best token that comes after `last` in the order of the result.
template <class In, class C>
__device__ Candidate<C> best_after(Candidate<C> last, const C (&z)[kPerThread], int64_t begin) {
  Candidate<C> best{-static_cast<C>(__builtin_inf()), kNone};
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {  // ids rise with i
    const int id = static_cast<int>(begin) + Layout<In>::offset(i);
    const bool left = z[i] < last.value || (z[i] == last.value && id > last.id);
    if (left && z[i] > best.value) best = {z[i], id};
  }
  return best;
}

template <class In, class C>
__global__ void __launch_bounds__(kThreads)
    top_of_chunk(const Rows rows, int64_t m, int chunks, ChunkTop<C>* tops) {
  __shared__ C room[kThreads / kWarp];
  __shared__ int room_of_ids[kThreads / kWarp];
  constexpr C infinity = static_cast<C>(__builtin_inf());
  const int64_t row = blockIdx.x / chunks;
  const int64_t begin = static_cast<int64_t>(blockIdx.x % chunks) * kChunk;
  const int64_t end = begin + kChunk < rows.vocabulary ? begin + kChunk : rows.vocabulary;
  ChunkTop<C>& top = tops[blockIdx.x];
  C z[kPerThread];
  load(static_cast<const In*>(rows.logits) + row * rows.stride + begin, end - begin, z);

  Candidate<C> mine = best_after<In>(Candidate<C>{infinity, -1}, z, begin);
  Candidate<C> first{-infinity, kNone};
  int count = 0;
  for (; count < m; ++count) {
    const Candidate<C> best = best_of_block(mine, room, room_of_ids);
    if (best.id == kNone) break;
    if (count == 0) first = best;
    if (mine.id == best.id) {
      top.value[count] = best.value;
      top.id[count] = best.id;
      mine = best_after<In>(mine, z, begin);
    }
  }
  bool bad = false;
  C rest = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    bad |= !(z[i] < infinity);
    if (z[i] == -infinity || begin + Layout<In>::offset(i) == first.id) continue;
    rest += exp(z[i] - first.value);
  }
  rest = reduce_block(rest, room, Plus{});
  bad = __syncthreads_or(bad);
  if (threadIdx.x == 0) {
    top.count = count;
    top.rest = rest;
    top.bad = bad;
  }
}

template <class C>
__device__ Partial<C, double> merge_chunks(int chunks, const ChunkTop<C>* tops) {
  Partial<C, double> all;
  for (int i = threadIdx.x; i < chunks; i += kWarp) {
    Partial<C, double> one;
    one.bad = tops[i].bad;
    if (tops[i].count > 0) {
      one.best = tops[i].value[0];
      one.token = tops[i].id[0];
      one.rest = tops[i].rest;
    }
    all = merge(all, one);
  }
  return merge_warp(all);
}

template <class C>
__global__ void __launch_bounds__(kWarp)
    merge_tops(int chunks, const ChunkTop<C>* tops, const Top out) {
  constexpr C infinity = static_cast<C>(__builtin_inf());
  int* given = reinterpret_cast<int*>(dynamic_shared());  // of each chunk's list
  const int64_t row = blockIdx.x;
  tops += row * chunks;
  for (int i = threadIdx.x; i < chunks; i += kWarp) given[i] = 0;
  const Partial<C, double> all = merge_chunks(chunks, tops);
  const bool bad = all.bad || all.token < 0;
  const double normaliser = log1p(all.rest);
  for (int64_t k = 0; k < out.m; ++k) {
    Candidate<C> mine{-infinity, kNone};
    int from = -1;
    for (int i = threadIdx.x; i < chunks; i += kWarp) {  // a thread's ids rise with i
      if (given[i] < tops[i].count && tops[i].value[given[i]] > mine.value) {
        mine = {tops[i].value[given[i]], tops[i].id[given[i]]};
        from = i;
      }
    }
    const Candidate<C> best = best_of_warp(mine);
    if (best.id != kNone && best.id == mine.id) ++given[from];
    if (threadIdx.x == 0) {
      const bool found = !bad && best.id != kNone;
      const double below = static_cast<double>(best.value) - static_cast<double>(all.best);
      out.ids[row * out.m + k] = found ? best.id : bad ? kBad : kUnneeded;
      out.log_prob[row * out.m + k] = found ? static_cast<float>(below - normaliser) : -INFINITY;
    }
  }
}

template <class In, class C>
void run(const Rows& rows, const Top& out) {
  const Device device(rows.device);
  const int chunks = chunks_of(rows);
  const torch::stable::Tensor room =
      device.scratch(rows.count * chunks * static_cast<int64_t>(sizeof(ChunkTop<C>)));
  ChunkTop<C>* tops = static_cast<ChunkTop<C>*>(room.data_ptr());
  device.launch(top_of_chunk<In, C>, rows.count * chunks, kThreads, 0, rows, out.m, chunks, tops);
  device.launch(merge_tops<C>, rows.count, kWarp, chunks * sizeof(int), chunks, tops, out);
}

}  // namespace

void topm(const Rows& rows, const Top& out) {
  dispatch(rows, [&]<class In, class C>() { run<In, C>(rows, out); });
}

}  // namespace dlmdecode::cuda

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, DLM_DEVICE, m) {
  m.impl("topm", TORCH_BOX(&dlmdecode::topm<dlmdecode::cuda::topm>));
}
