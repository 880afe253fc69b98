// An n-gram model counted from one text, by sorting keys.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "../checks.h"
#include "../ngram.h"

namespace dlmdecode {
namespace {

struct Grams {
  std::vector<std::pair<int64_t, int64_t>> keys;  // of the n-gram and of its context, sorted
  std::vector<int64_t> contexts;                  // sorted
};

// The n-grams of orders 1 to `order`, those that come twice twice; -1 stands before the text.
Grams grams_of(const std::vector<int64_t>& ids, int64_t order) {
  Grams grams;
  for (int64_t n = 1; n <= order; ++n) {
    for (int64_t end = 0; end < static_cast<int64_t>(ids.size()); ++end) {
      int64_t context = 0;
      for (int64_t i = end - n + 1; i < end; ++i) context = extend(context, i < 0 ? -1 : ids[i]);
      grams.keys.emplace_back(extend(context, ids[end]), context);
      grams.contexts.push_back(context);
    }
  }
  std::sort(grams.keys.begin(), grams.keys.end());
  std::sort(grams.contexts.begin(), grams.contexts.end());
  return grams;
}

std::tuple<Tensor, Tensor, Tensor> count_ngrams(const Tensor& ids, int64_t order) {
  STD_TORCH_CHECK(order >= 1, "order must be at least 1");
  Grams grams = grams_of(vector_of("ids", ids), order);
  std::vector<int64_t>& contexts = grams.contexts;
  std::vector<int64_t> keys;
  std::vector<float> log_prob;  // of the last token after the others
  for (auto first = grams.keys.begin(); first != grams.keys.end();) {
    const auto last = std::upper_bound(first, grams.keys.end(), *first);
    const auto among = std::equal_range(contexts.begin(), contexts.end(), first->second);
    const double total = static_cast<double>(among.second - among.first);
    keys.push_back(first->first);
    log_prob.push_back(static_cast<float>(std::log(static_cast<double>(last - first) / total)));
    first = last;
  }
  contexts.erase(std::unique(contexts.begin(), contexts.end()), contexts.end());
  return {tensor_of(keys, ScalarType::Long, ids), tensor_of(log_prob, ScalarType::Float, ids),
          tensor_of(contexts, ScalarType::Long, ids)};
}

}  // namespace
}  // namespace dlmdecode

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) {
  m.impl("count_ngrams", TORCH_BOX(&dlmdecode::count_ngrams));
}
