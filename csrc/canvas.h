// What a step does to a canvas around the model (`survey`, `put`, `choose`): the ops on tensors
// around a device's kernels.
#pragma once

#include <tuple>
#include <vector>

#include "checks.h"

namespace dlmdecode {

constexpr int kNumbers = 6;   // row, branch, start, stop, lo, hi: of each row
constexpr int kColumns = 12;  // they, masks, open, mask_at, eos_at, bad, held: `Row` in ops/survey.py

struct Survey {
  int32_t device;
  int64_t rows, length;
  const int64_t* tokens;
  const int64_t* proposed;
  const bool* held;
  const int64_t* numbers[kNumbers];
  const int64_t* eos;
  int64_t num_eos, mask_id;
  bool* masked;
  bool* open;
  int64_t* table;
};

// What one position adds to its row's counts.
struct Place {
  bool masked, open, end, bad;
};

DLM_SHARED Place place_at(const Survey& s, int64_t row, int64_t i) {
  const int64_t at = row * s.length + i, token = s.tokens[at];
  const bool text = i >= s.numbers[2][row] && i < s.numbers[3][row];
  const bool block = i >= s.numbers[4][row] && i < s.numbers[5][row];
  bool end = false;
  for (int64_t k = 0; k < s.num_eos; ++k) end |= token == s.eos[k];
  const bool masked = text && token == s.mask_id;
  return {masked, masked && block, text && end, s.proposed[at] == kBad};
}

struct Counts {
  int64_t masks, open, mask_at, eos_at, bad;
};

DLM_SHARED void write_row(const Survey& s, int64_t row, const Counts& counts) {
  int64_t* out = s.table + row * kColumns;
  for (int k = 0; k < kNumbers; ++k) out[k] = s.numbers[k][row];
  out[kNumbers] = counts.masks;
  out[kNumbers + 1] = counts.open;
  out[kNumbers + 2] = counts.mask_at;
  out[kNumbers + 3] = counts.eos_at;
  out[kNumbers + 4] = counts.bad;
  out[kNumbers + 5] = s.held[row];
}

struct Proposals {
  const int64_t* token;
  const double* prob;
  const float* margin;
  const float* entropy;
};

struct Put {
  int32_t device;
  int64_t rows, length, width;
  Proposals kept, fresh;  // (rows, length), and (rows * width,)
  const int64_t* at;
  const bool* where;
  int64_t* token;
  double* prob;
  float* margin;
  float* entropy;
};

DLM_SHARED void put_one(const Put& p, int64_t to, const Proposals& source, int64_t from) {
  p.token[to] = source.token[from];
  p.prob[to] = source.prob[from];
  p.margin[to] = source.margin[from];
  p.entropy[to] = source.entropy[from];
}

// Column k of a row's new proposals, where it is one.
DLM_SHARED void put_new(const Put& p, int64_t row, int64_t k) {
  const int64_t from = row * p.width + k, at = p.at[from];
  if (p.where[from] && at >= 0 && at < p.length) put_one(p, row * p.length + at, p.fresh, from);
}

struct Choose {
  int32_t device;
  int64_t rows, length;
  const bool* where;
  const bool* open;
  const double* confidence;
  bool* chosen;
};

// Whether a confidence comes before another one at a lower position; NaN comes first.
DLM_SHARED bool surer(double p, double q) { return p > q || (p != p && q == q); }

namespace {

template <void (*kernel)(const Survey&)>
std::tuple<Tensor, Tensor, Tensor> survey(const Tensor& tokens, const Tensor& proposed,
                                          const Tensor& held, std::vector<Tensor> numbers,
                                          const Tensor& eos, int64_t mask_id) {
  STD_TORCH_CHECK(tokens.dim() == 2, "tokens must be (rows, length)");
  STD_TORCH_CHECK(numbers.size() == kNumbers, "numbers must be six");
  Survey s{};
  s.device = tokens.get_device_index();
  s.rows = tokens.size(0);
  s.length = tokens.size(1);
  s.tokens = matrix<int64_t>("tokens", tokens, ScalarType::Long, tokens);
  s.proposed = matrix<int64_t>("proposed", proposed, ScalarType::Long, tokens);
  s.held = dense<bool>("held", held, ScalarType::Bool, tokens, s.rows);
  for (int k = 0; k < kNumbers; ++k) {
    s.numbers[k] = dense<int64_t>("numbers", numbers[k], ScalarType::Long, tokens, s.rows);
  }
  s.num_eos = eos.dim() == 1 ? eos.size(0) : -1;
  s.eos = dense<int64_t>("eos", eos, ScalarType::Long, tokens, s.num_eos);
  s.mask_id = mask_id;
  Tensor masked = new_empty(tokens, {s.rows, s.length}, ScalarType::Bool);
  Tensor open = new_empty(tokens, {s.rows, s.length}, ScalarType::Bool);
  Tensor table = new_empty(tokens, {s.rows, int64_t{kColumns}});
  s.masked = static_cast<bool*>(masked.data_ptr());
  s.open = static_cast<bool*>(open.data_ptr());
  s.table = static_cast<int64_t*>(table.data_ptr());
  if (s.rows > 0) kernel(s);
  return {masked, open, table};
}

// `columns` as in `dense`.
[[maybe_unused]] Proposals proposals(const Tensor& token, const Tensor& prob, const Tensor& margin,
                                     const Tensor& entropy, int64_t rows, int64_t columns) {
  return {dense<int64_t>("token", token, ScalarType::Long, token, rows, columns),
          dense<double>("prob", prob, ScalarType::Double, token, rows, columns),
          dense<float>("margin", margin, ScalarType::Float, token, rows, columns),
          dense<float>("entropy", entropy, ScalarType::Float, token, rows, columns)};
}

template <void (*kernel)(const Put&)>
std::tuple<Tensor, Tensor, Tensor, Tensor> put(
    const Tensor& token, const Tensor& prob, const Tensor& margin, const Tensor& entropy,
    const Tensor& at, const Tensor& where, const Tensor& new_token, const Tensor& new_prob,
    const Tensor& new_margin, const Tensor& new_entropy) {
  STD_TORCH_CHECK(token.dim() == 2 && at.dim() == 2 && at.size(0) == token.size(0),
                  "at does not fit token");
  Put p{};
  p.device = token.get_device_index();
  p.rows = token.size(0);
  p.length = token.size(1);
  p.width = at.size(1);
  p.kept = proposals(token, prob, margin, entropy, p.rows, p.length);
  p.fresh = proposals(new_token, new_prob, new_margin, new_entropy, p.rows * p.width, 0);
  p.at = matrix<int64_t>("at", at, ScalarType::Long, at);
  p.where = matrix<bool>("where", where, ScalarType::Bool, at);
  STD_TORCH_CHECK(same_device(at, token) && same_device(new_token, token),
                  "at or new_token is on another device");
  const auto make = [&](ScalarType type) { return new_empty(token, {p.rows, p.length}, type); };
  Tensor all_token = make(ScalarType::Long), all_prob = make(ScalarType::Double);
  Tensor all_margin = make(ScalarType::Float), all_entropy = make(ScalarType::Float);
  p.token = static_cast<int64_t*>(all_token.data_ptr());
  p.prob = static_cast<double*>(all_prob.data_ptr());
  p.margin = static_cast<float*>(all_margin.data_ptr());
  p.entropy = static_cast<float*>(all_entropy.data_ptr());
  if (p.rows > 0) kernel(p);
  return {all_token, all_prob, all_margin, all_entropy};
}

template <void (*kernel)(const Choose&)>
Tensor choose(const Tensor& where, const Tensor& open, const Tensor& confidence) {
  STD_TORCH_CHECK(where.dim() == 2, "where must be (rows, length)");
  Choose c{};
  c.device = where.get_device_index();
  c.rows = where.size(0);
  c.length = where.size(1);
  c.where = matrix<bool>("where", where, ScalarType::Bool, where);
  c.open = matrix<bool>("open", open, ScalarType::Bool, where);
  c.confidence = matrix<double>("confidence", confidence, ScalarType::Double, where);
  Tensor chosen = new_empty(where, {c.rows, c.length}, ScalarType::Bool);
  c.chosen = static_cast<bool*>(chosen.data_ptr());
  if (c.rows > 0) kernel(c);
  return chosen;
}

}  // namespace
}  // namespace dlmdecode
