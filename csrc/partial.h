// Statistics of a stretch of one row, how two of them merge, and how a row's become its proposal.
#pragma once

#include <cmath>

#include "rows.h"

namespace dlmdecode {

// The best token stands apart from the sums, so that a probability near 1 keeps its precision.
template <class C, class Sum>
struct Partial {
  C best = -static_cast<C>(__builtin_inf());
  C second = -static_cast<C>(__builtin_inf());  // next best logit, may equal `best`
  C key = -static_cast<C>(__builtin_inf());     // largest logit / temperature + noise
  int64_t token = -1;                           // of `best`; the lowest one
  int64_t drawn = -1;                           // of `key`
  Sum rest = 0;                                 // sum of exp(z - best) over the other tokens
  Sum slope = 0;                                // sum of exp(z - best) (best - z)
  bool bad = false;                             // NaN or +inf was seen
};

template <class C, class Sum>
DLM_SHARED Partial<C, Sum> merge(const Partial<C, Sum>& a, const Partial<C, Sum>& b) {
  const bool a_first = a.best > b.best || (a.best == b.best && a.token < b.token);
  const Partial<C, Sum>& first = a_first ? a : b;
  const Partial<C, Sum>& other = a_first ? b : a;
  Partial<C, Sum> both = first;
  if (other.token >= 0) {
    const Sum gap = static_cast<Sum>(first.best) - static_cast<Sum>(other.best);
    const Sum weight = exp(-gap);
    if (weight > 0) {  // a gap of infinity would make 0 * inf below
      both.rest += weight * (1 + other.rest);
      both.slope += weight * (other.slope + gap * (1 + other.rest));
    }
    both.second = first.second > other.best ? first.second : other.best;
  }
  const bool a_drawn = a.key > b.key || (a.key == b.key && a.drawn < b.drawn);
  both.key = a_drawn ? a.key : b.key;
  both.drawn = a_drawn ? a.drawn : b.drawn;
  both.bad = a.bad || b.bad;
  return both;
}

// A single token as a stretch; banned ones (-inf) are empty.
template <class C>
DLM_SHARED Partial<C, double> point(const Rows& rows, int64_t row, int64_t id, C value) {
  Partial<C, double> one;
  one.bad = !(value < static_cast<C>(__builtin_inf()));
  if (!(value > -static_cast<C>(__builtin_inf())) || id == rows.exclude) return one;
  one.best = value;
  one.token = id;
  if (rows.temperature > 0) {
    const float noise = gumbel_at(rows.seed, stream_of(rows, row), position_of(rows, row), id);
    one.key = noisy<C>(value, static_cast<C>(1 / rows.temperature), noise);
    one.drawn = id;
  }
  return one;
}

struct Summary {
  double log_prob, entropy;  // of the best token, and of the whole row
};

// Adds the excluded token's mass, which may be larger than all the rest. The scans' exponentials
// stop at their smallest number, also for logits of -inf: so little mass is none, and certain is
// certain.
template <class C>
DLM_SHARED Summary summary(const Partial<C, double>& found, C excluded) {
  Partial<C, double> all = found;
  if (all.rest < (sizeof(C) == sizeof(double) ? 1e-295 : 1e-32)) all.rest = all.slope = 0;
  const double gap = static_cast<double>(excluded) - static_cast<double>(all.best);
  const double weight = exp(-fabs(gap));
  if (gap <= 0) {
    const double rest = all.rest + weight;
    const double slope = all.slope + (weight > 0 ? -gap * weight : 0);
    return {-log1p(rest), log1p(rest) + slope / (1 + rest)};
  }
  const double rest = (1 + all.rest) * weight;
  const double slope = (all.slope + gap * (1 + all.rest)) * weight;
  return {-gap - log1p(rest), log1p(rest) + slope / (1 + rest)};
}

template <class C>
DLM_SHARED void write(const Rows& rows, int64_t row, int64_t token, double log_prob, C margin,
                      double entropy) {
  rows.token[row] = token;
  if (rows.wide_output) {
    static_cast<double*>(rows.log_prob)[row] = log_prob;
    static_cast<double*>(rows.margin)[row] = margin;
    static_cast<double*>(rows.entropy)[row] = entropy;
  } else {
    static_cast<float*>(rows.log_prob)[row] = static_cast<float>(log_prob);
    static_cast<float*>(rows.margin)[row] = static_cast<float>(margin);
    static_cast<float*>(rows.entropy)[row] = static_cast<float>(entropy);
  }
}

}  // namespace dlmdecode
