#!/usr/bin/env bash
# The tests of the ops under AddressSanitizer and UndefinedBehaviorSanitizer:
#
#   tests/sanitizers.sh [pytest arguments]
#
# Builds the extension into a temporary folder, beside links to the Python files.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/dlmdecode"
for path in "$root"/dlmdecode/*; do
  case $path in *_C*) ;; *) ln -s "$path" "$work/dlmdecode/" ;; esac
done
torch=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)')
flags="-std=c++20 -O1 -g -fPIC -fno-omit-frame-pointer -fopenmp-simd -ffp-contract=off"
flags="$flags -fno-math-errno -fno-trapping-math -DTORCH_TARGET_VERSION=0x020b000000000000"
flags="$flags -fsanitize=address,undefined -fno-sanitize-recover=undefined"
for source in csrc/ops.cpp csrc/cpu/*.cpp; do
  # shellcheck disable=SC2086
  g++ $flags -I"$torch/include" -I"$torch/include/torch/csrc/api/include" \
    -c "$source" -o "$work/$(basename "$source").o"
done
g++ -shared -fsanitize=address,undefined "$work"/*.o -o "$work/dlmdecode/_C.abi3.so" \
  -L"$torch/lib" -lc10 -ltorch -ltorch_cpu
# leaks: the interpreter's own are not ours to report
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
for isa in ${ISAS:-portable avx2 avx512}; do
  echo "== $isa"
  # (cd so that the folder of links is what gets imported)
  (cd "$work" && DLMDECODE_ISA=$isa PYTHONPATH=$work \
    LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
    "$python" -m pytest -q -p no:cacheprovider -c "$root/pyproject.toml" --rootdir "$root" \
    "$root/tests/test_ops.py" -k "not process and not instruction and not export and not opcheck \
and not forced" "$@")
done
