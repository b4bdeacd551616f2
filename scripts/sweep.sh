#!/usr/bin/env bash
# Trains every configuration of a list on every category with every seed, and keeps one JSON line of each run.
#
#   scripts/sweep.sh --data DIR --out DIR [--categories a,b] [--seeds 1,2,3] [--jobs N] LIST
#
# LIST is a file of lines "NAME FLAGS", the flags being those of bin/train; empty lines and lines that start with # are
# passed over. Runs go to OUT/NAME/seed-S/CATEGORY, as many at a time as --jobs says (default 1, each with all
# threads; with more, each has one thread), and their lines to OUT/results.jsonl: configuration, category, seed and what
# metrics.json says. What has its line is skipped, and what was interrupted goes on where it stopped, so the same command
# again finishes a sweep. Runs that fail are named at the end, and their output is in OUT/NAME/seed-S/CATEGORY.log.
set -euo pipefail
source "$(dirname "$0")/common.sh"

data='' out='' categories='' seeds=1 jobs=1 list=''
while [ $# -gt 0 ]; do
  case "$1" in
    --data | --out | --categories | --seeds | --jobs)
      [ $# -ge 2 ] || fail 2 "$1 needs a value; see --help"
      declare "${1#--}=$2"
      shift 2 ;;
    -*) unknown "$1" ;;
    *)
      [ -z "$list" ] || fail 2 "one LIST is enough, got $list and $1"
      list=$1
      shift ;;
  esac
done
[ -n "$data" ] && [ -n "$out" ] && [ -n "$list" ] || fail 2 "--data, --out and LIST are needed; see --help"
[ -d "$data" ] || fail 2 "no folder $data"
[ -f "$list" ] || fail 2 "no file $list"
[[ $jobs =~ ^[1-9][0-9]*$ ]] || fail 2 "--jobs $jobs; use 1 or more"
if [ -z "$categories" ]; then
  categories=$(cd "$data" && for d in */; do [ ! -d "${d}train" ] || echo "${d%/}"; done | paste -sd,)
fi
[ -n "$categories" ] || fail 2 "$data holds no folder with train in it; name them with --categories"
train=$(cd "$(dirname "$0")/.." && pwd)/bin/train
[ -x "$train" ] || fail 2 "no $train; run scripts/build.sh"

mkdir -p "$out"
results=$out/results.jsonl
touch "$results"
exec 9>"$out/lock"
flock -n 9 || fail 2 "another sweep is writing to $out"
if [ -s "$results" ] && [ -n "$(tail -c1 "$results")" ]; then sed -i '$d' "$results"; fi # a line cut short by a kill

# run NAME FLAGS CATEGORY SEED
run() {
  local name=$1 flags=$2 category=$3 seed=$4 folder=$out/$1/seed-$4 threads=()
  local key="{\"name\":\"$name\",\"category\":\"$category\",\"seed\":$seed,"
  grep -qF -- "$key" "$results" && return
  mkdir -p "$folder"
  [ "$jobs" -eq 1 ] || threads=(--threads 1 --workers 1)
  local how=--resume
  [ ! -f "$folder/$category/metrics.json" ] || how=--overwrite # finished, but its line is gone
  # shellcheck disable=SC2086
  if ! "$train" --data "$data/$category" --out "$folder" --seed "$seed" "${threads[@]}" $flags $how \
    >"$folder/$category.log" 2>&1; then
    echo "sweep: $name, $category, seed $seed failed: $(tail -n1 "$folder/$category.log")" >&2
    return 1
  fi
  local line
  line=$key\"metrics\":$(sed 's/^ *//' "$folder/$category/metrics.json" | tr -d '\n')}
  (
    flock 8
    printf '%s\n' "$line" >&8
  ) 8>>"$results"
  echo "sweep: $name, $category, seed $seed done"
}

failed=0
drain() { wait -n || failed=1; }
running=0
for seed in ${seeds//,/ }; do
  while IFS= read -r line || [ -n "$line" ]; do
    name=${line%% *} flags=''
    [[ $line != *' '* ]] || flags=${line#* }
    [[ -n $name && $name != \#* ]] || continue
    [[ $name =~ ^[A-Za-z0-9._+-]+$ ]] || fail 2 "$list: the name $name may hold letters, digits and ._+- alone"
    for category in ${categories//,/ }; do
      if [ "$running" -ge "$jobs" ]; then
        drain
        running=$((running - 1))
      fi
      run "$name" "$flags" "$category" "$seed" </dev/null &
      running=$((running + 1))
    done
  done <"$list"
done
while [ "$running" -gt 0 ]; do
  drain
  running=$((running - 1))
done
exit "$failed"
