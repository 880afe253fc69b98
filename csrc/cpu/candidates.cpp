// DiffuSpec's candidate sets (arXiv 2510.02358): few tokens, so one thread and no vectors.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "../checks.h"

namespace dlmdecode {
namespace {

// Moves to the front of each row of ids and log_prob (positions, width) the tokens that have less
// than `mass` before them, but for EOS above the last row; count (positions,) says how many.
void choose(int64_t positions, int64_t width, int64_t* ids, float* log_prob, int64_t* count,
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

std::tuple<Tensor, Tensor, Tensor> candidates(const Tensor& ids, const Tensor& log_prob,
                                              double mass, const Tensor& eos_ids) {
  STD_TORCH_CHECK(ids.dim() == 2, "ids must be (K, M)");
  const int64_t positions = ids.size(0), width = ids.size(1);
  const auto* from = dense<int64_t>("ids", ids, ScalarType::Long, ids, positions, width);
  const auto* own = dense<float>("log_prob", log_prob, ScalarType::Float, ids, positions, width);
  Tensor kept = new_empty(ids, {positions, width});
  Tensor kept_log_prob = new_empty(ids, {positions, width}, ScalarType::Float);
  Tensor count = new_empty(ids, {positions});
  auto* to = static_cast<int64_t*>(kept.data_ptr());
  auto* to_log_prob = static_cast<float*>(kept_log_prob.data_ptr());
  std::copy_n(from, positions * width, to);
  std::copy_n(own, positions * width, to_log_prob);
  choose(positions, width, to, to_log_prob, static_cast<int64_t*>(count.data_ptr()), mass,
         vector_of("eos_ids", eos_ids));
  return {kept, kept_log_prob, count};
}

}  // namespace
}  // namespace dlmdecode

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) {
  m.impl("candidates", TORCH_BOX(&dlmdecode::candidates));
}
