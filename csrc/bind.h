// Ops on tensors around kernels on pointers; the kernel of the device is the template argument.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "checks.h"
#include "ops.h"
#include "path_search.h"

namespace dlmdecode {
namespace {  // libtorch's stable types are hidden, so is what holds them

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

Rows rows_of(const Tensor& logits, const ProposeInputs& in) {
  check_rows("logits", logits);
  Rows rows{};
  rows.kind = kind_of(logits);
  rows.wide_output = in.float64;
  rows.device = logits.get_device_index();
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
    rows.edit_ids =
        dense<int64_t>("edit ids", *in.edit_ids, ScalarType::Long, logits, rows.count, rows.edits);
    rows.edit_values = dense<float>("edit values", *in.edit_values, ScalarType::Float, logits,
                                    rows.count, rows.edits);
  }
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

template <void (*kernel)(const Commit&)>
Tensor commit(const Tensor& tokens, const Tensor& proposed, const Tensor& confidence,
              const Tensor& lo, const Tensor& hi, int64_t mask_id, int64_t rule, double level,
              double relaxed, int64_t radius, OptionalTensor quota, OptionalTensor entropy,
              int64_t minimum) {
  STD_TORCH_CHECK(tokens.dim() == 2 && tokens.scalar_type() == ScalarType::Long &&
                      (tokens.size(1) <= 1 || tokens.stride(1) == 1),
                  "tokens must be int64 (rows, length) with dense rows");
  STD_TORCH_CHECK(rule >= 0 && rule < static_cast<int64_t>(Rule::Count), "no such rule");
  Commit c{};
  c.device = tokens.get_device_index();
  c.rows = tokens.size(0);
  c.length = tokens.size(1);
  c.stride = tokens.stride(0);
  c.tokens = static_cast<int64_t*>(tokens.data_ptr());
  const auto matrix = [&](const char* name, const Tensor& t, ScalarType type) {
    STD_TORCH_CHECK(t.dim() == 2 && t.size(0) == c.rows && t.size(1) == c.length &&
                        t.is_contiguous() && t.scalar_type() == type && same_device(t, tokens),
                    name, " does not fit tokens");
    return t.data_ptr();
  };
  c.wide = confidence.scalar_type() == ScalarType::Double;
  c.proposed = static_cast<const int64_t*>(matrix("proposed", proposed, ScalarType::Long));
  c.confidence = matrix("confidence", confidence, c.wide ? ScalarType::Double : ScalarType::Float);
  c.lo = dense<int64_t>("lo", lo, ScalarType::Long, tokens, c.rows);
  c.hi = dense<int64_t>("hi", hi, ScalarType::Long, tokens, c.rows);
  c.mask_id = mask_id;
  c.rule = static_cast<Rule>(rule);
  c.level = level;
  c.relaxed = relaxed;
  c.radius = radius;
  c.quota = dense<int64_t>("quota", quota, ScalarType::Long, tokens, c.rows);
  if (entropy)
    c.entropy = static_cast<const float*>(matrix("entropy", *entropy, ScalarType::Float));
  STD_TORCH_CHECK((c.rule != Rule::TopK || c.quota) && (c.rule != Rule::EntropyBound || c.entropy),
                  "the rule lacks its quota or entropy");
  c.minimum = minimum;
  Tensor count = new_empty(tokens, {c.rows});
  c.count = static_cast<int64_t*>(count.data_ptr());
  if (c.rows > 0) kernel(c);
  return count;
}

template <void (*kernel)(const Rows&, const Top&)>
std::tuple<Tensor, Tensor> topm(const Tensor& logits, int64_t m) {
  STD_TORCH_CHECK(m >= 1 && m <= kMostTop, "m must be from 1 to 32");
  const Rows rows = rows_of(logits, {{}, -1, 0, 0, {}, {}, {}, 0, {}, {}, false});
  Tensor ids = new_empty(logits, {rows.count, m}, ScalarType::Long);
  Tensor log_prob = new_empty(logits, {rows.count, m}, ScalarType::Float);
  const Top top{m, static_cast<int64_t*>(ids.data_ptr()), static_cast<float*>(log_prob.data_ptr())};
  if (rows.count > 0) kernel(rows, top);
  return {ids, log_prob};
}

std::vector<Table> tables(const std::vector<Tensor>& keys, const std::vector<Tensor>& values,
                          const Tensor& like) {
  STD_TORCH_CHECK(!keys.empty() && keys.size() == values.size(), "one array for each order");
  std::vector<Table> out;
  for (size_t i = 0; i < keys.size(); ++i) {
    const int64_t n = keys[i].dim() == 1 ? keys[i].size(0) : 0;
    out.push_back({dense<int64_t>("keys", keys[i], ScalarType::Long, like, n),
                   dense<float>("values", values[i], ScalarType::Float, like, n), n});
  }
  return out;
}

std::vector<int64_t> vector_of(const char* name, const Tensor& tensor) {
  const int64_t n = tensor.dim() == 1 ? tensor.size(0) : 0;
  const int64_t* data = dense<int64_t>(name, tensor, ScalarType::Long, tensor, n);
  return std::vector<int64_t>(data, data + n);
}

std::tuple<Tensor, Tensor, Tensor> candidates(const Tensor& ids, const Tensor& log_prob,
                                              double mass, const Tensor& eos_ids) {
  STD_TORCH_CHECK(ids.dim() == 2, "ids must be (K, M)");
  const int64_t positions = ids.size(0), width = ids.size(1);
  const auto* from = dense<int64_t>("ids", ids, ScalarType::Long, ids, positions, width);
  const auto* own = dense<float>("log_prob", log_prob, ScalarType::Float, ids, positions, width);
  Tensor kept = new_empty(ids, {positions, width});
  Tensor kept_log_prob = new_empty(ids, {positions, width}, ScalarType::Float);
  Tensor count = new_empty(ids, {positions});
  auto* to = static_cast<int64_t*>(kept.data_ptr());
  auto* to_log_prob = static_cast<float*>(kept_log_prob.data_ptr());
  std::copy_n(from, positions * width, to);
  std::copy_n(own, positions * width, to_log_prob);
  cpu::candidates(positions, width, to, to_log_prob, static_cast<int64_t*>(count.data_ptr()), mass,
                  vector_of("eos_ids", eos_ids));
  return {kept, kept_log_prob, count};
}

std::tuple<Tensor, Tensor> path_search(const Tensor& ids, const Tensor& log_prob,
                                       const Tensor& count, std::vector<Tensor> keys,
                                       std::vector<Tensor> log_probs, std::vector<Tensor> contexts,
                                       std::vector<Tensor> weights, double floor,
                                       const Tensor& prefix, int64_t beam, double lam,
                                       const Tensor& eos_ids) {
  STD_TORCH_CHECK(ids.dim() == 2 && ids.size(1) > 0 && beam >= 1, "ids must be (K, M), beam >= 1");
  const int64_t positions = ids.size(0), width = ids.size(1);
  const Lattice lattice{
      positions, width, dense<int64_t>("ids", ids, ScalarType::Long, ids, positions, width),
      dense<float>("log_prob", log_prob, ScalarType::Float, ids, positions, width),
      dense<int64_t>("count", count, ScalarType::Long, ids, positions)};
  for (int64_t k = 0; k < positions; ++k) {
    STD_TORCH_CHECK(lattice.count[k] >= 1 && lattice.count[k] <= width, "count is out of range");
  }
  const NGram model{tables(keys, log_probs, ids), tables(contexts, weights, ids), floor};
  const std::vector<int64_t> last = vector_of("prefix", prefix);
  STD_TORCH_CHECK(
      model.contexts.size() == model.grams.size() && last.size() + 1 >= model.grams.size(),
      "prefix or contexts are too short for the model");
  const ScoredPath best =
      cpu::path_search(lattice, model, last, beam, lam, vector_of("eos_ids", eos_ids));
  Tensor path = new_empty(ids, {static_cast<int64_t>(best.ids.size())});
  std::memcpy(path.data_ptr(), best.ids.data(), best.ids.size() * sizeof(int64_t));
  Tensor score = new_empty(ids, {}, ScalarType::Double);
  *static_cast<double*>(score.data_ptr()) = best.score;
  return {path, score};
}

template <class T>
Tensor tensor_of(const std::vector<T>& values, ScalarType type, const Tensor& like) {
  Tensor tensor = new_empty(like, {static_cast<int64_t>(values.size())}, type);
  std::copy(values.begin(), values.end(), static_cast<T*>(tensor.data_ptr()));
  return tensor;
}

std::tuple<Tensor, Tensor, Tensor> count_ngrams(const Tensor& ids, int64_t order) {
  STD_TORCH_CHECK(order >= 1, "order must be at least 1");
  const std::vector<int64_t> text = vector_of("ids", ids);
  const Counts counts = cpu::count_ngrams(text.data(), static_cast<int64_t>(text.size()), order);
  return {tensor_of(counts.keys, ScalarType::Long, ids),
          tensor_of(counts.log_prob, ScalarType::Float, ids),
          tensor_of(counts.contexts, ScalarType::Long, ids)};
}

}  // namespace
}  // namespace dlmdecode
