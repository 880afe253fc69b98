// In place of csrc/cuda/launch.h: kernels run on the CPU, each thread of a block as a coroutine,
// and blocks one after the other. Each warp runs as far ahead of the others as barriers let it, in
// odd blocks the last warp first, so that a missing barrier shows. Threads that wait for each other
// in vain end the process. One launch at a time.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#define DLM_DEVICE CPU  // what kernels register for
#define __global__
#define __device__
#define __shared__ static  // there is one block at a time
#define __launch_bounds__(threads)

struct uint4 {
  unsigned x, y, z, w;
};

struct Index {
  unsigned x;
};
inline Index threadIdx, blockIdx, blockDim;

namespace dlmdecode::cuda::emulated {

constexpr unsigned kLanes = 32;
constexpr size_t kStack = 1 << 17;

struct Coroutine {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool done;
};

struct Barrier {
  unsigned arrived = 0, generation = 0;
};

struct Block {
  ucontext_t scheduler;
  std::vector<Coroutine> threads;
  std::function<void()> body;
  Barrier all;
  std::vector<Barrier> warps;
  std::vector<uint64_t> exchanged;  // a word for each thread
  int votes = 0;
  bool progress;
};
inline Block block;

inline void wait(Barrier& barrier, unsigned members) {
  block.progress = true;
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == members) {
    barrier.arrived = 0;
    ++barrier.generation;
  }
  const unsigned self = threadIdx.x;
  while (barrier.generation == generation) {
    swapcontext(&block.threads[self].context, &block.scheduler);
  }
}

inline void wait_for_block() { wait(block.all, blockDim.x); }
inline void wait_for_warp() { wait(block.warps[threadIdx.x / kLanes], kLanes); }

inline void run_thread() {
  block.body();
  block.progress = block.threads[threadIdx.x].done = true;
}

// All threads of one block to their ends.
inline void run_block() {
  const unsigned count = blockDim.x;
  if (block.threads.size() < count) block.threads = std::vector<Coroutine>(count);
  block.all = {};
  block.warps.assign(count / kLanes, {});
  block.exchanged.resize(count);
  for (unsigned i = 0; i < count; ++i) {
    Coroutine& thread = block.threads[i];
    thread.done = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = &block.scheduler;
    makecontext(&thread.context, run_thread, 0);
  }
  for (unsigned left = count; left > 0;) {
    bool stuck = true;
    for (unsigned i = 0; i < count; i += kLanes) {
      const unsigned first = blockIdx.x % 2 ? count - kLanes - i : i;
      do {
        block.progress = false;
        for (threadIdx.x = first; threadIdx.x < first + kLanes; ++threadIdx.x) {
          Coroutine& thread = block.threads[threadIdx.x];
          if (thread.done) continue;
          swapcontext(&block.scheduler, &thread.context);
          left -= thread.done;
        }
        stuck &= !block.progress;
      } while (block.progress);
    }
    if (left > 0 && stuck) {
      std::fprintf(stderr, "block %u: threads wait at different barriers\n", blockIdx.x);
      std::abort();
    }
  }
}

inline std::vector<double> dynamic_memory;

}  // namespace dlmdecode::cuda::emulated

inline void __syncthreads() { dlmdecode::cuda::emulated::wait_for_block(); }
inline void __syncwarp() { dlmdecode::cuda::emulated::wait_for_warp(); }

inline int __syncthreads_or(int vote) {
  using namespace dlmdecode::cuda::emulated;
  block.votes += vote != 0;
  wait_for_block();
  const int any = block.votes != 0;
  wait_for_block();
  block.votes = 0;
  wait_for_block();
  return any;
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int offset) {
  using namespace dlmdecode::cuda::emulated;
  static_assert(sizeof(T) <= sizeof(uint64_t));
  std::memcpy(&block.exchanged[threadIdx.x], &value, sizeof(T));
  wait_for_warp();
  std::memcpy(&value, &block.exchanged[threadIdx.x ^ offset], sizeof(T));
  wait_for_warp();
  return value;
}

inline unsigned __ballot_sync(unsigned mask, bool vote) {
  unsigned votes = vote ? 1u << threadIdx.x % 32 : 0;
  for (int offset = 16; offset > 0; offset /= 2) votes |= __shfl_xor_sync(mask, votes, offset);
  return votes;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline void atomicAdd(int* number, int more) { *number += more; }

template <class T>
T __ldg(const T* from) {
  return *from;
}

namespace dlmdecode::cuda {

class Device {
 public:
  explicit Device(int32_t) {}

  torch::stable::Tensor scratch(int64_t bytes) const {
    auto room = torch::stable::empty({bytes}, torch::headeronly::ScalarType::Byte, std::nullopt,
                                     torch::stable::Device(torch::headeronly::DeviceType::CPU));
    std::memset(room.data_ptr(), 0xA5, bytes);
    return room;
  }

  template <class... Parameters, class... Arguments>
  void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared,
              Arguments... arguments) const {
    emulated::block.body = [=] { kernel(arguments...); };
    blockDim.x = threads;
    for (int64_t i = 0; i < blocks; ++i) {
      blockIdx.x = static_cast<unsigned>(i);
      emulated::dynamic_memory.assign(shared / sizeof(double) + 1, NAN);
      emulated::run_block();
    }
  }
};

inline double* dynamic_shared() { return emulated::dynamic_memory.data(); }

}  // namespace dlmdecode::cuda
