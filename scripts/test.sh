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
  # It asks for more memory than there can be, and wants an error.
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 build/sanitize/smoke
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

step 'go test with the race detector'
# Whole packages. Where networks are at work the time goes by in C++, which the detector leaves alone. onnxfile computes
# them in plain Go, without goroutines; what decoding takes in memory is measured without the detector, which takes some,
# and bounds of memory are tried without it.
go test -race -count=1 -timeout 60m -skip '^(TestCostBoundsMemory|TestOPCUAOutOfMemory)$' $(go list ./... | grep -vxE 'rdpp/(rdpp/onnxfile|infer/server)')
go test -race -count=1 -timeout 30m ./infer/server # alone, as its clients and its process share the machine
step 'go test without the race detector'
go test ./rdpp/onnxfile
go test -run '^TestCostBoundsMemory$' ./rdpp/imagefile
go test -run '^TestOPCUAOutOfMemory$' ./rdpp/plc
if [ -n "$slow" ]; then
  step 'the tarball runs by itself'
  scripts/package_check.sh
  step go test of large networks and long runs
  go test -count=1 -timeout 40m ./torch ./rdpp ./rdpp/reverse ./train -args -slow
  go test -count=1 -timeout 20m ./infer/server -args -slow # alone, as it measures latencies
  go test -count=1 -timeout 20m -run '^TestWorkersKilled$' ./infer -args -slow
  go test -count=1 -timeout 20m -run '^TestSoak$' ./infer -args -soak 2m -soak-kill 20s
fi
