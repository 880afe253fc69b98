// Beam search over a lattice of draft tokens, scored with a back-off n-gram model (DiffuSpec, arXiv
// 2510.02358).
#include <algorithm>
#include <tuple>
#include <vector>

#include "lattice.h"

namespace dlmdecode {
namespace {

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

std::tuple<Tensor, Tensor> path_search(const Tensor& ids, const Tensor& log_prob,
                                       const Tensor& count, std::vector<Tensor> keys,
                                       std::vector<Tensor> log_probs, std::vector<Tensor> contexts,
                                       std::vector<Tensor> weights, double floor,
                                       const Tensor& prefix, int64_t beam, double lam,
                                       const Tensor& eos_ids) {
  STD_TORCH_CHECK(beam >= 1, "beam must be at least 1");
  const Scored all = scored(ids, log_prob, count, keys, log_probs, contexts, weights, floor, prefix,
                            eos_ids);
  Path best = best_path({all.lattice, all.model, beam, lam, all.eos_ids}, all.before);
  best.ids.erase(best.ids.begin(), best.ids.begin() + static_cast<int64_t>(all.before.size()));
  Tensor score = new_empty(ids, {}, ScalarType::Double);
  *static_cast<double*>(score.data_ptr()) = best.score;
  return {tensor_of(best.ids, ScalarType::Long, ids), score};
}

}  // namespace
}  // namespace dlmdecode

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) {
  m.impl("path_search", TORCH_BOX(&dlmdecode::path_search));
}
