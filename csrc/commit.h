// `commit`: its rules, shared by both devices, and the op on tensors around a device's kernel.
#pragma once

#include "checks.h"

namespace dlmdecode {

// In the order of RULES in dlmdecode/ops/commit.py.
enum class Rule : int64_t { TopK, Threshold, Factor, Frechet, EntropyBound, Relaxed, Count };

struct Commit {
  int32_t device;
  int64_t rows, length, stride;  // of tokens; everything else is dense
  int64_t* tokens;
  const int64_t* proposed;
  const void* confidence;
  bool wide;  // confidence is float64, else float32
  const int64_t* lo;
  const int64_t* hi;
  int64_t mask_id;
  Rule rule;
  double level;    // threshold, factor, delta or gamma
  double relaxed;  // threshold near an anchor
  int64_t radius;
  const int64_t* quota;
  const float* entropy;
  int64_t minimum;
  int64_t* count;
};

DLM_SHARED double confidence_at(const Commit& c, int64_t row, int64_t i) {
  const int64_t at = row * c.length + i;
  const double value = c.wide ? static_cast<const double*>(c.confidence)[at]
                              : static_cast<double>(static_cast<const float*>(c.confidence)[at]);
  return value == value ? value : -__builtin_inf();
}

// Thresholds are compared in the precision of the confidence.
DLM_SHARED double level_of(const Commit& c, double level) {
  return c.wide ? level : static_cast<double>(static_cast<float>(level));
}

DLM_SHARED bool eligible(const Commit& c, int64_t row, int64_t i) {
  return c.tokens[row * c.stride + i] == c.mask_id && c.proposed[row * c.length + i] >= 0;
}

DLM_SHARED int64_t first_position(const Commit& c, int64_t row) {
  return c.lo[row] > 0 ? c.lo[row] : 0;
}

DLM_SHARED int64_t last_position(const Commit& c, int64_t row) {
  return c.hi[row] < c.length ? c.hi[row] : c.length;
}

// How many of the n eligible positions a rule takes; position(k) is the k-th most confident.
template <class Position>
DLM_SHARED int64_t prefix_length(const Commit& c, int64_t row, int64_t n, Position position) {
  int64_t taken = 0;
  double total = 0, largest = 0;
  if (c.rule == Rule::TopK) {
    taken = c.quota[row] < 0 ? 0 : c.quota[row];
  }
  for (; c.rule != Rule::TopK && taken < n; ++taken) {
    const double p = confidence_at(c, row, position(taken));
    bool passes = false;
    if (c.rule == Rule::Threshold) {
      passes = p >= level_of(c, c.level);
    } else if (c.rule == Rule::Factor) {
      passes = (taken + 2) * (1 - p) < c.level;
    } else if (c.rule == Rule::Frechet) {
      total += p;
      passes = (total - taken > 0 ? total - taken : 0) - (1 - p) > c.level;
    } else if (c.rule == Rule::EntropyBound) {
      const double entropy = c.entropy[row * c.length + position(taken)];
      total += entropy;
      largest = entropy > largest ? entropy : largest;
      passes = total - largest <= c.level;
    }
    if (!passes) break;
  }
  if (taken < c.minimum) taken = c.minimum;
  return taken < n ? taken : n;
}

// LocalLeap: whether a position is sure enough, or near an anchor and sure enough for that.
DLM_SHARED bool leaps(const Commit& c, int64_t row, int64_t i) {
  const double p = confidence_at(c, row, i), level = level_of(c, c.level);
  if (p >= level) return true;
  if (!(p >= level_of(c, c.relaxed))) return false;
  const int64_t first = first_position(c, row), last = last_position(c, row);
  const int64_t from = i - c.radius > first ? i - c.radius : first;
  const int64_t to = i + c.radius + 1 < last ? i + c.radius + 1 : last;
  for (int64_t j = from; j < to; ++j) {
    if (eligible(c, row, j) && confidence_at(c, row, j) >= level) return true;
  }
  return false;
}

namespace {

[[maybe_unused]] const void* same_shape(const char* name, const Tensor& tensor, ScalarType type,
                                        const Tensor& tokens) {
  STD_TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) == tokens.size(0) &&
                      tensor.size(1) == tokens.size(1) && tensor.is_contiguous() &&
                      tensor.scalar_type() == type && same_device(tensor, tokens),
                  name, " does not fit tokens");
  return tensor.data_ptr();
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
  c.wide = confidence.scalar_type() == ScalarType::Double;
  c.proposed =
      static_cast<const int64_t*>(same_shape("proposed", proposed, ScalarType::Long, tokens));
  c.confidence =
      same_shape("confidence", confidence, c.wide ? ScalarType::Double : ScalarType::Float, tokens);
  c.lo = dense<int64_t>("lo", lo, ScalarType::Long, tokens, c.rows);
  c.hi = dense<int64_t>("hi", hi, ScalarType::Long, tokens, c.rows);
  c.mask_id = mask_id;
  c.rule = static_cast<Rule>(rule);
  c.level = level;
  c.relaxed = relaxed;
  c.radius = radius;
  c.quota = dense<int64_t>("quota", quota, ScalarType::Long, tokens, c.rows);
  if (entropy)
    c.entropy =
        static_cast<const float*>(same_shape("entropy", *entropy, ScalarType::Float, tokens));
  STD_TORCH_CHECK((c.rule != Rule::TopK || c.quota) && (c.rule != Rule::EntropyBound || c.entropy),
                  "the rule lacks its quota or entropy");
  c.minimum = minimum;
  Tensor count = new_empty(tokens, {c.rows});
  c.count = static_cast<int64_t*>(count.data_ptr());
  if (c.rows > 0) kernel(c);
  return count;
}

}  // namespace
}  // namespace dlmdecode
