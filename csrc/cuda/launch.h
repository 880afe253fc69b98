// Where kernels run: all that knows of CUDA's runtime. tests/cuda_on_cpu/ has another one.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/shim_utils.h>

#define DLM_DEVICE CUDA  // what kernels register for

namespace dlmdecode::cuda {

// A device and the current stream of it.
class Device {
 public:
  explicit Device(int32_t index) : index_(index), guard_(index) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  // From torch's allocator: ordered on the stream, and part of a graph that is being captured.
  torch::stable::Tensor scratch(int64_t bytes) const {
    return torch::stable::empty({bytes}, torch::headeronly::ScalarType::Byte, std::nullopt,
                                torch::stable::Device(torch::headeronly::DeviceType::CUDA, index_));
  }

  // shared: bytes of dynamic_shared() for each block.
  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared,
              Arguments... arguments) const {
    kernel<<<static_cast<unsigned>(blocks), threads, shared, stream_>>>(arguments...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

__device__ inline double* dynamic_shared() {
  extern __shared__ double memory[];
  return memory;
}

}  // namespace dlmdecode::cuda
