// Selection and remasking, a row after the other: a few microseconds.
#include "../commit.h"

#include <algorithm>
#include <vector>

namespace dlmdecode::cpu {

void commit(const Commit& c) {
  thread_local std::vector<int64_t> order;
  for (int64_t row = 0; row < c.rows; ++row) {
    order.clear();
    for (int64_t i = first_position(c, row); i < last_position(c, row); ++i) {
      if (eligible(c, row, i)) order.push_back(i);
    }
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      const double p = confidence_at(c, row, a), q = confidence_at(c, row, b);
      return p > q || (p == q && a < b);
    });
    const int64_t n = static_cast<int64_t>(order.size());
    int64_t taken = prefix_length(c, row, n, [&](int64_t k) { return order[k]; });
    if (c.rule == Rule::Relaxed) {  // the minimum stays in front, then all that leap
      const auto leaping = [&](int64_t i) { return leaps(c, row, i); };
      taken = std::partition(order.begin() + taken, order.end(), leaping) - order.begin();
    }
    for (int64_t k = 0; k < taken; ++k) {
      c.tokens[row * c.stride + order[k]] = c.proposed[row * c.length + order[k]];
    }
    c.count[row] = taken;
  }
}

}  // namespace dlmdecode::cpu

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) {
  m.impl("commit", TORCH_BOX(&dlmdecode::commit<dlmdecode::cpu::commit>));
}
