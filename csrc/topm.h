// `topm`: the op on tensors around a device's kernel.
#pragma once

#include <tuple>

#include "checks.h"

namespace dlmdecode {

constexpr int64_t kMostTop = 32;

// The m best tokens of each row, (count, m): id -1 where a row has fewer, -2 where it is bad.
struct Top {
  int64_t m;
  int64_t* ids;
  float* log_prob;
};

namespace {

template <void (*kernel)(const Rows&, const Top&)>
std::tuple<Tensor, Tensor> topm(const Tensor& logits, int64_t m) {
  STD_TORCH_CHECK(m >= 1 && m <= kMostTop, "m must be from 1 to 32");
  const Rows rows = rows_of(logits);
  Tensor ids = new_empty(logits, {rows.count, m}, ScalarType::Long);
  Tensor log_prob = new_empty(logits, {rows.count, m}, ScalarType::Float);
  const Top top{m, static_cast<int64_t*>(ids.data_ptr()), static_cast<float*>(log_prob.data_ptr())};
  if (rows.count > 0) kernel(rows, top);
  return {ids, log_prob};
}

}  // namespace
}  // namespace dlmdecode
