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

DLM_SHARED void keep_credits(const Rows& rows, int64_t row) {
  for (int64_t i = row * rows.slots; i < (row + 1) * rows.slots; ++i) {
    rows.new_ids[i] = rows.ids[i];
    rows.new_credits[i] = rows.credits[i];
  }
}

DLM_SHARED void skip_row(const Rows& rows, int64_t row) {
  write<double>(rows, row, kUnneeded, -__builtin_inf(), 0, 0);
  keep_credits(rows, row);
}

// Every credit decays; `token` gains, in its slot, else the first empty one, else the smallest.
DLM_SHARED void update_credits(const Rows& rows, int64_t row, int64_t token, float probability) {
  const float decay = static_cast<float>(rows.beta);
  int64_t slot = -1;
  float smallest = 0;
  for (int64_t i = row * rows.slots; i < (row + 1) * rows.slots; ++i) {
    const bool empty = rows.ids[i] < 0;
    rows.new_ids[i] = rows.ids[i];
    rows.new_credits[i] = empty ? 0.0f : mul(rows.credits[i], decay);
    const float rank = rows.ids[i] == token ? -2 : empty ? -1 : rows.new_credits[i];
    if (slot < 0 || rank < smallest) {
      slot = i;
      smallest = rank;
    }
  }
  const float held = rows.ids[slot] == token ? rows.new_credits[slot] : 0;
  rows.new_ids[slot] = token;
  rows.new_credits[slot] = add(held, powf(probability, static_cast<float>(rows.gamma)));
}

template <class C>
DLM_SHARED C boosted(const Rows& rows, C value, float credit) {
  return add(value, static_cast<C>(mul(static_cast<float>(rows.alpha), log1pf(credit))));
}

// `others` (all tokens but the row's slots and the excluded one) with the slots' tokens at their
// fused logits. values[i] is the unboosted logit of slot i before the update.
template <class C>
DLM_SHARED Partial<C, double> fused(const Rows& rows, int64_t row, Partial<C, double> others,
                                    const C* values, const Partial<C, double>& base) {
  const int64_t start = row * rows.slots;
  Partial<C, double> all = others;
  for (int64_t i = 0; i < rows.slots; ++i) {
    const int64_t old_id = rows.ids[start + i], id = rows.new_ids[start + i];
    if (id == base.token && id != old_id) {
      // A new slot for the best of `others`: it rises, what stood beside it stays.
      const C value = boosted(rows, base.best, rows.new_credits[start + i]);
      Partial<C, double> risen = point(rows, row, id, value);
      const double gap = static_cast<double>(value) - static_cast<double>(base.best);
      risen.second = others.second;
      risen.rest = others.rest * exp(-gap);
      risen.slope = (others.slope + gap * others.rest) * exp(-gap);
      if (others.key > risen.key || (others.key == risen.key && others.drawn < risen.drawn)) {
        risen.key = others.key;
        risen.drawn = others.drawn;
      }
      risen.bad = others.bad;
      all = risen;
    }
  }
  for (int64_t i = 0; i < rows.slots; ++i) {
    const int64_t old_id = rows.ids[start + i], id = rows.new_ids[start + i];
    if (old_id < 0 || old_id == rows.exclude) continue;
    const C value =
        old_id == id ? boosted(rows, values[i], rows.new_credits[start + i]) : values[i];
    all = merge(all, point(rows, row, old_id, value));
  }
  return all;
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

}  // namespace dlmdecode
