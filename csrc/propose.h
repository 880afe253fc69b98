// `propose` and `credit`: how a row is finished, on both devices, and the ops on tensors around a
// device's kernel.
#pragma once

#include <tuple>

#include "checks.h"
#include "credits.h"

namespace dlmdecode {

DLM_SHARED void skip_row(const Rows& rows, int64_t row) {
  write<double>(rows, row, kUnneeded, -__builtin_inf(), 0, 0);
  keep_credits(rows, row);
}

// Writes the proposal of a row whose scan gave `others`. excluded: its logit, -inf without one.
template <class In, class C>
DLM_SHARED void finish(const Rows& rows, int64_t row, const Partial<C, double>& others,
                       const C* values, C excluded) {
  Partial<C, double> all = others;
  for (int64_t i = 0; i < rows.slots; ++i) {
    const int64_t id = rows.ids[row * rows.slots + i];
    if (id >= 0) all = merge(all, point(rows, row, id, values[i]));
  }
  if (all.bad || !(excluded < static_cast<C>(__builtin_inf())) || all.token < 0) {
    write<double>(rows, row, kBad, -__builtin_inf(), 0, 0);
    return keep_credits(rows, row);
  }
  if (rows.slots > 0) {
    const double log_prob = summary(all, excluded).log_prob;
    update_credits(rows, row, all.token, expf(static_cast<float>(log_prob)));
    all = fused(rows, row, others, values, all);
  }
  const Summary whole = summary(all, excluded);
  const int64_t token = rows.temperature > 0 ? all.drawn : all.token;
  double log_prob = whole.log_prob;
  if (token != all.token) {
    C value = logit_at<In, C>(rows, row, token);
    for (int64_t i = row * rows.slots; i < (row + 1) * rows.slots; ++i) {
      if (rows.new_ids[i] == token) value = boosted(rows, value, rows.new_credits[i]);
    }
    log_prob += static_cast<double>(value) - static_cast<double>(all.best);
  }
  write<C>(rows, row, token, log_prob, all.best - all.second, whole.entropy);
}

namespace {

using Proposed = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Rows rows_of(const Tensor& logits, const OptionalTensor& need, int64_t exclude, double temperature,
             int64_t seed, const OptionalTensor& stream, const OptionalTensor& position,
             bool float64) {
  Rows rows = rows_of(logits);
  STD_TORCH_CHECK(exclude < rows.vocabulary, "exclude is beyond the vocabulary");
  rows.wide_output = float64;
  rows.need = dense<bool>("need", need, ScalarType::Bool, logits, rows.count);
  rows.exclude = exclude;
  rows.temperature = temperature;
  rows.seed = static_cast<uint64_t>(seed);
  rows.stream = dense<int64_t>("stream", stream, ScalarType::Long, logits, rows.count);
  rows.position = dense<int64_t>("position", position, ScalarType::Long, logits, rows.count);
  return rows;
}

Proposed new_proposed(const Tensor& logits, Rows& rows) {
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
                 int64_t seed, OptionalTensor stream, OptionalTensor position, bool float64) {
  Rows rows = rows_of(logits, need, exclude, temperature, seed, stream, position, float64);
  Proposed out = new_proposed(logits, rows);
  if (rows.count > 0) kernel(rows);
  return out;
}

template <void (*kernel)(const Rows&)>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> credit(
    const Tensor& logits, const Tensor& ids, const Tensor& credits, double alpha, double beta,
    double gamma, OptionalTensor need, int64_t exclude, double temperature, int64_t seed,
    OptionalTensor stream, OptionalTensor position, bool float64) {
  Rows rows = rows_of(logits, need, exclude, temperature, seed, stream, position, float64);
  STD_TORCH_CHECK(ids.dim() == 2 && ids.size(1) > 0, "ids must be (rows, slots), one slot or more");
  rows.slots = ids.size(1);
  rows.ids = dense<int64_t>("ids", ids, ScalarType::Long, logits, rows.count, rows.slots);
  rows.credits =
      dense<float>("credits", credits, ScalarType::Float, logits, rows.count, rows.slots);
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

}  // namespace
}  // namespace dlmdecode
