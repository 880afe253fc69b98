#!/usr/bin/env bash
# Every measurement that depends on the weights of the embedded models; after new ones, all of them.
#
#   benchmarks/embedded.sh runs/tables                  all of them: hours of one core
#   benchmarks/embedded.sh runs/tables spec samplers    some, in this order (two may run side by side)
#
# What a command prints goes to FOLDER/NAME.txt, other files to benchmarks/results, of which `python docs/tables.py` makes
# the pages' tables. What is there is not measured again: runs go on.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
python=${PYTHON:-python} folder=${1:?usage: benchmarks/embedded.sh FOLDER [NAME …]}
results=benchmarks/results
mkdir -p "$folder"
shift

fast="vanilla adablock credit dawn dcd dsb entropy_bound factor frechet hierarchy klass learn2pd localleap
  polestar slowfast streaming threshold wino threshold,threshold=0.3 threshold,threshold=0.5
  threshold,threshold=0.7 threshold,threshold=0.98 threshold,threshold=0.99 threshold,threshold=0.995
  credit+prophet localleap+prophet adablock+credit
  adablock+credit+localleap"
slow="vanilla ccd certainty dream eoser pc_sampler prophet sched t2m edit ass acfg saber freedave"
swept="threshold localleap credit hierarchy factor entropy_bound frechet threshold,block_length=null
  threshold,threshold=0.99 threshold,threshold=0.99,block_length=null threshold,block_length=8
  threshold,threshold=0.99,block_length=8 threshold,block_length=4 threshold,block_length=16
  prophet+hierarchy,threshold=0.98,low_threshold=0.5,early=2,mid=1.5,late=1,block_length=null
  prophet+hierarchy,threshold=0.98,low_threshold=0.9,early=2.5,mid=2,late=1.5,block_length=null
  prophet+threshold,threshold=0.98,early=2,mid=1.5,late=1,block_length=null
  prophet+threshold,threshold=0.98,early=4,mid=3,late=2,block_length=null"
heavy="vanilla core flash_verify info_gain lopa"
cached="adablock credit entropy_bound factor frechet hierarchy klass learn2pd localleap polestar slowfast
  streaming t2m wino threshold,threshold=0.99"
cached_slow="vanilla ccd certainty dream eoser pc_sampler prophet sched edit ass acfg saber freedave"
cached_heavy="lopa core flash_verify dawn info_gain"

accuracy() { # MODEL PROBLEMS FUNCTIONS [--split SPLIT]
  "$python" -m training.evaluate --model "$1" --n "$2" --functions "$3" "${@:4}"
}
samplers() { # NAME LIMIT RESULTS SAMPLER…
  local table=$folder/$1.md flags=() one
  for one in "${@:4}"; do flags+=(--sampler "$one"); done
  "$python" -m dlmdecode bench samplers --limit "$2" --batch-size 20 "${flags[@]}" --output "$table"
  "$python" -m dlmdecode eval report "$table.run" --output "$folder/$1.report"
  mkdir -p "$results/$3"
  cp "$folder/$1.report/report.md" "$table.run/run.json" "$results/$3"
}
frontier() { # LIMIT SAMPLER…
  local flags=() one
  for one in "${@:2}"; do flags+=(--sampler "$one"); done
  "$python" -m dlmdecode eval frontier arithmetic --limit "$1" --batch-size 20 --max-new-tokens 128 \
    "${flags[@]}" --output "$folder/frontier" || [ -e "$folder/frontier/preset.json" ]  # unconfirmed
  mkdir -p "$results/frontier"
  cp "$folder"/frontier/frontier.* "$results/frontier"
}
caches() { # RESULTS MODEL PROBLEMS SAMPLER…
  "$python" benchmarks/caches.py --model "$2" --samplers "${@:4}" --problems "$3" --batch 20 \
    --output "$folder/$1"
  mkdir -p "$results/$1"
  cp "$folder/$1/caches.md" "$results/$1"
}
functions() { # SAMPLER…
  local flags=() one
  for one in "$@"; do flags+=(--sampler "$one"); done
  "$python" -m dlmdecode eval functions "${flags[@]}" --allow-code-execution --limit 100 \
    --batch-size 25 --max-new-tokens 64 --output "$folder/functions.run"
}
speculation() { "$python" benchmarks/speculation.py "$@"; }

