#!/bin/bash
# Everything of this project that needs a GPU, offline, in stages of at most nine minutes.
#
#   bench/gpu.sh prepare [PYTHON]   on a machine with nvcc, no GPU needed: builds the libraries for
#                                   the Python (a version or a path) of the machine with the GPU
#   bench/gpu.sh 1                  first: does it work, and how fast is it? (6 minutes)
#                                   machine, build, smoke, memory, figures, counters
#   bench/gpu.sh 2                  the tests (9 minutes)
#                                   build, device, test, sanitize, compile, triton, seeds
#   bench/gpu.sh 3                  the benchmark (9 minutes): build, bench, yardsticks
#   bench/gpu.sh                    all three
#   bench/gpu.sh NAME...            these steps
#   bench/gpu.sh --rehearse [NAME]  the same without a GPU: every line that needs none
#
# bench/gpu/steps.py says what each step is. A step that fails or runs out of time does not stop the
# others; the summary comes last, and the exit status is 0 if every step succeeded. Environment:
#
#   PYTHON                which python (python3)
#   OUT                   folder for stage1/, stage2/, stage3/, steps/ (bench/out/gpu; then a
#                         complete benchmark is also kept as bench/results/CARD-DATE.json)
#   MLPKERN_GPU_SECONDS   time for all of it (that of the stages)
#   MLPKERN_COMMIT        the commit of a tree that has no .git
#   WORDS                 a file of words, one a line, for the trainings (the embedded names)
here=$(cd "$(dirname "$0")" && pwd) || exit 2
exec "${PYTHON:-python3}" "$here/gpu/stages.py" "$@"
