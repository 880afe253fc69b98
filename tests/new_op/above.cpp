// An op that lives outside the package, on the headers of csrc. In csrc/ its schema would be a line
// of ops.cpp, and this file cpu/above.cpp.
#include "checks.h"

namespace dlmdecode {
namespace {

template <class In>
int64_t count_above(const Rows& rows, int64_t row, double level) {
  int64_t count = 0;
  for (int64_t id = 0; id < rows.vocabulary; ++id) {
    count += logit_at<In, double>(rows, row, id) > level;
  }
  return count;
}

Tensor above(const Tensor& logits, double level) {
  const Rows rows = rows_of(logits);
  Tensor count = new_empty(logits, {rows.count}, ScalarType::Long);
  auto* to = static_cast<int64_t*>(count.data_ptr());
  dispatch(rows, [&]<class In, class C>() {
    for (int64_t row = 0; row < rows.count; ++row) to[row] = count_above<In>(rows, row, level);
  });
  return count;
}

}  // namespace
}  // namespace dlmdecode

STABLE_TORCH_LIBRARY_FRAGMENT(dlmdecode, m) {
  // How many logits of each row are above a level.
  m.def("above(Tensor logits, float level) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) { m.impl("above", TORCH_BOX(&dlmdecode::above)); }
