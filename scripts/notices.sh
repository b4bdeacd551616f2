#!/usr/bin/env bash
# Writes anew what NOTICE says of the Go modules in the programs, at its end, from the modules themselves, and copies NOTICE
# to rdpp/builtin, which the programs embed. To be called when go.mod has changed; `go test ./infer ./train` says so.
set -euo pipefail
source "$(dirname "$0")/common.sh"
[ $# -eq 0 ] || unknown "$1"
cd "$(dirname "$0")/.."

head='Go, and the Go modules in the programs'
line=$(printf '=%.0s' {1..80})
text=$(mktemp -d)
trap 'rm -rf "$text"' EXIT

# A file per licence text, named by its digest, and beside it the modules that have it: most of Go's share one.
modules=$(for program in ./train ./infer ./infer/capi; do
  go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' $program
done | sort -u)
own() {
  local name=$1 file=$2 key
  key=$(sha256sum "$file" | cut -c1-64)
  cp "$file" "$text/$key.text"
  echo "$name" >>"$text/$key.names"
}
own 'Go, its standard library and runtime' "$(go env GOROOT)/LICENSE"
while read -r name folder; do
  found=''
  for file in "$folder"/LICENSE* "$folder"/UNLICENSE* "$folder"/COPYING* "$folder"/NOTICE* "$folder"/edl-v*; do
    [ -f "$file" ] || continue
    found=yes
    own "$name" "$file"
  done
  [ -n "$found" ] || fail 1 "$name has no licence file in $folder; look for it and add it by hand"
done <<<"$modules"

{
  awk -v head="$head" -v line="$line" '
    { lines[NR] = $0 } $0 == head { last = NR - 2 }
    END { if (!last) last = NR; while (last > 0 && lines[last] == "") last--; for (i = 1; i <= last; i++) print lines[i] }' NOTICE
  printf '\n\n%s\n%s\n%s\n' "$line" "$head" "$line"
  for names in $(grep -l '' "$text"/*.names | while read -r f; do echo "$(head -1 "$f" | tr ' ' '_')=$f"; done | sort | cut -d= -f2); do
    printf '\n%s\n\n' "$(sort -u "$names")"
    if grep -q 'TERMS AND CONDITIONS FOR USE, REPRODUCTION' "${names%.names}.text"; then
      echo '    the Apache License, Version 2.0, as rdpp itself'
    else
      tr -d '\r' <"${names%.names}.text" | sed 's/[[:space:]]*$//; s/^\(.\)/    \1/'
    fi
  done
} >"$text/NOTICE"
cp "$text/NOTICE" NOTICE
cp NOTICE rdpp/builtin/NOTICE
