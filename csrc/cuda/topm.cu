// A block for each row: the best token left, m times. A thread looks again through its own share
// of the row only after one of its tokens was taken.
#include "../ops.h"
#include "reduce.h"

namespace dlmdecode::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int64_t kNone = 0x7FFFFFFFFFFFFFFF;

template <class C>
struct Candidate {
  C value;
  int64_t id;
};

// The best token of this thread's share that comes after `last` in the order of the result.
template <class In, class C>
__device__ Candidate<C> best_after(const Rows& rows, int64_t row, Candidate<C> last) {
  Candidate<C> best{-static_cast<C>(__builtin_inf()), kNone};
  for (int64_t id = threadIdx.x; id < rows.vocabulary; id += kThreads) {
    const C z = logit_at<In, C>(rows, row, id);
    const bool left = z < last.value || (z == last.value && id > last.id);
    if (left && z > best.value) best = {z, id};
  }
  return best;
}

template <class In, class C>
__global__ void __launch_bounds__(kThreads) top(const Rows rows, const Top out) {
  __shared__ C room[kThreads / kWarp];
  __shared__ int64_t room_of_ids[kThreads / kWarp];
  constexpr C infinity = static_cast<C>(__builtin_inf());
  const int64_t row = blockIdx.x;
  bool bad = false;
  for (int64_t id = threadIdx.x; id < rows.vocabulary; id += kThreads) {
    bad |= !(logit_at<In, C>(rows, row, id) < infinity);
  }
  Candidate<C> mine = best_after<In, C>(rows, row, {infinity, -1});
  const C best = reduce_block(mine.value, room, Larger{});
  bad = __syncthreads_or(bad) || best == -infinity;
  C rest = 0;
  const int64_t first = reduce_block(mine.value == best ? mine.id : kNone, room_of_ids, Smaller{});
  for (int64_t id = threadIdx.x; !bad && id < rows.vocabulary; id += kThreads) {
    if (id != first) rest += exp(logit_at<In, C>(rows, row, id) - best);
  }
  const double normaliser = log1p(static_cast<double>(reduce_block(rest, room, Plus{})));
  for (int64_t i = 0; i < out.m; ++i) {
    const C value = reduce_block(mine.value, room, Larger{});
    const int64_t id = reduce_block(mine.value == value ? mine.id : kNone, room_of_ids, Smaller{});
    const bool given = !bad && id != kNone && value > -infinity;
    if (threadIdx.x == 0) {
      out.ids[row * out.m + i] = given ? id : bad ? kBad : kUnneeded;
      out.log_prob[row * out.m + i] =
          given ? static_cast<float>(static_cast<double>(value) - best - normaliser) : -INFINITY;
    }
    if (given && mine.id == id) mine = best_after<In, C>(rows, row, mine);
  }
}

template <class In, class C>
void run(const Rows& rows, const Top& out) {
  Device(rows.device).launch(top<In, C>, rows.count, kThreads, 0, rows, out);
}

}  // namespace

void topm(const Rows& rows, const Top& out) {
  switch (rows.kind) {
    case Kind::Float:
      return run<float, float>(rows, out);
    case Kind::BFloat16:
      return run<BFloat16, float>(rows, out);
    case Kind::Half:
      return run<Half, float>(rows, out);
    case Kind::Double:
      return run<double, double>(rows, out);
  }
}

}  // namespace dlmdecode::cuda
