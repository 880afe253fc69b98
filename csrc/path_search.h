// A lattice of draft tokens and an n-gram model as the arrays they arrive in, and the search.
#pragma once

#include <cstdint>
#include <vector>

namespace dlmdecode {

struct Lattice {
  int64_t positions, width;
  const int64_t* ids;     // (positions, width)
  const float* log_prob;  // (positions, width)
  const int64_t* count;   // (positions,), candidates in use
};

struct Table {
  const int64_t* keys;  // sorted
  const float* values;
  int64_t count;
};

struct NGram {
  std::vector<Table> grams;     // of order 1, 2, …: log-probabilities
  std::vector<Table> contexts;  // of as many tokens less one: log weights of backing off
  double floor;                 // of a token unknown to order 1
};

struct ScoredPath {
  std::vector<int64_t> ids;
  double score;
};

struct Counts {
  std::vector<int64_t> keys;      // sorted
  std::vector<float> log_prob;    // of the last token after the others
  std::vector<int64_t> contexts;  // sorted
};

namespace cpu {
// Moves to the front of each row of ids and log_prob (positions, width) the tokens that have less
// than `mass` before them, but for EOS above the last row; count (positions,) says how many.
void candidates(int64_t positions, int64_t width, int64_t* ids, float* log_prob, int64_t* count,
                double mass, const std::vector<int64_t>& eos_ids);

// prefix: the last ids before the lattice, at least as many as the model's order less one.
ScoredPath path_search(const Lattice& lattice, const NGram& model,
                       const std::vector<int64_t>& prefix, int64_t beam, double lam,
                       const std::vector<int64_t>& eos_ids);
// The n-grams of orders 1 to `order` of a text, relative to their contexts; -1 stands before it.
Counts count_ngrams(const int64_t* ids, int64_t length, int64_t order);
}  // namespace cpu

}  // namespace dlmdecode
