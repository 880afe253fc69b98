#!/usr/bin/env bash
# The tests of the ops against the CUDA kernels, which run on the CPU (see launch.h):
#
#   tests/cuda_on_cpu/run.sh [pytest arguments]
#
# Shows whether the kernels compute what they should; not how fast, and not what only a GPU does.
# SANITIZE=1: under AddressSanitizer and UndefinedBehaviorSanitizer.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/build_beside.sh
prepare
cp -r csrc "$work/csrc"
cp tests/cuda_on_cpu/launch.h "$work/csrc/cuda/launch.h"
flags="-O2"
test=run_tests
if [ "${SANITIZE:-0}" = 1 ]; then
  flags=$sanitizing
  test=run_sanitized_tests
fi
others=()  # ops without CUDA kernels
for source in "$work"/csrc/cpu/*.cpp; do
  [ -e "$work/csrc/cuda/$(basename "$source" .cpp).cu" ] || others+=("$source")
done
# shellcheck disable=SC2086
compile $flags -DUSE_CUDA "$work/csrc/ops.cpp" "${others[@]}" "$work"/csrc/cuda/*.cu
# 20,000 rows of samples would take minutes, and the draws are compared bit for bit elsewhere
$test --deselect tests/test_ops_propose.py::test_samples_follow_the_softmax "$@"
