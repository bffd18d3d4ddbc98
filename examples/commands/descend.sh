#!/bin/sh
# Finds the root of x^2 = target by Newton's steps; one number a line, the last one is the result.
#   descend.sh STEPS
# Reads its other parameters from $RUNONCE_PARAMS, a JSON file; leaves what it makes in $RUNONCE_OUTPUT.
set -eu
steps=$1
target=$(sed -nE 's/.*"target": ([0-9.]+).*/\1/p' "$RUNONCE_PARAMS")
x=$target
i=0
: > "$RUNONCE_OUTPUT/steps.txt"
while [ "$i" -lt "$steps" ]; do
  x=$(awk -v x="$x" -v t="$target" 'BEGIN { printf "%.12f", (x + t / x) / 2 }')
  echo "$x" >> "$RUNONCE_OUTPUT/steps.txt"
  i=$((i + 1))
done
echo "$x" > "$RUNONCE_OUTPUT/root.txt"
