#!/bin/bash
# Everything of this project that needs a GPU, offline and in under ten minutes.
#
#   bench/gpu.sh                all steps, in the order below
#   bench/gpu.sh build test     these steps only
#
#   machine      what is here: card, driver, compilers, versions
#   build        the package against the torch that is installed; `mlpkern info`
#   test         the test suite, as far as it runs on the backend cuda
#   triton       a copy without the native libraries: the test suite on the backend triton, and a
#                short training of the lecture's model on it
#   device       streams, CUDA graphs, several GPUs, bad ids, more than 2^31 elements, trainings
#   sanitize     compute-sanitizer: memcheck, racecheck and synccheck of small cases
#   yardsticks   what the card and plain torch can do; needs no kernel of ours
#   seeds        dev losses of 44 seeds in float32 and by TF32 against those of the processor
#   bench        the benchmark
#
# A step that fails or runs out of its time stops no other. At the end stands a summary; the exit
# status is 0 if every step's was. Environment:
#
#   PYTHON                which python (python3)
#   OUT                   folder for gpu.log, gpu.json, yardsticks/ and bench/ (bench/out/gpu; then a
#                         complete benchmark is also kept as bench/results/CARD-DATE.json)
#   MLPKERN_GPU_SECONDS   time for all of it (570)
#   WORDS                 a file of words, one a line, for the trainings (the embedded names)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

steps=(machine build test triton device sanitize yardsticks seeds bench)
declare -A budget=([machine]=25 [build]=240 [test]=110 [triton]=110 [device]=100 [sanitize]=100
                   [yardsticks]=45 [seeds]=45 [bench]=570)

export PYTHON=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export PATH="$PATH:/usr/local/cuda/bin"

step_machine() {
  nvidia-smi
  local status=$?
  nvidia-smi -q -d CLOCK,POWER | grep -E 'Graphics|SM|Memory|Power Limit' | head -20
  echo "processor: $(nproc) cores, $(grep -m1 'model name' /proc/cpuinfo)"
  free -g | head -2
  for tool in nvcc g++ cmake ninja compute-sanitizer cuobjdump; do
    echo "$tool: $( ("$tool" --version 2>&1 || echo missing) | grep -vi copyright | tr '\n' ' ' | cut -c1-200)"
  done
  "$PYTHON" - <<'EOF' || status=1
import importlib.metadata, sys
print("python", sys.version)
for name in "torch triton numpy setuptools cmake ninja pybind11 pytest pytest-xdist".split():
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        print(name, "missing")
import torch
print("CUDA of torch", torch.version.cuda, "devices", torch.cuda.device_count())
print(torch.cuda.get_device_properties(0))
EOF
  return $status
}

step_build() {
  # A missing library is an error here, while an ordinary install says why and goes on.
  export MLPKERN_REQUIRE_NATIVE=1 MLPKERN_REQUIRE_CUDA=1
  if "$PYTHON" -m pip --version; then
    "$PYTHON" -m pip install -v --disable-pip-version-check --no-index --no-build-isolation \
      --no-deps -e . || return
  else
    "$PYTHON" setup.py build_ext --inplace || return
  fi
  "$PYTHON" -m mlpkern info || return
  need_backend
}

# Without the backend its tests are skipped, which must not pass for a success.
need_backend() {
  "$PYTHON" -c 'import mlpkern, sys; b = mlpkern.backends()[sys.argv[1]]
print(f"backend {sys.argv[1]}:", b.detail if b.available else b.reason)
sys.exit(not b.available)' "${1:-cuda}"
}

# pytest without the plugins of other projects in the same environment: their warnings are errors.
run_pytest() {
  PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$PYTHON" -m pytest -p no:cacheprovider -rfE --tb=short "$@"
}

has() { "$PYTHON" -c "import $1" 2>/dev/null; }