measure() {
  # shellcheck disable=SC2086
  case $1 in
    tiny) accuracy tiny 1000 200 ;;
    tiny-phrasing) accuracy tiny 300 100 --split phrasing ;;
    tiny-ar) accuracy tiny-ar 1000 200 ;;
    tiny-ar-phrasing) accuracy tiny-ar 1000 200 --split phrasing ;;
    tiny-dream) accuracy tiny-dream 300 100 ;;
    tiny-dream-phrasing) accuracy tiny-dream 200 100 --split phrasing ;;
    tiny-block) accuracy tiny-block 1000 200 ;;
    tiny-block-phrasing) accuracy tiny-block 300 100 --split phrasing ;;
    samplers)
      samplers samplers 500 arithmetic $fast
      cp "$folder"/samplers.report/report.{csv,png,svg} "$results/arithmetic"
      cp "$folder/samplers.md" "$results" ;;
    samplers-slow) samplers samplers-slow 500 arithmetic-slow $slow ;;
    samplers-heavy) samplers samplers-heavy 500 arithmetic-heavy $heavy ;;
    frontier) frontier 80 $swept ;;
    functions) functions vanilla threshold threshold,threshold=0.3 ;;
    caches-tiny) caches caches-tiny tiny 500 threshold ;;
    caches-tiny-dream) caches caches-tiny-dream tiny-dream 200 threshold ;;
    caches-samplers) caches caches-samplers tiny 200 $cached ;;
    caches-slow) caches caches-slow tiny 60 $cached_slow ;;
    caches-heavy) caches caches-heavy tiny 60 $cached_heavy ;;
    block-cache)
      "$python" benchmarks/block_cache.py --problems 48 --output "$results/block-cache.md" ;;
    oracle)
      "$python" benchmarks/oracle.py --limit 24 --batch-size 24 >"$folder/oracle.json"
      "$python" -m json.tool --indent 1 "$folder/oracle.json" "$results/oracle.json" ;;
    bounds) "$python" benchmarks/bounds.py --limit 48 >"$results/bounds.json" ;;
    suffix)
      "$python" benchmarks/suffix.py --problems 100 --whole 40 --lengths 128 512 --windows none 0 32 \
        --output "$results/suffix-lengths.json" ;;
    infill)
      "$python" benchmarks/infill.py --allow-code-execution --json "$results/infill-tiny.json" ;;
    convergence) "$python" benchmarks/convergence.py --model tiny --count 40 --batch 20 ;;
    convergence-dream)
      "$python" benchmarks/convergence.py --model tiny-dream --count 40 --batch 20 ;;
    quantization)
      "$python" benchmarks/quantization.py --models tiny tiny-ar |
        tee /dev/stderr | sed -n "/held-out/,\$p" >"$results/quantization.md" ;;
    spec) speculation --count 12 --ngram-texts 4000 --output "$results/speculation-tiny.json" ;;
    spec-batch)
      for batch in 8 1; do
        speculation --count 8 --batch $batch --ngram-texts 2000 --max-new-tokens 96 \
          --rows "+ adaptive length" FailFast "lattice tree" suffix "recycling + suffix"
      done ;;
    spec-long)
      speculation --count 24 --ngram-texts 10 \
        --rows "n-grams + recycling" "long n-grams + recycling (texts)" ;;
    spec-bfloat16) speculation --count 40 --dtype bfloat16 ;;
    spec-frequent)
      speculation --count 6 --ngram-texts 2000 --max-new-tokens 64 --draft-length 8 \
        --frequent 1535 1024 512 256 128 \
        --rows "the verifier, 1024 ids" "the verifier, 512 ids" "the verifier, 256 ids" ;;
    spec-step) "$python" benchmarks/speculation_step.py ;;
    overlap) "$python" benchmarks/overlap.py ;;
    *) echo "no measurement $1" >&2 && return 2 ;;
  esac
}

all="tiny tiny-ar tiny-dream tiny-block tiny-phrasing tiny-ar-phrasing tiny-dream-phrasing
  tiny-block-phrasing spec spec-long spec-batch spec-frequent spec-step overlap samplers caches-tiny
  caches-tiny-dream caches-samplers frontier block-cache functions oracle bounds suffix infill convergence
  convergence-dream quantization
  samplers-slow samplers-heavy caches-slow caches-heavy spec-bfloat16"
# shellcheck disable=SC2086
for name in ${*:-$all}; do
  [ -e "$folder/$name.txt" ] && continue
  echo "== $(date +%T) $name"
  measure "$name" >"$folder/$name.part"
  mv "$folder/$name.part" "$folder/$name.txt"
done
