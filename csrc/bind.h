// Ops on tensors around kernels on pointers; the kernel of the device is the template argument.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "checks.h"
#include "ops.h"

namespace dlmdecode {

using OptionalTensor = std::optional<Tensor>;
using Proposed = std::tuple<Tensor, Tensor, Tensor, Tensor>;

struct ProposeInputs {
  OptionalTensor need;
  int64_t exclude;
  double temperature;
  int64_t seed;
  OptionalTensor stream, position, uncond;
  double cfg_scale;
  OptionalTensor edit_ids, edit_values;
  bool float64;
};

inline Rows rows_of(const Tensor& logits, const ProposeInputs& in) {
  check_rows("logits", logits);
  Rows rows{};
  rows.kind = kind_of(logits);
  rows.wide_output = in.float64;
  rows.count = logits.size(0);
  rows.vocabulary = logits.size(1);
  rows.logits = logits.data_ptr();
  rows.stride = logits.stride(0);
  rows.need = dense<bool>("need", in.need, ScalarType::Bool, logits, rows.count);
  rows.exclude = in.exclude;
  STD_TORCH_CHECK(in.exclude < rows.vocabulary, "exclude is beyond the vocabulary");
  rows.temperature = in.temperature;
  rows.seed = static_cast<uint64_t>(in.seed);
  rows.stream = dense<int64_t>("stream", in.stream, ScalarType::Long, logits, rows.count);
  rows.position = dense<int64_t>("position", in.position, ScalarType::Long, logits, rows.count);
  if (in.uncond) {
    check_rows("uncond", *in.uncond);
    STD_TORCH_CHECK(kind_of(*in.uncond) == rows.kind && same_device(*in.uncond, logits) &&
                        in.uncond->size(0) == rows.count && in.uncond->size(1) == rows.vocabulary,
                    "uncond must be like logits");
    rows.uncond = in.uncond->data_ptr();
    rows.uncond_stride = in.uncond->stride(0);
    rows.guidance = 1 + in.cfg_scale;
  }
  STD_TORCH_CHECK(in.edit_ids.has_value() == in.edit_values.has_value(), "edits come in pairs");
  if (in.edit_ids) {
    rows.edits = in.edit_ids->dim() == 2 ? in.edit_ids->size(1) : 0;
    rows.edit_ids = dense<int64_t>("edit ids", *in.edit_ids, ScalarType::Long, logits, rows.count,
                                   rows.edits);
    rows.edit_values = dense<float>("edit values", *in.edit_values, ScalarType::Float, logits,
                                    rows.count, rows.edits);
  }
  return rows;
}

inline Proposed new_proposed(const Tensor& logits, Rows& rows) {
  const ScalarType type = rows.wide_output ? ScalarType::Double : ScalarType::Float;
  const auto make = [&](ScalarType t) { return new_empty(logits, {rows.count}, t); };
  Proposed out{make(ScalarType::Long), make(type), make(type), make(type)};
  rows.token = static_cast<int64_t*>(std::get<0>(out).data_ptr());
  rows.log_prob = std::get<1>(out).data_ptr();
  rows.margin = std::get<2>(out).data_ptr();
  rows.entropy = std::get<3>(out).data_ptr();
  return out;
}

template <void (*kernel)(const Rows&)>
Proposed propose(const Tensor& logits, OptionalTensor need, int64_t exclude, double temperature,
                 int64_t seed, OptionalTensor stream, OptionalTensor position,
                 OptionalTensor uncond, double cfg_scale, OptionalTensor edit_ids,
                 OptionalTensor edit_values, bool float64) {
  Rows rows = rows_of(logits, {need, exclude, temperature, seed, stream, position, uncond,
                               cfg_scale, edit_ids, edit_values, float64});
  Proposed out = new_proposed(logits, rows);
  if (rows.count > 0) kernel(rows);
  return out;
}

template <void (*kernel)(const Rows&)>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> credit(
    const Tensor& logits, const Tensor& ids, const Tensor& credits, double alpha, double beta,
    double gamma, OptionalTensor need, int64_t exclude, double temperature, int64_t seed,
    OptionalTensor stream, OptionalTensor position, OptionalTensor uncond, double cfg_scale,
    OptionalTensor edit_ids, OptionalTensor edit_values, bool float64) {
  Rows rows = rows_of(logits, {need, exclude, temperature, seed, stream, position, uncond,
                               cfg_scale, edit_ids, edit_values, float64});
  STD_TORCH_CHECK(ids.dim() == 2 && ids.size(1) > 0, "ids must be (rows, slots), one slot or more");
  rows.slots = ids.size(1);
  rows.ids = dense<int64_t>("ids", ids, ScalarType::Long, logits, rows.count, rows.slots);
  rows.credits = dense<float>("credits", credits, ScalarType::Float, logits, rows.count, rows.slots);
  rows.alpha = alpha;
  rows.beta = beta;
  rows.gamma = gamma;
  Tensor new_ids = empty_like(ids), new_credits = empty_like(credits);
  rows.new_ids = static_cast<int64_t*>(new_ids.data_ptr());
  rows.new_credits = static_cast<float*>(new_credits.data_ptr());
  auto [token, log_prob, margin, entropy] = new_proposed(logits, rows);
  if (rows.count > 0) kernel(rows);
  return {token, log_prob, margin, entropy, new_ids, new_credits};
}

}  // namespace dlmdecode
