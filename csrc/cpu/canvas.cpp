// A row after the other: a few microseconds.
#include "../canvas.h"

#include <algorithm>

namespace dlmdecode::cpu {

void survey(const Survey& s) {
  for (int64_t row = 0; row < s.rows; ++row) {
    Counts counts{0, 0, s.length, s.length, 0};
    for (int64_t i = 0; i < s.length; ++i) {
      const Place place = place_at(s, row, i);
      s.masked[row * s.length + i] = place.masked;
      s.open[row * s.length + i] = place.open;
      counts.masks += place.masked;
      counts.open += place.open;
      counts.bad += place.bad;
      if (place.masked) counts.mask_at = std::min(counts.mask_at, i);
      if (place.end) counts.eos_at = std::min(counts.eos_at, i);
    }
    write_row(s, row, counts);
  }
}

void put(const Put& p) {
  const int64_t size = p.rows * p.length;
  std::copy_n(p.kept.token, size, p.token);
  std::copy_n(p.kept.prob, size, p.prob);
  std::copy_n(p.kept.margin, size, p.margin);
  std::copy_n(p.kept.entropy, size, p.entropy);
  for (int64_t row = 0; row < p.rows; ++row) {
    for (int64_t k = 0; k < p.width; ++k) put_new(p, row, k);
  }
}

void choose(const Choose& c) {
  for (int64_t row = 0; row < c.rows; ++row) {
    const int64_t first = row * c.length, last = first + c.length;
    int64_t best = -1;
    bool any = false;
    for (int64_t at = first; at < last; ++at) {
      c.chosen[at] = c.open[at] && c.where[at];
      any |= c.chosen[at];
      if (c.open[at] && (best < 0 || surer(c.confidence[at], c.confidence[best]))) best = at;
    }
    if (!any && best >= 0) c.chosen[best] = true;
  }
}

}  // namespace dlmdecode::cpu

STABLE_TORCH_LIBRARY_IMPL(dlmdecode, CPU, m) {
  m.impl("survey", TORCH_BOX(&dlmdecode::survey<dlmdecode::cpu::survey>));
  m.impl("put", TORCH_BOX(&dlmdecode::put<dlmdecode::cpu::put>));
  m.impl("choose", TORCH_BOX(&dlmdecode::choose<dlmdecode::cpu::choose>));
}
