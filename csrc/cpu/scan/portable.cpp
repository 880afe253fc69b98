#include "scan.h"

#define DLM_ISA portable
#define DLM_STRIP 512

namespace dlmdecode::cpu::portable {
namespace {

typedef uint64_t Lanes;  // one of them

// The product of the lower half of each lane with b.
inline Lanes product(Lanes a, uint32_t b) { return (a & 0xFFFFFFFF) * b; }

// Bit i is set where words[i] <= limit, for the first 16.
inline uint32_t at_most(const uint32_t* words, uint32_t limit) {
  uint32_t found = 0;
  for (int i = 0; i < 16; ++i) found |= static_cast<uint32_t>(words[i] <= limit) << i;
  return found;
}

}  // namespace
}  // namespace dlmdecode::cpu::portable

#include "scan.inc"
