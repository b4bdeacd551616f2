#!/usr/bin/env bash
# Builds the libraries in build/lib, bin/train and bin/infer.
#
#   scripts/build.sh                 against the system's libtorch
#   LIBTORCH=DIR scripts/build.sh    against another one
#
# Afterwards plain `go build`, `go vet` and `go test` work: the linker finds libcgotorch.so in /usr/local/lib, or,
# where this script may not write there or LIBTORCH is set, after `source build/env.sh`.
set -euo pipefail
source "$(dirname "$0")/common.sh"
[ $# = 0 ] || unknown "$1"
cd "$(dirname "$0")/.."

# CMake remembers everything it has found of a libtorch, so another one needs a fresh configuration.
mkdir -p build
fresh=
[ "$(cat build/libtorch 2>/dev/null)" = "${LIBTORCH:-}" ] || fresh=--fresh
cmake $fresh -S . -B build -G Ninja -DLIBTORCH="${LIBTORCH:-}" >build/configure.log 2>&1 ||
  { cat build/configure.log >&2; exit 1; }
printf '%s' "${LIBTORCH:-}" >build/libtorch
grep -E '^-- libtorch' build/configure.log
cmake --build build

# For shells that source it: what Go and the linker must know.
cat >build/env.sh <<ENV
. "$PWD/scripts/env.sh"
export LIBRARY_PATH="$PWD/build/lib${LIBTORCH:+:$LIBTORCH/lib}\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
ENV
source build/env.sh

if [ -z "${LIBTORCH:-}" ] && [ -w /usr/local/lib ]; then
  if ! cmp -s build/lib/libcgotorch.so /usr/local/lib/libcgotorch.so; then
    install -m 644 build/lib/libcgotorch.so /usr/local/lib/.libcgotorch.so.new
    mv /usr/local/lib/.libcgotorch.so.new /usr/local/lib/libcgotorch.so
    ldconfig
  fi
else
  echo "build: before go build, go vet or go test by hand: source build/env.sh"
fi

# The programs name the commit that they are built of, where git tells it; + says that files were changed since.
commit=$(git -c safe.directory="$PWD" rev-parse --short=12 HEAD 2>/dev/null || true)
[ -z "$commit" ] || git -c safe.directory="$PWD" diff --quiet HEAD 2>/dev/null || commit+=+
for program in train infer; do go build -ldflags "-X rdpp/rdpp/document.commit=$commit" -o bin/$program ./$program; done
echo "build: bin/train, bin/infer, build/lib"
