#!/usr/bin/env bash
# Builds everything and installs it under a folder: bin/train, bin/infer, the libraries with librdpp.so, its headers, rdpp.py,
# Rdpp.cs and pkg-config file, examples, manual pages, completions, LICENSE and NOTICE. The folder may be moved afterwards.
# Needs patchelf beside what scripts/setup.sh installs.
#
#   scripts/install.sh /opt/rdpp
#   LIBTORCH=DIR scripts/install.sh /opt/rdpp    against another libtorch than the system's
set -euo pipefail
source "$(dirname "$0")/common.sh"
case "${1:-}" in -*) unknown "$1" ;; esac
[ -n "${1:-}" ] || fail 2 "PREFIX is needed; see --help"
[ $# = 1 ] || unknown "$2"
prefix=$1
command -v patchelf >/dev/null || fail 1 "patchelf is missing; apt-get install patchelf"
prefix=$(realpath -m "$prefix")
cd "$(dirname "$0")/.."

scripts/build.sh
source build/env.sh
go build -buildmode=c-shared -tags codecs_shared -ldflags '-extldflags=-Wl,-soname,librdpp.so' -o build/lib/librdpp.so ./infer/capi
rm build/lib/librdpp.h # cgo's, which infer/capi/rdpp.h takes the place of
cmake --install build --prefix "$prefix" >build/install.log || { cat build/install.log >&2; exit 1; }

# Nothing may point into the build tree.
for file in "$prefix"/bin/train "$prefix"/bin/infer "$prefix"/lib/lib{rdpp,rdpptorch,cgotorch}.so; do
  if patchelf --print-rpath "$file" | tr : '\n' | grep -vFx "${LIBTORCH:-/none}/lib" | grep -v '^\$ORIGIN' | grep .; then
    echo "install: $file looks for libraries in the folder above" >&2
    exit 1
  fi
done
for program in train infer; do
  for completions in "bash bash-completion/completions/$program" "zsh zsh/site-functions/_$program" \
    "fish fish/vendor_completions.d/$program.fish"; do
    read -r shell file <<<"$completions"
    mkdir -p "$(dirname "$prefix/share/$file")"
    "$prefix/bin/$program" completion "$shell" >"$prefix/share/$file"
  done
  mkdir -p "$prefix/share/man/man1"
  "$prefix/bin/$program" man >"$prefix/share/man/man1/$program.1"
done
for file in LICENSE NOTICE; do
  cmp -s "$file" "$prefix/share/doc/rdpp/$file" || { echo "install: $file is not in $prefix/share/doc/rdpp" >&2; exit 1; }
done
echo "install: $prefix ($("$prefix/bin/infer" --version | head -n 1))"
