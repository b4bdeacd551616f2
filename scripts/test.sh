#!/usr/bin/env bash
# Sets up, builds, and runs every check and test.
#
#   scripts/test.sh           the quick tests
#   scripts/test.sh --slow    also those that take minutes and gigabytes
set -euo pipefail
source "$(dirname "$0")/common.sh"
slow=
case "${1:-}" in
"") ;;
--slow) slow=-slow ;;
*) unknown "$1" ;;
esac
[ $# -le 1 ] || unknown "$2"
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step set-up and build
scripts/setup.sh --all
scripts/build.sh
source build/env.sh

step formatting
# ours SUFFIX...: the files of these kinds, in a source tarball or without git too
ours() {
  local suffixes
  suffixes=$(IFS='|' && echo "$*")
  find . \( -path ./.git -o -path ./bin -o -path ./build -o -path ./demo -o -path ./judged -o -path ./runs \) -prune \
    -o -type f -regextype egrep -regex ".*\.($suffixes)" -print0
}
unformatted=$(ours go | xargs -0 gofmt -l)
[ -z "$unformatted" ] || fail 1 "gofmt would change: $unformatted"
ours cpp hpp h c | xargs -0 clang-format-19 --dry-run -Werror

step go vet, staticcheck, tidy modules
go vet ./...
go mod tidy -diff
GOBIN="$PWD/build/tools" go install honnef.co/go/tools/cmd/staticcheck@v0.8.2
build/tools/staticcheck ./...

step 'scripts answer --help and refuse unknown arguments'
for script in scripts/*.sh; do
  [ -x "$script" ] || continue # the other two are sourced
  for help in --help -h; do
    text=$("$script" $help </dev/null) || fail 1 "$script $help failed"
    [[ $text == [A-Z]* ]] || fail 1 "$script $help says: $text"
  done
  code=0
  "$script" --no-such-argument </dev/null >/dev/null 2>&1 || code=$?
  [ $code = 2 ] || fail 1 "$script --no-such-argument: got exit code $code, want 2"
done

step 'CMake and several libtorches'
scripts/libtorch_check.sh

step 'the C boundary from C (with --slow under sanitizers)'
if [ -n "$slow" ]; then
  cmake -S . -B build/sanitize -G Ninja -DLIBTORCH="${LIBTORCH:-}" -DRDPP_SANITIZE=ON >/dev/null
  cmake --build build/sanitize --target smoke
  ASAN_OPTIONS=detect_leaks=0 build/sanitize/smoke
else
  cmake --build build --target smoke run_script
  build/smoke
fi

step other libtorch headers
if [ -n "${RDPP_HEADERS:-}" ]; then
  scripts/compile_check.sh "$RDPP_HEADERS"
else
  echo "skipped: RDPP_HEADERS names no include folder of another libtorch"
fi

step onnxruntime, which exported models are run by
[ -n "${RDPP_ONNXRUNTIME:-}" ] || scripts/onnxruntime.sh

step go test
# These and infer/server know -slow. Of the others, only imagefile and those below infer have to do with C.
networks=(./torch ./rdpp ./train)
# -count=1: Go's cache of results does not see a change in the C++ libraries.
go test -race -count=1 -run 'Worker|Detector|Close|Image|Stdin' ./torch ./rdpp ./infer
go test -race -count=1 -run 'Queue|Batches|Leaving|Graceful|Folder|LoadAndUnload|File' ./infer/server
others=$(go list ./... | grep -vxE 'rdpp/(torch|rdpp|rdpp/onnxfile|train|infer|infer/(server|bench|capi))')
# What decoding takes in memory is measured without the race detector, which takes some itself.
go test -race -skip '^TestCostBoundsMemory$' $others
go test -run '^TestCostBoundsMemory$' ./rdpp/imagefile
go test ./rdpp/onnxfile # which has no goroutines, and computes networks in plain Go
go test -count=1 -timeout 20m ./infer ./infer/bench ./infer/capi
if [ -n "$slow" ]; then
  step 'the tarball runs by itself'
  scripts/package_check.sh
fi
step go test of the networks
go test -count=1 -timeout 40m "${networks[@]}" ${slow:+-args $slow}
go test -count=1 -timeout 20m ./infer/server ${slow:+-args $slow} # alone, as it measures latencies
