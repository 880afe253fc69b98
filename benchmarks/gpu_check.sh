#!/usr/bin/env bash
# Everything that is promised on a GPU, in one run: build, equality of ops and texts, sanitizer,
# speed of the ops, graphs, and a step of LLaDA-8B's shape over reading its weights once.
#
#   OUT=results benchmarks/gpu_check.sh          (about ten minutes; needs nvcc and a CUDA torch)
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
out=${OUT:-benchmarks/results}
mkdir -p "$out"
failed=0
step() { echo "== $*"; "$@" || { failed=1; echo "FAILED: $*"; }; }

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/gpu.txt"
export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
step "$python" setup.py build_ext --inplace >"$out/build.log" 2>&1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
step "$python" -m pytest -q tests/test_ops_*.py tests/test_cuda_generation.py
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck; do
    step compute-sanitizer --tool "$tool" --error-exitcode 1 \
      "$python" -m pytest -q tests/test_ops_cuda.py -k "small" 2>&1 | tail -n 5
  done
fi
for rows in 32 256 4096; do
  step "$python" benchmarks/ops.py --device cuda --rows "$rows" --json "$out/ops-gpu-$rows.json"
done
step "$python" benchmarks/roofline.py --device cuda --compile --output "$out/roofline.md"
exit "$failed"
