#!/usr/bin/env bash
# Judges a teacher by what RD++ reaches with it: trains on every category with three seeds, keeps the last epoch.
#
#   scripts/judge_teacher.sh DIR TEACHER [EPOCHS]
#
# DIR holds categories in MVTec AD's layout; TEACHER is what train --teacher takes, for resnet18. EPOCHS: default 20.
# Prints image and pixel AUROC per run and their means. What the runs measured is kept in judged/, so that a second call goes on where
# the first one was stopped.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
data=$(realpath "$1") teacher=$2 epochs=${3:-20}
[ ! -e "$teacher" ] || teacher=$(realpath "$teacher")
cd "$(dirname "$0")/.."
name=$(basename "$teacher" .safetensors)-$epochs
mkdir -p judged

# A number of metrics.json, or - where there is none.
value() { grep -o "\"$1\": *[0-9.e-]*" "$2" | head -1 | sed 's/.*: *//' | grep . || echo -; }

for seed in 1 2 3; do
  for path in "$data"/*/train/good; do
    category=$(basename "$(dirname "$(dirname "$path")")")
    run=judged/$name/seed$seed metrics=judged/$name/seed$seed/$category/metrics.json
    if [ ! -e "$metrics" ]; then
      mkdir -p "$run"
      bin/train --data "$data/$category" --out "$run" --arch resnet18 --teacher "$teacher" --epochs "$epochs" \
        --seed "$seed" --resume >"$run/$category.log" 2>&1 || { tail -1 "$run/$category.log" >&2; exit 1; }
      rm "$run/$category"/{checkpoint,model.safetensors}
    fi
    echo "$category $seed $(value image_auroc "$metrics") $(value pixel_auroc "$metrics")"
  done
done | tee "judged/$name.txt" | awk '
  BEGIN { printf "%-14s %-6s %-12s %s\n", "category", "seed", "image AUROC", "pixel AUROC" }
  { printf "%-14s %-6s %-12s %s\n", $1, $2, $3, $4; n[$1]++; image[$1] += $3; pixel[$1] += $4 }
  END { for (c in n) printf "%-14s %-6s %-12.4f %s\n", c, "mean", image[c] / n[c], pixel[c] ? sprintf("%.4f", pixel[c] / n[c]) : "-" }'
