#!/usr/bin/env bash
# Measures training and prediction alone and beside one busy process per processor, side by side: as they come, and with
# OMP_WAIT_POLICY passive and GOMP_SPINCOUNT 300000, which is libgomp's own. Ten minutes on two cores. "Alone" wants a
# machine where nothing else runs.
#
#   scripts/contention.sh [ROUNDS]   as often, in turn; default 3
#
# Goals: alone at least 0.97 of libgomp's own; beside busy processes at least 0.4 of alone, which is 0.8 of the half of
# the machine that the scheduler gives.
set -euo pipefail
source "$(dirname "$0")/common.sh"
rounds=${1:-3}
[ $# -le 1 ] || unknown "$2"
[[ "$rounds" =~ ^[1-9][0-9]*$ ]] || unknown "$rounds"
cd "$(dirname "$0")/.."
work=$(mktemp -d)
busy=()
calm() {
  [ ${#busy[@]} -eq 0 ] || kill "${busy[@]}" 2>/dev/null || true # they may have ended with this script
  wait
  busy=()
}
trap 'calm; rm -rf "$work"' EXIT
scripts/build.sh >/dev/null
source build/env.sh

bin/train sample --out "$work/data" --category part --train 16 --test-good 1 --test-defect 1 --size 64 >/dev/null

# measure WHERE NAME=VALUE: images per second of training, resnet18 at 64 pixels, from the second epoch on, and of prediction
measure() {
  env "$2" bin/train --data "$work/data/part" --out "$work/run" --arch resnet18 --image-size 64 --teacher random \
    --precision fp32 --calibration 0 --epochs 8 --overwrite >/dev/null 2>&1
  local training prediction
  training=$(tail -n +3 "$work/run/part/history.csv" | awk -F, '{ n += $1 ? 1 : 0; t += $8 } END { printf "%.2f", 16 * n / t }')
  prediction=$(env "$2" bin/infer bench --model "$work/run/part/model.safetensors" --seconds 5 --json |
    sed 's/.*"images_per_second":\([0-9.]*\).*/\1/')
  printf '%-8s %-26s training %6.1f images/s, prediction %6.1f images/s\n' "$1" "$2" "$training" "$prediction"
}

for ((round = 0; round < rounds; round++)); do
  for where in alone busy; do
    if [ "$where" = busy ]; then
      for ((i = 0; i < $(nproc); i++)); do
        (while :; do :; done) &
        busy+=($!)
      done
    fi
    for how in RDPP_DEFAULT= OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=300000; do measure "$where" "$how"; done
    calm
  done
done
