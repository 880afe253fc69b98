// The CUDA kernels of the ops that csrc/ops.cpp declares.
#include "../bind.h"

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CUDA, m) {
  m.impl("propose", TORCH_BOX(&dlmdecode::propose<dlmdecode::cuda::propose>));
  m.impl("credit", TORCH_BOX(&dlmdecode::credit<dlmdecode::cuda::propose>));
  m.impl("commit", TORCH_BOX(&dlmdecode::commit<dlmdecode::cuda::commit>));
  m.impl("topm", TORCH_BOX(&dlmdecode::topm<dlmdecode::cuda::topm>));
}
