// The tree of a lattice's likeliest paths, grown by its best node (SpecInfer, arXiv 2305.09781, and
// OPT-Tree, 2406.17276, have such trees).
#include <cmath>
#include <queue>
#include <tuple>
#include <vector>

#include "lattice.h"

namespace dlmdecode {
namespace {

struct Node {
  double score;    // of the path, natural logarithm
  double own;      // of this token after its parent
  int64_t order;   // when it was found: of equal scores the first comes first
  int64_t token, parent, depth;

  bool operator<(const Node& other) const {
    return score != other.score ? score < other.score : order > other.order;
  }
};

struct Tree {
  std::vector<int64_t> token, parent;
  std::vector<double> own;

  // The tokens up to a node, after `before`.
  std::vector<int64_t> path(std::vector<int64_t> before, int64_t node) const {
    const size_t start = before.size();
    for (; node >= 0; node = parent[node]) before.push_back(token[node]);
    std::reverse(before.begin() + static_cast<int64_t>(start), before.end());
    return before;
  }
};

// Log probability of each candidate at a position: mixed with the model's, normalised over the
// candidates, times the probability that it is one of them.
std::vector<double> mixed(const Scored& all, double lam, int64_t position,
                          const std::vector<int64_t>& path) {
  const int64_t* ids = all.lattice.ids + position * all.lattice.width;
  const float* log_prob = all.lattice.log_prob + position * all.lattice.width;
  Context context(all.model.grams.size());
  if (lam < 1) context.move_to(all.model, path);
  std::vector<double> out;
  double total = 0, mass = 0;
  for (int64_t j = 0; j < all.lattice.count[position]; ++j) {
    const double own = log_prob[j];
    double gain = lam * own;
    if (lam < 1) gain += (1 - lam) * score(all.model, context, ids[j]);
    out.push_back(gain);
    total += std::exp(gain);
    mass += std::exp(own);
  }
  for (double& one : out) one += std::log(std::min(mass, 1.0)) - std::log(total);
  return out;
}

Tree grown(const Scored& all, int64_t nodes, double lam) {
  Tree tree;
  std::priority_queue<Node> queue;
  int64_t order = 0;
  const auto offer = [&](int64_t parent, int64_t depth, double above) {
    if (depth == all.lattice.positions) return;
    const std::vector<double> own = mixed(all, lam, depth, tree.path(all.before, parent));
    const int64_t* ids = all.lattice.ids + depth * all.lattice.width;
    for (size_t j = 0; j < own.size(); ++j) {
      queue.push({above + own[j], own[j], order++, ids[j], parent, depth});
    }
  };
  offer(-1, 0, 0);
  while (!queue.empty() && static_cast<int64_t>(tree.token.size()) < nodes) {
    const Node best = queue.top();
    queue.pop();
    tree.token.push_back(best.token);
    tree.parent.push_back(best.parent);
    tree.own.push_back(best.own);
    const int64_t index = static_cast<int64_t>(tree.token.size()) - 1;
    if (!contains(all.eos_ids, best.token)) offer(index, best.depth + 1, best.score);
  }
  return tree;
}

std::tuple<Tensor, Tensor, Tensor> lattice_tree(
    const Tensor& ids, const Tensor& log_prob, const Tensor& count, std::vector<Tensor> keys,
    std::vector<Tensor> log_probs, std::vector<Tensor> contexts, std::vector<Tensor> weights,
    double floor, const Tensor& prefix, int64_t nodes, double lam, const Tensor& eos_ids) {
  const Scored all = scored(ids, log_prob, count, keys, log_probs, contexts, weights, floor, prefix,
                            eos_ids);
  const Tree tree = grown(all, nodes, lam);
  return {tensor_of(tree.token, ScalarType::Long, ids),
          tensor_of(tree.parent, ScalarType::Long, ids),
          tensor_of(tree.own, ScalarType::Double, ids)};
}

}  // namespace
}  // namespace dlmdecode

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) {
  m.impl("lattice_tree", TORCH_BOX(&dlmdecode::lattice_tree));
}
