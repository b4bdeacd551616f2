#!/usr/bin/env bash
# Judges a teacher by what RD++ reaches with it: trains on every category with three seeds, keeps the last epoch.
#
#   scripts/judge_teacher.sh DIR TEACHER [FLAGS OF TRAIN...]
#
# DIR holds categories in MVTec AD's layout; TEACHER is what train --teacher takes, for resnet18: a file, builtin, drawn.
# 20 epochs, and train's default image size for the teacher, unless --epochs and --image-size say otherwise. Prints image
# and pixel AUROC per run and their means. Every run's metrics.json is kept in judged/, under a name that tells teacher,
# flags and program apart, so that a second call goes on where the first one was stopped.
set -euo pipefail
source "$(dirname "$0")/common.sh"
[ $# -ge 2 ] || fail 2 "DIR and TEACHER are needed; see --help"
[ -d "$1" ] || fail 2 "DIR, the first argument, must be a folder; see --help"
data=$(realpath "$1") teacher=$2
shift 2
[ ! -e "$teacher" ] || teacher=$(realpath "$teacher")
cd "$(dirname "$0")/.."
digest=$( (cat bin/train build/lib/*.so; [ ! -f "$teacher" ] || cat "$teacher"; echo "$data $*") | sha256sum | cut -c1-8)
name=$(basename "$teacher" .safetensors)-$digest
mkdir -p "judged/$name"
echo "$teacher $data $*" >"judged/$name/what"

# A number of metrics.json, or - where there is none.
value() { grep -o "\"$1\": *[0-9.e-]*" "$2" | head -1 | sed 's/.*: *//' | grep . || echo -; }

for seed in 1 2 3; do
  for path in "$data"/*/train/good; do
    category=$(basename "$(dirname "$(dirname "$path")")")
    run=judged/$name/seed$seed metrics=judged/$name/seed$seed/$category/metrics.json
    if [ ! -e "$metrics" ]; then
      mkdir -p "$run"
      bin/train --data "$data/$category" --out "$run" --arch resnet18 --teacher "$teacher" --epochs 20 --seed "$seed" \
        --resume "$@" >"$run/$category.log" 2>&1 || { tail -1 "$run/$category.log" >&2; exit 1; }
      rm "$run/$category"/{checkpoint,model.safetensors}
    fi
    echo "$category $seed $(value image_auroc "$metrics") $(value pixel_auroc "$metrics")"
  done
done | tee "judged/$name/results" | awk '
  function mean(sum, n) { return n ? sprintf("%.4f", sum / n) : "-" }
  BEGIN { printf "%-14s %-6s %-12s %s\n", "category", "seed", "image AUROC", "pixel AUROC" }
  { printf "%-14s %-6s %-12s %s\n", $1, $2, $3, $4; fflush(); seen[$1] }
  $3 != "-" { images[$1]++; image[$1] += $3 }
  $4 != "-" { pixels[$1]++; pixel[$1] += $4 }
  END { for (c in seen) printf "%-14s %-6s %-12s %s\n", c, "mean", mean(image[c], images[c]), mean(pixel[c], pixels[c]) }'
