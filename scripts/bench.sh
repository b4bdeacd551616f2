#!/usr/bin/env bash
# Measures the figures of speed and memory in BENCHMARKS.md on this machine: eight minutes on two cores. Let nothing else
# run. The results on data take hours, by the commands that stand beside them.
#
#   scripts/bench.sh                 on a made-up data set
#   scripts/bench.sh DIR             the epoch on a data set of your own, such as MVTec's transistor
#
# With a GPU and a CUDA libtorch the networks are measured on both; without, what needs one is named and left out.
set -euo pipefail
source "$(dirname "$0")/common.sh"
case "${1:-}" in -*) unknown "$1" ;; esac
[ $# -le 1 ] || unknown "$2"
if [ -n "${1:-}" ] && [ ! -d "$1" ]; then fail 1 "no folder is at $1; name that of a data set"; fi
data=${1:+$(realpath "$1")}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
scripts/build.sh >/dev/null
source build/env.sh

step() { printf '\n== %s\n' "$*"; }

# bench PACKAGE BENCHMARKS [flags of go test]: the lines with figures
bench() {
  local package=$1 which=$2 output
  shift 2
  output=$(go test "$package" -run - -bench "$which" "$@" 2>&1) || { echo "$output" >&2; return 1; }
  grep '^Benchmark' <<<"$output"
}

step machine
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //' || uname -m
echo "$(nproc) logical processors, load $(cut -d' ' -f1 /proc/loadavg), $(go env GOVERSION)"
devices=(cpu)
if grep -q 'CUDA ON' build/configure.log && command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null; then
  devices+=(cuda)
else
  echo "no GPU, or no CUDA libtorch: what needs one is left out, which is prediction by CUDA graphs, training steps, epochs and infer bench there," \
    "tf32, and the memory of a device"
fi

for device in "${devices[@]}"; do
  step "one image, normalised in memory, to map and score ($device)"
  bench ./rdpp Predict -benchtime 40x -args -device "$device"
  step "a training step of 16 images ($device)"
  bench ./rdpp TrainingStep -benchtime 6x -args -device "$device" # fp32
done

step "the evaluation of 100 images, over predicting them"
bench ./rdpp Evaluation -benchtime 2x

step "an epoch, from files to history; then models as infer serves them"
if [ -z "$data" ]; then
  data=$work/data/part
  bin/train sample --out "$work/data" --category part --train 213 --test-good 60 --test-defect 10 >/dev/null
fi
for device in "${devices[@]}"; do
  precisions=(fp32 bf16)
  [ "$device" = cpu ] || precisions=(fp32 tf32 bf16)
  for precision in "${precisions[@]}"; do
    run=$work/$device-$precision
    bin/train --data "$data" --out "$run" --arch resnet18 --image-size 256 --epochs 3 --calibration 0 \
      --teacher random --device "$device" --precision "$precision" >/dev/null
    echo "$device, $precision: seconds per epoch $(cut -d, -f8 "$run"/*/history.csv | grep -v seconds | tr '\n' ' ')"
  done
  models=("$run"/*/model.safetensors)
  for precision in "${precisions[@]}"; do
    bin/infer bench --model "${models[0]}" --device "$device" --precision "$precision" --batch 1,8 --seconds 8
  done
done

step "decoding, resizing, noise and batches: one goroutine"
bench ./rdpp/imagefile Decode
bench ./rdpp/dataset 'Resize|Loader'
bench ./rdpp/simplex Batch16

step "metrics and curves of 100 maps, and of as many pixels as MVTec AD's test set has"
bench ./rdpp/metric Evaluation100
bench ./rdpp/metric FullMVTec -benchtime 1x -full

step "a tensor handle, through gotorch"
bench ./torch Handle

# logged PACKAGE TEST [flags of the test]: what the test logs
logged() {
  local package=$1 which=$2 output
  shift 2
  output=$(go test "$package" -count=1 -run "$which" -v -args -slow "$@" 2>&1) || { echo "$output" >&2; return 1; }
  grep '_test.go' <<<"$output"
}

step "memory: a training step and a prediction at 256, batch 4"
logged ./rdpp Fits

step "the service: 200 clients in another process, 60 s"
logged ./infer/server TestProcessUnderLoad -load 60s
