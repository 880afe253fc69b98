// Beam search over a lattice of draft tokens, scored with a back-off n-gram model (DiffuSpec, arXiv
// 2510.02358).
#include <algorithm>
#include <tuple>
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

struct Path {
  double score;
  std::vector<int64_t> ids;  // the end of the prefix, then the path
  bool ended;
};

// A path, and the token that makes it longer; none if it has ended.
struct Step {
  double score;
  const Path* path;
  const int64_t* id;
};

struct Search {
  const Lattice& lattice;
  const NGram& model;
  int64_t beam;
  double lam;
  const std::vector<int64_t>& eos_ids;
};

// Every way on from `paths` at position k, in their order.
std::vector<Step> steps_at(const Search& search, int64_t k, const std::vector<Path>& paths) {
  const int64_t* ids = search.lattice.ids + k * search.lattice.width;
  const float* log_prob = search.lattice.log_prob + k * search.lattice.width;
  const double lam = search.lam;
  Context context(search.model.grams.size());
  std::vector<Step> steps;
  for (const Path& path : paths) {
    if (path.ended) {
      steps.push_back({path.score, &path, nullptr});
      continue;
    }
    if (lam < 1) context.move_to(search.model, path.ids);
    for (int64_t j = 0; j < search.lattice.count[k]; ++j) {
      double gain = lam * static_cast<double>(log_prob[j]);
      if (lam < 1) gain += (1 - lam) * score(search.model, context, ids[j]);
      steps.push_back({path.score + gain, &path, ids + j});
    }
  }
  return steps;
}

// prefix: the last ids before the lattice, as many as the model's order less one.
Path best_path(const Search& search, std::vector<int64_t> prefix) {
  std::vector<Path> paths{{0, std::move(prefix), false}};
  for (int64_t k = 0; k < search.lattice.positions; ++k) {
    std::vector<Step> steps = steps_at(search, k, paths);
    std::stable_sort(steps.begin(), steps.end(),
                     [](const Step& a, const Step& b) { return a.score > b.score; });
    if (static_cast<int64_t>(steps.size()) > search.beam) steps.resize(search.beam);
    std::vector<Path> longer;
    for (const Step& step : steps) {
      longer.push_back({step.score, step.path->ids, step.path->ended});
      if (!step.id) continue;
      longer.back().ids.push_back(*step.id);
      longer.back().ended = contains(search.eos_ids, *step.id);
    }
    paths = std::move(longer);
  }
  return paths[0];
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

std::tuple<Tensor, Tensor> path_search(const Tensor& ids, const Tensor& log_prob,
                                       const Tensor& count, std::vector<Tensor> keys,
                                       std::vector<Tensor> log_probs, std::vector<Tensor> contexts,
                                       std::vector<Tensor> weights, double floor,
                                       const Tensor& prefix, int64_t beam, double lam,
                                       const Tensor& eos_ids) {
  STD_TORCH_CHECK(beam >= 1, "beam must be at least 1");
  const Lattice lattice = lattice_of(ids, log_prob, count);
  const NGram model{tables(keys, log_probs, ids), tables(contexts, weights, ids), floor};
  const std::vector<int64_t> text = vector_of("prefix", prefix),
                             ends = vector_of("eos_ids", eos_ids);
  const size_t before = model.grams.size() - 1;
  STD_TORCH_CHECK(model.contexts.size() == model.grams.size() && text.size() >= before,
                  "prefix or contexts are too short for the model");
  Path best = best_path({lattice, model, beam, lam, ends}, {text.end() - before, text.end()});
  best.ids.erase(best.ids.begin(), best.ids.begin() + before);
  Tensor score = new_empty(ids, {}, ScalarType::Double);
  *static_cast<double*>(score.data_ptr()) = best.score;
  return {tensor_of(best.ids, ScalarType::Long, ids), score};
}

}  // namespace
}  // namespace dlmdecode

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) {
  m.impl("path_search", TORCH_BOX(&dlmdecode::path_search));
}
