// A lattice of draft tokens and the back-off n-gram model that scores paths through it.
#pragma once

#include <algorithm>
#include <vector>

#include "../checks.h"
#include "../ngram.h"

namespace dlmdecode {
namespace {

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

// Keys are hashes, so they are spread evenly: begin where an even spread puts this one and double
// the reach until it is enclosed.
const float* lookup(const Table& table, int64_t key) {
  const int64_t last = table.count - 1;
  if (last < 0) return nullptr;
  const double share = static_cast<double>(key) * 0x1p-64 + 0.5;
  int64_t low = std::min(static_cast<int64_t>(share * static_cast<double>(table.count)), last);
  int64_t high = low;
  for (int64_t reach = 8; low > 0 && table.keys[low] > key; reach *= 2) {
    low = std::max<int64_t>(low - reach, 0);
  }
  for (int64_t reach = 8; high < last && table.keys[high] < key; reach *= 2) {
    high = std::min(high + reach, last);
  }
  const int64_t* found = std::lower_bound(table.keys + low, table.keys + high, key);
  return *found == key ? table.values + (found - table.keys) : nullptr;
}

// Where a path stands: its last tokens as keys, one for each order, and what backing off costs.
struct Context {
  std::vector<int64_t> keys;   // keys[m] of the last m tokens
  std::vector<double> weight;  // weight[m]: of backing off from all contexts longer than m

  explicit Context(size_t order) : keys(order), weight(order) {}

  // ids: at least order - 1.
  void move_to(const NGram& model, const std::vector<int64_t>& ids) {
    const size_t order = keys.size();
    for (size_t m = 0; m < order; ++m) {
      keys[m] = 0;
      for (size_t i = ids.size() - m; i < ids.size(); ++i) keys[m] = extend(keys[m], ids[i]);
    }
    for (size_t m = order - 1; m > 0; --m) {
      const float* found = lookup(model.contexts[m], keys[m]);
      weight[m - 1] = weight[m] + (found ? *found : 0);
    }
  }
};

double score(const NGram& model, const Context& context, int64_t token) {
  for (size_t m = model.grams.size(); m-- > 0;) {
    const float* found = lookup(model.grams[m], extend(context.keys[m], token));
    if (found) return context.weight[m] + *found;
  }
  return context.weight[0] + model.floor;
}

Lattice lattice_of(const Tensor& ids, const Tensor& log_prob, const Tensor& count) {
  STD_TORCH_CHECK(ids.dim() == 2 && ids.size(1) > 0, "ids must be (K, M)");
  const int64_t positions = ids.size(0), width = ids.size(1);
  const Lattice lattice{
      positions, width, dense<int64_t>("ids", ids, ScalarType::Long, ids, positions, width),
      dense<float>("log_prob", log_prob, ScalarType::Float, ids, positions, width),
      dense<int64_t>("count", count, ScalarType::Long, ids, positions)};
  for (int64_t k = 0; k < positions; ++k) {
    STD_TORCH_CHECK(lattice.count[k] >= 1 && lattice.count[k] <= width, "count is out of range");
  }
  return lattice;
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

// A lattice and its model from an op's arguments; `before` is the text's end that scores depend on.
struct Scored {
  Lattice lattice;
  NGram model;
  std::vector<int64_t> before, eos_ids;
};

Scored scored(const Tensor& ids, const Tensor& log_prob, const Tensor& count,
              const std::vector<Tensor>& keys, const std::vector<Tensor>& log_probs,
              const std::vector<Tensor>& contexts, const std::vector<Tensor>& weights, double floor,
              const Tensor& prefix, const Tensor& eos_ids) {
  Scored all{lattice_of(ids, log_prob, count),
             {tables(keys, log_probs, ids), tables(contexts, weights, ids), floor},
             vector_of("prefix", prefix),
             vector_of("eos_ids", eos_ids)};
  const size_t needed = all.model.grams.size() - 1;
  STD_TORCH_CHECK(
      all.model.contexts.size() == all.model.grams.size() && all.before.size() >= needed,
      "prefix or contexts are too short for the model");
  all.before.erase(all.before.begin(), all.before.end() - static_cast<int64_t>(needed));
  return all;
}

}  // namespace
}  // namespace dlmdecode
