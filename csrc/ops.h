// The kernels behind the ops, one set per device.
#pragma once

#include "commit.h"
#include "rows.h"

namespace dlmdecode {

constexpr int64_t kMostTop = 32;

// The m best tokens of each row, (count, m): id -1 where a row has fewer, -2 where it is bad.
struct Top {
  int64_t m;
  int64_t* ids;
  float* log_prob;
};

namespace cpu {
void propose(const Rows& rows);
void topm(const Rows& rows, const Top& top);
void commit(const Commit& commit);
}  // namespace cpu

#ifdef USE_CUDA
namespace cuda {
void propose(const Rows& rows);
void topm(const Rows& rows, const Top& top);
void commit(const Commit& commit);
}  // namespace cuda
#endif

}  // namespace dlmdecode