# run_suite WORD PROCESSES MORE...: the tests with that word in their names
run_suite() {
  local word=$1 more=()
  has pytest_timeout && more+=(-p pytest_timeout --timeout=60 --timeout-method=thread)
  has xdist && more+=(-p xdist.plugin -n "$2")
  shift 2
  run_pytest -v "${more[@]}" -k "$word" --ignore-glob='*/test_cuda_*' "$@" tests
}

step_test() {
  need_backend || return
  run_suite "cuda and not triton" 4 --ignore-glob='*/test_gpu_*' # the step `device`
}

step_triton() {
  local folder
  folder=$(mktemp -d)
  cp -r mlpkern tests bench pyproject.toml "$folder" && rm -f "$folder"/mlpkern/*.so || return
  # An editable install would still find the one of the tree.
  echo 'raise ImportError("left out here")' >"$folder/mlpkern/_C.py"
  (cd "$folder" && PYTHONPATH=$folder TRITON_CACHE_DIR=$folder/cache triton_alone)
  local status=$?
  rm -rf "$folder"
  return $status
}

# The working directory is a copy without the native libraries.
triton_alone() {
  local status=0
  "$PYTHON" -c 'import mlpkern, sys; b = mlpkern.backends()
print(mlpkern.__file__, {name: b[name].available for name in b})
sys.exit(b["cpu"].available or b["cuda"].available)  # a native library is still there' || return
  need_backend triton || return
  # Compiling takes most of the time: many processes, and each kernel in one configuration. The
  # tests of the offline compiler and of the benchmark need no card.
  MLPKERN_TRITON_TUNE=0 run_suite triton 8 --ignore=tests/test_triton_build.py \
    --ignore-glob='*/test_bench*' || status=1
  MLPKERN_BACKEND=triton "$PYTHON" -m mlpkern train --preset lecture --steps 2000 --log-every 500 \
    --eval-every 2000 --device cuda --out run || status=1
  "$PYTHON" -c 'import json, sys
engine = json.load(open("run/summary.json"))["engine"]
sys.exit(engine != "ops" and f"the engine was {engine}")' || status=1
  return $status
}

step_device() {
  need_backend || return
  # not test_cuda_build.py, which needs nvcc and no card, nor what the step `triton` runs
  run_pytest -v --durations=5 --ignore=tests/test_cuda_build.py -k "not gpu_device or cuda" \
    tests/test_cuda_*.py tests/test_gpu_device.py tests/test_gpu_training.py
}

step_sanitize() {
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is missing"; return 1; }
  local folder tool status=0 help filter=()
  folder=$(mktemp -d)
  # Our kernels only, by their namespace: checking those of torch takes minutes. The option's name
  # depends on the version. The three tools run side by side, each on a program of its own.
  help=$(compute-sanitizer --help 2>&1)
  if grep -q -- --kernel-name <<<"$help"; then
    filter=(--kernel-name kernel_substring=mlpkern)
  elif grep -q -- --kernel-regex <<<"$help"; then
    filter=(--kernel-regex kns=mlpkern)
  fi
  for tool in memcheck racecheck synccheck; do
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 9 \
      --print-limit 20 "${filter[@]}" \
      "$PYTHON" bench/sanitizer_cases.py >"$folder/$tool" 2>&1 &
    echo $! >"$folder/$tool.pid"
  done
  trap 'kill $(jobs -p) 2>/dev/null' TERM
  for tool in memcheck racecheck synccheck; do
    wait "$(cat "$folder/$tool.pid")"
    local code=$?
    echo "--- $tool: exit status $code"
    tail -n 60 "$folder/$tool"
    # The summary line says that the tool was at work: an exit status of 0 alone does not.
    if [ $code -ne 0 ] || ! grep -qE 'ERROR SUMMARY: 0|RACECHECK SUMMARY: 0' "$folder/$tool"; then
      status=1
    fi
  done
  rm -r "$folder"
  return $status
}

