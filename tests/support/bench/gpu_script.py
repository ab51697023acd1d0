"""What the tests of bench/gpu.sh share: stand-ins for its programs, and the statuses of steps."""

# Logs how it was called; ends as the name of the program says in $FAKE ("run=7 yardsticks=slow")
FAKE_PYTHON = """#!/bin/bash
echo "$@" >>"$CALLS"
for rule in $FAKE; do
  if [[ "$*" == *"${rule%=*}"* ]]; then
    [ "${rule#*=}" = slow ] && { sleep 30 & wait; }
    exit "${rule#*=}"
  fi
done
echo "• figure of $2"
echo "== 5 passed in 1 s =="
"""
FAKE_SANITIZER = """#!/bin/bash
echo "sanitizer $@" >>"$CALLS"
echo "========= $SUMMARY"
"""


def statuses(found, stage="steps"):
    return [(row["step"], row["status"]) for row in found[stage]["steps"]]
