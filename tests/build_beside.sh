# Sourced by scripts that test other builds of the extension, from the root of the checkout:
#
#   prepare                   a temporary folder $work with links to the package's Python files
#   compile FLAGS... SOURCES  its extension, from C++ sources
#   run_tests ARGUMENTS...    pytest of the ops on that package
#
# and, with `compile $sanitizing`, run_sanitized_tests.
python=${PYTHON:-python}
root=$PWD

prepare() {
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/dlmdecode"
  for path in "$root"/dlmdecode/*; do
    case $path in *_C*) ;; *) ln -s "$path" "$work/dlmdecode/" ;; esac
  done
}

compile() {
  local torch flags=() sources=()
  torch=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)')
  for argument in "$@"; do
    case $argument in -*) flags+=("$argument") ;; *) sources+=("$argument") ;; esac
  done
  printf '%s\n' "${sources[@]}" | xargs -P "$(nproc)" -I{} bash -c \
    'g++ "${@:3}" -x c++ -c "$1" -o "$2/$(basename "$1").o"' _ {} "$work" \
    -std=c++20 -fPIC -fopenmp-simd -ffp-contract=off -fno-math-errno -fno-trapping-math \
    -DTORCH_TARGET_VERSION=0x020b000000000000 -isystem "$torch/include" \
    -isystem "$torch/include/torch/csrc/api/include" "${flags[@]}"
  g++ -shared "${flags[@]}" "$work"/*.o -o "$work/dlmdecode/_C.abi3.so" \
    -L"$torch/lib" -lc10 -ltorch -ltorch_cpu
}

# (from $work and without the checkout on the path, so that the folder of links gets imported)
run_tests() {
  local tests=()
  for path in "$root"/tests/test_ops_*.py; do
    case $path in *_extension.py | *_cuda.py) ;; *) tests+=("$path") ;; esac
  done
  (cd "$work" && export PYTHONPATH=$work && "$python" -c "
from dlmdecode.ops import extension
assert extension.LOADED and extension.__file__.startswith('$work'), extension.__file__" &&
    "$python" -m pytest -q -p no:cacheprovider -c "$root/pyproject.toml" -o pythonpath= \
      --rootdir "$root" "${tests[@]}" "$@")
}

sanitizing="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
  -fno-sanitize-recover=undefined"

# Leaks: the interpreter's own are not ours to report.
run_sanitized_tests() {
  ASAN_OPTIONS=detect_leaks=0:halt_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 \
    LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
    run_tests "$@"
}
