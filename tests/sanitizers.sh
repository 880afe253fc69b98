#!/usr/bin/env bash
# The tests of the ops under AddressSanitizer and UndefinedBehaviorSanitizer, for each instruction
# set and for the CUDA kernels on the CPU: tests/sanitizers.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/build_beside.sh
prepare
# shellcheck disable=SC2086
compile $sanitizing csrc/ops.cpp csrc/cpu/*.cpp csrc/cpu/scan/*.cpp
for isa in portable avx2 avx512; do
  if [ $isa = avx512 ] && ! grep -q avx512bw /proc/cpuinfo; then
    echo "== avx512: not tested, this processor has none"
    continue
  fi
  echo "== $isa"
  DLMDECODE_ISA=$isa run_sanitized_tests "$@"
done
echo "== cuda on cpu"
SANITIZE=1 tests/cuda_on_cpu/run.sh "$@"
