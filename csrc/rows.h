// What `propose` and `credit` read and write, and the value of one logit: shared by both devices.
#pragma once

#include <cstdint>

#include "philox.h"

namespace dlmdecode {

enum class Kind { Float, BFloat16, Half, Double };

// float16 and bfloat16 as their bits, so that one expression widens them on every device.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

template <class C>
DLM_SHARED C widen(float value) {
  return static_cast<C>(value);
}

template <class C>
DLM_SHARED C widen(double value) {
  return static_cast<C>(value);
}

template <class C>
DLM_SHARED C widen(BFloat16 value) {
  return static_cast<C>(bits_as<float>(static_cast<uint32_t>(value.bits) << 16));
}

template <class C>
DLM_SHARED C widen(Half value) {
  const uint32_t bits = value.bits;
  float magnitude = bits_as<float>((bits & 0x7FFF) << 13) * 0x1p112f;  // also right for subnormals
  const uint32_t special = magnitude >= 65536.0f ? 0x7F800000u : 0u;   // infinity and NaN
  return static_cast<C>(
      bits_as<float>(bits_as<uint32_t>(magnitude) | special | ((bits & 0x8000) << 16)));
}

constexpr int64_t kUnneeded = -1, kBad = -2;

struct Rows {
  Kind kind;         // of logits
  bool wide_output;  // log_prob, margin and entropy are float64
  int32_t device;
  int64_t count, vocabulary;
  const void* logits;
  int64_t stride;  // elements from row to row
  const bool* need = nullptr;
  int64_t exclude = -1;
  double temperature = 0;
  uint64_t seed = 0;
  const int64_t* stream = nullptr;  // null: the row's index
  const int64_t* position = nullptr;
  // Credits: (count, slots), contiguous; null for `propose`.
  const int64_t* ids = nullptr;
  const float* credits = nullptr;
  int64_t slots = 0;
  double alpha = 0, beta = 0, gamma = 0;
  int64_t* new_ids = nullptr;
  float* new_credits = nullptr;
  // Results, (count,).
  int64_t* token;
  void* log_prob;
  void* margin;
  void* entropy;
};

DLM_SHARED int64_t stream_of(const Rows& rows, int64_t row) {
  return rows.stream ? rows.stream[row] : row;
}

DLM_SHARED int64_t position_of(const Rows& rows, int64_t row) {
  return rows.position ? rows.position[row] : 0;
}

// One logit, without credits.
template <class In, class C>
DLM_SHARED C logit_at(const Rows& rows, int64_t row, int64_t id) {
  return widen<C>(static_cast<const In*>(rows.logits)[row * rows.stride + id]);
}

template <class C>
DLM_SHARED C noisy(C z, C inverse_temperature, float noise) {
  return add(mul(z, inverse_temperature), static_cast<C>(noise));
}

// Calls run<In, C>() with the types of the logits and of the arithmetic.
template <class Run>
void dispatch(const Rows& rows, Run run) {
  const bool wide = rows.wide_output;
  switch (rows.kind) {
    case Kind::Float:
      return wide ? run.template operator()<float, double>()
                  : run.template operator()<float, float>();
    case Kind::BFloat16:
      return wide ? run.template operator()<BFloat16, double>()
                  : run.template operator()<BFloat16, float>();
    case Kind::Half:
      return wide ? run.template operator()<Half, double>()
                  : run.template operator()<Half, float>();
    case Kind::Double:
      return run.template operator()<double, double>();
  }
}

}  // namespace dlmdecode
