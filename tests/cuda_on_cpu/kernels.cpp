// The CUDA kernels where the ops of the CPU are looked for.
#include "ops.h"

namespace dlmdecode::cpu {

void propose(const Rows& rows) { cuda::propose(rows); }
void topm(const Rows& rows, const Top& top) { cuda::topm(rows, top); }
void commit(const Commit& commit) { cuda::commit(commit); }

}  // namespace dlmdecode::cpu
