#!/usr/bin/env bash
# The whole way in one command: sets up, builds, makes a sample data set, trains, evaluates, scores single images.
#
#   scripts/demo.sh          everything it makes goes to the checkout's folder demo
#   scripts/demo.sh DIR      or to DIR
set -euo pipefail
source "$(dirname "$0")/common.sh"
case "${1:-}" in -*) unknown "$1" ;; esac
[ $# -le 1 ] || unknown "$2"
out=${1:+$(realpath -m "$1")}
cd "$(dirname "$0")/.."
out=${out:-demo}

# Only what an earlier demo made is replaced.
if [ -e "$out" ] && [ ! -e "$out/.rdpp-demo" ]; then
  fail 1 "$out is there and no earlier demo made it; name another folder: scripts/demo.sh DIR"
fi

scripts/setup.sh
scripts/build.sh

rm -rf "$out"/{data,run,heatmaps,images}
mkdir -p "$out"
touch "$out/.rdpp-demo"
bin/train sample --out "$out/data" --category part

echo
# The teacher is the built-in one that has learned from ImageNet, or torchvision's weights where somebody has put them
# (see README).
# At 128 pixels these settings take a minute on two cores.
bin/train --data "$out/data/part" --out "$out/run" --arch resnet18 \
  --image-size 128 --epochs 30 --batch 8 --accumulate 1
model=$out/run/part/model.safetensors

echo
bin/infer eval --model "$model" --data "$out/data/part"

echo
mkdir "$out/images"
for type in "$out"/data/part/test/*; do cp "$type/000.png" "$out/images/$(basename "$type").png"; done
# Exit code 3 says that something is anomalous, which is what we came for.
bin/infer image --model "$model" --heatmap "$out/heatmaps" "$out/images" || [ $? -eq 3 ]

echo
echo "demo: model:    $model"
echo "demo: pictures: $out/heatmaps, of the images in $out/images"
echo "demo: results:  $out/run/part/metrics.json, history.csv"
