// DiffuSpec's candidate sets, and its beam search over their lattice, scored with a back-off n-gram
// model (arXiv 2510.02358); such a model counted from a text.
#include "../path_search.h"

#include <algorithm>
#include <cmath>
#include <utility>
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

bool contains(const std::vector<int64_t>& ids, int64_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

void candidates(int64_t positions, int64_t width, int64_t* ids, float* log_prob, int64_t* count,
                double mass, const std::vector<int64_t>& eos_ids) {
  for (int64_t k = 0; k < positions; ++k, ids += width, log_prob += width) {
    double before = 0;
    count[k] = 0;
    for (int64_t j = 0; j < width && before < mass && log_prob[j] > -HUGE_VALF; ++j) {
      before += std::exp(static_cast<double>(log_prob[j]));
      if (k + 1 < positions && contains(eos_ids, ids[j])) continue;
      std::swap(ids[count[k]], ids[j]);
      std::swap(log_prob[count[k]++], log_prob[j]);
    }
  }
}

ScoredPath path_search(const Lattice& lattice, const NGram& model,
                       const std::vector<int64_t>& prefix, int64_t beam, double lam,
                       const std::vector<int64_t>& eos_ids) {
  const size_t before = model.grams.size() - 1;
  std::vector<Path> paths{{0, {prefix.end() - before, prefix.end()}, false}};
  Context context(model.grams.size());
  std::vector<Step> steps;
  for (int64_t k = 0; k < lattice.positions; ++k) {
    const int64_t* ids = lattice.ids + k * lattice.width;
    const float* log_prob = lattice.log_prob + k * lattice.width;
    steps.clear();
    for (const Path& path : paths) {
      if (path.ended) {
        steps.push_back({path.score, &path, nullptr});
        continue;
      }
      if (lam < 1) context.move_to(model, path.ids);
      for (int64_t j = 0; j < lattice.count[k]; ++j) {
        double gain = lam * static_cast<double>(log_prob[j]);
        if (lam < 1) gain += (1 - lam) * score(model, context, ids[j]);
        steps.push_back({path.score + gain, &path, ids + j});
      }
    }
    std::stable_sort(steps.begin(), steps.end(),
                     [](const Step& a, const Step& b) { return a.score > b.score; });
    if (static_cast<int64_t>(steps.size()) > beam) steps.resize(beam);
    std::vector<Path> longer;
    for (const Step& step : steps) {
      longer.push_back({step.score, step.path->ids, step.path->ended});
      if (!step.id) continue;
      longer.back().ids.push_back(*step.id);
      longer.back().ended = contains(eos_ids, *step.id);
    }
    paths = std::move(longer);
  }
  return {{paths[0].ids.begin() + before, paths[0].ids.end()}, paths[0].score};
}

Counts count_ngrams(const int64_t* ids, int64_t length, int64_t order) {
  std::vector<std::pair<int64_t, int64_t>> grams;  // keys of the n-gram and of its context
  std::vector<int64_t> contexts;
  for (int64_t n = 1; n <= order; ++n) {
    for (int64_t end = 0; end < length; ++end) {
      int64_t context = 0;
      for (int64_t i = end - n + 1; i < end; ++i) context = extend(context, i < 0 ? -1 : ids[i]);
      grams.emplace_back(extend(context, ids[end]), context);
      contexts.push_back(context);
    }
  }
  std::sort(grams.begin(), grams.end());
  std::sort(contexts.begin(), contexts.end());
  Counts counts;
  for (auto first = grams.begin(); first != grams.end();) {
    const auto last = std::upper_bound(first, grams.end(), *first);
    const auto among = std::equal_range(contexts.begin(), contexts.end(), first->second);
    const double total = static_cast<double>(among.second - among.first);
    counts.keys.push_back(first->first);
    counts.log_prob.push_back(
        static_cast<float>(std::log(static_cast<double>(last - first) / total)));
    first = last;
  }
  contexts.erase(std::unique(contexts.begin(), contexts.end()), contexts.end());
  counts.contexts = std::move(contexts);
  return counts;
}

}  // namespace dlmdecode::cpu
