#!/usr/bin/env bash
# Compiles the CUDA sources for GPUs that are not here: csrc/compile_cuda.sh [sm_80 sm_90 ...]
# Needs nvcc and an installed torch (of any kind: only its headers are used).
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python}
torch=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "include")')
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
archs=()
for one in ${@:-sm_80 sm_90}; do
  archs+=(-gencode "arch=compute_${one#sm_},code=$one")
done
for source in cuda/*.cu; do
  echo "$source ${archs[*]}"
  nvcc -c "$source" -o "$out/object.o" "${archs[@]}" -std=c++20 -O3 -DUSE_CUDA \
    -DTORCH_TARGET_VERSION=0x020b000000000000 -isystem "$torch" \
    -isystem "$torch/torch/csrc/api/include" -Xcompiler=-Wall ${NVCC_FLAGS:-}
done
