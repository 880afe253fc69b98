// A row cut into chunks, each in the registers of a block's threads.
#pragma once

#include "../partial.h"
#include "reduce.h"

namespace dlmdecode::cuda {

constexpr int kThreads = 256;
constexpr int kPerThread = 32;  // logits of a chunk that a thread holds in registers
constexpr int kChunk = kThreads * kPerThread;

inline int chunks_of(const Rows& rows) {
  return static_cast<int>((rows.vocabulary + kChunk - 1) / kChunk);
}

template <class In>
struct Layout {
  static constexpr int width = 16 / sizeof(In);     // logits in one load
  static constexpr int loads = kPerThread / width;  // of one thread
  // Where the thread's number i stands in the chunk: whole loads side by side across threads.
  static __device__ int offset(int i) {
    return (i / width * kThreads + static_cast<int>(threadIdx.x)) * width + i % width;
  }
};

template <class In, class C>
__device__ void load(const In* from, int64_t left, C (&z)[kPerThread]) {
  using L = Layout<In>;
  const bool aligned = reinterpret_cast<uintptr_t>(from) % 16 == 0;
#pragma unroll
  for (int k = 0; k < L::loads; ++k) {
    const int start = L::offset(k * L::width);
    if (aligned && start + L::width <= left) {
      const uint4 raw = __ldg(reinterpret_cast<const uint4*>(from + start));
      In values[L::width];
      memcpy(values, &raw, sizeof raw);
#pragma unroll
      for (int e = 0; e < L::width; ++e) z[k * L::width + e] = widen<C>(values[e]);
    } else {
#pragma unroll
      for (int e = 0; e < L::width; ++e) {
        z[k * L::width + e] =
            start + e < left ? widen<C>(from[start + e]) : -static_cast<C>(__builtin_inf());
      }
    }
  }
}

template <class C>
__device__ Partial<C, double> shuffled(const Partial<C, double>& mine, int offset) {
  Partial<C, double> other;
  other.best = __shfl_xor_sync(kAll, mine.best, offset);
  other.second = __shfl_xor_sync(kAll, mine.second, offset);
  other.key = __shfl_xor_sync(kAll, mine.key, offset);
  other.token = __shfl_xor_sync(kAll, mine.token, offset);
  other.drawn = __shfl_xor_sync(kAll, mine.drawn, offset);
  other.rest = __shfl_xor_sync(kAll, mine.rest, offset);
  other.slope = __shfl_xor_sync(kAll, mine.slope, offset);
  other.bad = __shfl_xor_sync(kAll, mine.bad, offset);
  return other;
}

template <class C>
__device__ Partial<C, double> merge_warp(Partial<C, double> all) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) all = merge(all, shuffled(all, offset));
  return all;
}

}  // namespace dlmdecode::cuda
