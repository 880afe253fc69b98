// Keys of n-grams: dlmdecode/ops/splitmix.py has the same.
#pragma once

#include <cstdint>

namespace dlmdecode {

inline uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// The key of what `key` stands for followed by `token`.
inline int64_t extend(int64_t key, int64_t token) {
  return static_cast<int64_t>(
      mix(static_cast<uint64_t>(key) + static_cast<uint64_t>(token) + 0x9E3779B97F4A7C15u));
}

}  // namespace dlmdecode
