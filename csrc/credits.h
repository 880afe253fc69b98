// The credits of a row's slots (CreditDecoding), shared by both devices.
#pragma once

#include "partial.h"

namespace dlmdecode {

DLM_SHARED void keep_credits(const Rows& rows, int64_t row) {
  for (int64_t i = row * rows.slots; i < (row + 1) * rows.slots; ++i) {
    rows.new_ids[i] = rows.ids[i];
    rows.new_credits[i] = rows.credits[i];
  }
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

}  // namespace dlmdecode
