#!/usr/bin/env bash
# mypy over the package as it is installed: samplers/ and evals/ lie elsewhere in the checkout, so that
# there the checker would see Any wherever one folder calls another. A probe that must fail shows it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mypy=${MYPY:-mypy}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
cp -r dlmdecode "$site"
cp -r samplers evals "$site/dlmdecode"
config=$PWD/pyproject.toml
cd "$site"

"$mypy" --config-file "$config" --cache-dir .mypy_cache --package dlmdecode

cat > probe.py << 'PROBE'
from dlmdecode.evals.statistics import interval
from dlmdecode.samplers.threshold import threshold

interval(1, 2, 0.95, "more")
threshold(0.9, "more")
PROBE
errors=$("$mypy" --config-file "$config" --cache-dir .mypy_cache probe.py || true)
[ "$(grep -c 'Too many.* arguments' <<< "$errors")" = 2 ] ||
    { echo "the type checker does not see calls between folders:"; echo "$errors"; exit 1; }
