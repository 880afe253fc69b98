// `divergence`: how far a row's distribution is from another one, and the op on tensors around a
// device's kernel.
#pragma once

#include <cmath>
#include <tuple>

#include "checks.h"

namespace dlmdecode {

struct Divergence {
  Rows now, before;
  const double* norm_before;
  const int64_t* at;  // which row of `before` each is compared with
  const bool* need;   // null for all
  float* nats;
  double* norm;
};

// Sums over a stretch of a row, of exponentials below its best logit.
template <class C>
struct Moved {
  C best = -static_cast<C>(__builtin_inf());
  double sum = 0;
  double gap = 0;  // of exp(z - best) times (z - best) - (z before - base)
  C base = 0;      // small differences of large logits keep their precision
  bool bad = false;

  // Makes these, the first of them not less than the best logit, what sums are relative to.
  DLM_SHARED void raise(C to, C new_base) {
    if (to > best && sum > 0) {
      const double step = static_cast<double>(to) - static_cast<double>(best);
      const double apart = step - (static_cast<double>(new_base) - static_cast<double>(base));
      const double weight = exp(-step);
      gap = weight > 0 ? weight * (gap - apart * sum) : 0;  // 0 inf is 0
      sum *= weight;
    }
    best = to;
    base = new_base;
  }
};

// The row of `before` that a row is compared with, -1 for none.
DLM_SHARED int64_t partner(const Divergence& d, int64_t row) {
  const int64_t at = d.at[row];
  return at >= 0 && at < d.before.count ? at : -1;
}

// Says so of a row that nobody asked for.
DLM_SHARED bool skipped(const Divergence& d, int64_t row) {
  if (!d.need || d.need[row]) return false;
  d.nats[row] = __builtin_inff();
  d.norm[row] = 0;
  return true;
}

template <class C>
DLM_SHARED void finish(const Divergence& d, int64_t row, const Moved<C>& all) {
  const bool bad = all.bad || !(all.sum > 0);
  const int64_t at = partner(d, row);
  d.norm[row] = bad ? __builtin_nan("") : log(all.sum) + static_cast<double>(all.best);
  d.nats[row] = __builtin_inff();
  if (at < 0) return;
  const double off = d.norm_before[at] - static_cast<double>(all.base);
  const double nats = all.gap / all.sum - log(all.sum) + off;
  d.nats[row] = bad ? __builtin_nanf("") : static_cast<float>(nats);
}

namespace {

template <void (*kernel)(const Divergence&)>
std::tuple<Tensor, Tensor> divergence(const Tensor& logits, const Tensor& before,
                                      const Tensor& norm_before, const Tensor& at,
                                      const OptionalTensor& need) {
  Divergence d{};
  d.now = rows_of(logits);
  d.before = rows_of(before);
  STD_TORCH_CHECK(d.before.vocabulary == d.now.vocabulary && d.before.kind == d.now.kind &&
                      same_device(before, logits),
                  "before does not fit logits");
  d.norm_before =
      dense<double>("norm_before", norm_before, ScalarType::Double, logits, d.before.count);
  d.at = dense<int64_t>("at", at, ScalarType::Long, logits, d.now.count);
  d.need = dense<bool>("need", need, ScalarType::Bool, logits, d.now.count);
  Tensor nats = new_empty(logits, {d.now.count}, ScalarType::Float);
  Tensor norm = new_empty(logits, {d.now.count}, ScalarType::Double);
  d.nats = static_cast<float*>(nats.data_ptr());
  d.norm = static_cast<double*>(norm.data_ptr());
  if (d.now.count > 0) kernel(d);
  return {nats, norm};
}

}  // namespace
}  // namespace dlmdecode