step_yardsticks() { "$PYTHON" bench/yardsticks.py --out "$OUT/yardsticks"; }

step_seeds() {
  need_backend || return
  "$PYTHON" bench/seeds.py --device cuda --seeds 44 --threads "$(nproc)" ${WORDS:+--file "$WORDS"}
}

step_bench() {
  # With an empty cache the first call of a row is what it costs whoever makes it for the first time.
  local cache status
  cache=$(mktemp -d)
  # The last case that begins may take a minute.
  TRITON_CACHE_DIR="$cache" "$PYTHON" bench/run.py --device cuda \
    --seconds $((LIMIT > 80 ? LIMIT - 60 : 20)) --out "$OUT/bench" ${RECORD:+--record} \
    ${WORDS:+--file "$WORDS"}
  status=$?
  rm -rf "$cache"
  return $status
}

if [ "${1:-}" = --step ]; then
  "step_$2"
  exit
fi

chosen=("${@:-${steps[@]}}")
for step in "${chosen[@]}"; do
  [ -n "${budget[$step]:-}" ] || { echo "bench/gpu.sh: no step $step; there are: ${steps[*]}" >&2; exit 2; }
done
RECORD=
[ -n "${OUT:-}" ] || { OUT=bench/out/gpu; RECORD=1; }
mkdir -p "$OUT" || exit 2
OUT=$(cd "$OUT" && pwd)
export OUT RECORD
[ -z "${WORDS:-}" ] || export WORDS
total=${MLPKERN_GPU_SECONDS:-570}
: >"$OUT/gpu.log"
summary=() rows=() failed=0
SECONDS=0
for i in "${!chosen[@]}"; do
  step=${chosen[$i]}
  left=$((total - SECONDS))
  # steps before `bench` leave it a quarter of the time
  [[ $step != bench && " ${chosen[*]:$i} " == *" bench "* ]] && left=$((left - total / 4))
  limit=$((left < budget[$step] ? left : budget[$step]))
  if [ $limit -lt 5 ]; then
    code=124 took=0 note="no time was left"
  else
    echo "=== $step (at most $limit s)"
    log=$(mktemp)
    began=$SECONDS
    LIMIT=$limit timeout -s TERM -k 10 "$limit" bash "$0" --step "$step" >"$log" 2>&1 </dev/null
    code=$? took=$((SECONDS - began)) note=
    [ $code -eq 124 ] || [ $code -eq 137 ] && note="ran out of its $limit s"
    { echo "=== $step: exit status $code, $took s"; cat "$log"; echo; } >>"$OUT/gpu.log"
    tail -n $((code == 0 ? 8 : 40)) "$log" | cut -c1-200
    case $step in
    test | triton | device) note="${note:+$note; }$(grep -E '^=+ .*(passed|failed|error|skipped|no tests)' "$log" | tail -1 | tr -d '=')" ;;
    esac
    rm "$log"
  fi
  [ "$code" -eq 0 ] || failed=1
  summary+=("$(printf '%-11s exit status %-4s %4d s  %s' "$step" "$code" "$took" "$note")")
  rows+=("  {\"step\": \"$step\", \"status\": $code, \"seconds\": $took, \"note\": \"$(tr -d '"\\' <<<"$note" | xargs)\"}")
done
{
  echo '{'
  echo " \"date\": \"$(date -u +%FT%TZ)\","
  echo " \"commit\": \"$(git describe --always --dirty 2>/dev/null || echo "${MLPKERN_COMMIT:-unknown}")\","
  echo " \"seconds\": $SECONDS,"
  echo ' "steps": ['
  printf '%s\n' "${rows[@]}" | sed '$!s/$/,/'
  echo ' ]'
  echo '}'
} >"$OUT/gpu.json"
echo "=== summary: $SECONDS s, files in $OUT"
printf '%s\n' "${summary[@]}" | tee -a "$OUT/gpu.log"
exit $failed
