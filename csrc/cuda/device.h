// Streams, scratch memory and reductions: what every kernel file needs.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

namespace dlmdecode::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAll = 0xFFFFFFFFu;

inline cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

// From torch's allocator: ordered on the stream, and part of a graph that is being captured.
inline torch::stable::Tensor scratch(int32_t device, int64_t bytes) {
  return torch::stable::empty({bytes}, torch::headeronly::ScalarType::Byte, std::nullopt,
                              torch::stable::Device(torch::headeronly::DeviceType::CUDA, device));
}

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

}  // namespace dlmdecode::cuda
