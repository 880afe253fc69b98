// Tensors to pointers, with the checks that keep a kernel inside its memory.
// Messages for users come from dlmdecode/ops.py, which checks the same before any work.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "rows.h"

namespace dlmdecode {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool same_device(const Tensor& a, const Tensor& b) { return a.device() == b.device(); }

// A contiguous (rows, columns) tensor, or (rows,) with columns = 0.
template <class T>
const T* dense(const char* name, const Tensor& tensor, ScalarType type, const Tensor& like,
               int64_t rows, int64_t columns = 0) {
  STD_TORCH_CHECK(tensor.scalar_type() == type, name, " has the wrong dtype");
  STD_TORCH_CHECK(same_device(tensor, like), name, " is on another device");
  STD_TORCH_CHECK(tensor.is_contiguous(), name, " must be contiguous");
  STD_TORCH_CHECK(tensor.dim() == (columns ? 2 : 1) && tensor.size(0) == rows, name,
                  " has the wrong shape");
  STD_TORCH_CHECK(!columns || tensor.size(1) == columns, name, " has the wrong shape");
  return static_cast<const T*>(tensor.data_ptr());
}

template <class T>
const T* dense(const char* name, const std::optional<Tensor>& tensor, ScalarType type,
               const Tensor& like, int64_t rows, int64_t columns = 0) {
  return tensor ? dense<T>(name, *tensor, type, like, rows, columns) : nullptr;
}

inline Kind kind_of(const Tensor& logits) {
  switch (logits.scalar_type()) {
    case ScalarType::Float:
      return Kind::Float;
    case ScalarType::BFloat16:
      return Kind::BFloat16;
    case ScalarType::Half:
      return Kind::Half;
    default:
      STD_TORCH_CHECK(logits.scalar_type() == ScalarType::Double,
                      "logits must be float32, bfloat16, float16 or float64");
      return Kind::Double;
  }
}

// Rows may be apart in memory, the numbers of one row not.
inline void check_rows(const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() == 2, name, " must be (rows, vocabulary)");
  STD_TORCH_CHECK(tensor.size(1) <= 1 || tensor.stride(1) == 1, name, " must have dense rows");
}

}  // namespace dlmdecode
