// Reductions over a warp and a block.
#pragma once

#include "launch.h"

namespace dlmdecode::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xFFFFFFFFu;

template <class T, class Pick>
__device__ T reduce_warp(T value, Pick pick) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = pick(value, __shfl_xor_sync(kAll, value, offset));
  }
  return value;
}

// The same result in every thread; `room` holds a number for each warp.
template <class T, class Pick>
__device__ T reduce_block(T value, T* room, Pick pick) {
  value = reduce_warp(value, pick);
  const int warps = (blockDim.x + kWarp - 1) / kWarp;
  __syncthreads();  // the room may still be read from the last time
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = value;
  __syncthreads();
  T all = room[0];
  for (int i = 1; i < warps; ++i) all = pick(all, room[i]);
  return all;
}

struct Larger {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

struct Smaller {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

struct Plus {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

constexpr int kNone = 0x7FFFFFFF;  // the id of no token

template <class C>
struct Candidate {
  C value;
  int id;
};

// The best candidate, the lowest id among equals.
template <class C>
__device__ Candidate<C> best_of_warp(Candidate<C> mine) {
  const C value = reduce_warp(mine.value, Larger{});
  return {value, reduce_warp(mine.value == value ? mine.id : kNone, Smaller{})};
}

template <class C>
__device__ Candidate<C> best_of_block(Candidate<C> mine, C* room, int* room_of_ids) {
  const C value = reduce_block(mine.value, room, Larger{});
  return {value, reduce_block(mine.value == value ? mine.id : kNone, room_of_ids, Smaller{})};
}

}  // namespace dlmdecode::cuda
