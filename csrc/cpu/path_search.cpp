// DiffuSpec's beam search over a lattice, scored with a back-off n-gram model (arXiv 2510.02358).
#include "../path_search.h"

#include <algorithm>
#include <vector>

namespace dlmdecode::cpu {
namespace {

uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// The key of what `key` stands for followed by `token`.
int64_t extend(int64_t key, int64_t token) {
  return static_cast<int64_t>(
      mix(static_cast<uint64_t>(key) + static_cast<uint64_t>(token) + 0x9E3779B97F4A7C15u));
}

const float* lookup(const Table& table, int64_t key) {
  const int64_t* end = table.keys + table.count;
  const int64_t* found = std::lower_bound(table.keys, end, key);
  return found != end && *found == key ? table.values + (found - table.keys) : nullptr;
}

// Where a path stands: its last tokens as keys, one for each order, and what backing off costs.
struct Context {
  std::vector<int64_t> keys;   // keys[m] of the last m tokens
  std::vector<double> weight;  // weight[m]: of backing off from all contexts longer than m
};

Context context_of(const NGram& model, const std::vector<int64_t>& last) {
  const size_t order = model.grams.size();
  Context context{std::vector<int64_t>(order), std::vector<double>(order)};
  for (size_t m = 0; m < order; ++m) {
    for (size_t i = last.size() - m; i < last.size(); ++i) {
      context.keys[m] = extend(context.keys[m], last[i]);
    }
  }
  for (size_t m = order - 1; m > 0; --m) {
    const float* weight = lookup(model.contexts[m], context.keys[m]);
    context.weight[m - 1] = context.weight[m] + (weight ? *weight : 0);
  }
  return context;
}

double score(const NGram& model, const Context& context, int64_t token) {
  for (size_t m = model.grams.size(); m-- > 0;) {
    const float* found = lookup(model.grams[m], extend(context.keys[m], token));
    if (found) return context.weight[m] + *found;
  }
  return context.weight[0] + model.floor;
}

struct Path {
  double score;
  std::vector<int64_t> ids;
  bool ended;
};

}  // namespace

ScoredPath path_search(const Lattice& lattice, const NGram& model,
                       const std::vector<int64_t>& prefix, int64_t beam, double lam,
                       const std::vector<int64_t>& eos_ids) {
  const auto ends = [&](int64_t id) {
    return std::find(eos_ids.begin(), eos_ids.end(), id) != eos_ids.end();
  };
  std::vector<Path> paths{{0, {}, false}};
  for (int64_t k = 0; k < lattice.positions; ++k) {
    std::vector<Path> found;
    for (const Path& path : paths) {
      if (path.ended) {
        found.push_back(path);
        continue;
      }
      Context context;
      if (lam < 1) {
        std::vector<int64_t> last(prefix);
        last.insert(last.end(), path.ids.begin(), path.ids.end());
        context = context_of(model, last);
      }
      for (int64_t j = 0; j < lattice.count[k]; ++j) {
        const int64_t id = lattice.ids[k * lattice.width + j];
        double gain = lam * static_cast<double>(lattice.log_prob[k * lattice.width + j]);
        if (lam < 1) gain += (1 - lam) * score(model, context, id);
        Path longer{path.score + gain, path.ids, ends(id)};
        longer.ids.push_back(id);
        found.push_back(std::move(longer));
      }
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Path& a, const Path& b) { return a.score > b.score; });
    if (static_cast<int64_t>(found.size()) > beam) found.resize(beam);
    paths = std::move(found);
  }
  return {paths[0].ids, paths[0].score};
}

}  // namespace dlmdecode::cpu
