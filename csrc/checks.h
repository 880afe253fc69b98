// Tensors to pointers, with the checks that keep a kernel inside its memory.
// Messages for users come from dlmdecode/ops, which checks the same before any work.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "rows.h"

namespace dlmdecode {

namespace {  // libtorch's stable types are hidden, so is what holds them

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

[[maybe_unused]] bool same_device(const Tensor& a, const Tensor& b) {
  return a.device() == b.device();
}

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
const T* dense(const char* name, const OptionalTensor& tensor, ScalarType type, const Tensor& like,
               int64_t rows, int64_t columns = 0) {
  return tensor ? dense<T>(name, *tensor, type, like, rows, columns) : nullptr;
}

// A contiguous tensor of the shape of `like`.
template <class T>
const T* matrix(const char* name, const Tensor& tensor, ScalarType type, const Tensor& like) {
  STD_TORCH_CHECK(tensor.scalar_type() == type, name, " has the wrong dtype");
  STD_TORCH_CHECK(same_device(tensor, like), name, " is on another device");
  STD_TORCH_CHECK(tensor.is_contiguous() && tensor.dim() == 2 && tensor.size(0) == like.size(0) &&
                      tensor.size(1) == like.size(1),
                  name, " has the wrong shape");
  return static_cast<const T*>(tensor.data_ptr());
}

[[maybe_unused]] Kind kind_of(const Tensor& logits) {
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

// Rows of logits (rows, vocabulary), which may be apart in memory; the numbers of one row not.
[[maybe_unused]] Rows rows_of(const Tensor& logits) {
  STD_TORCH_CHECK(logits.dim() == 2, "logits must be (rows, vocabulary)");
  STD_TORCH_CHECK(logits.size(1) <= 1 || logits.stride(1) == 1, "logits must have dense rows");
  Rows rows{};
  rows.kind = kind_of(logits);
  rows.device = logits.get_device_index();
  rows.count = logits.size(0);
  rows.vocabulary = logits.size(1);
  rows.logits = logits.data_ptr();
  rows.stride = logits.stride(0);
  return rows;
}

[[maybe_unused]] std::vector<int64_t> vector_of(const char* name, const Tensor& tensor) {
  const int64_t n = tensor.dim() == 1 ? tensor.size(0) : 0;
  const int64_t* data = dense<int64_t>(name, tensor, ScalarType::Long, tensor, n);
  return std::vector<int64_t>(data, data + n);
}

[[maybe_unused]] bool contains(const std::vector<int64_t>& ids, int64_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

template <class T>
Tensor tensor_of(const std::vector<T>& values, ScalarType type, const Tensor& like) {
  Tensor tensor = new_empty(like, {static_cast<int64_t>(values.size())}, type);
  std::copy(values.begin(), values.end(), static_cast<T*>(tensor.data_ptr()));
  return tensor;
}

}  // namespace
}  // namespace dlmdecode
