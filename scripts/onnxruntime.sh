#!/usr/bin/env bash
# Puts onnxruntime's CPU library, with which tests run exported models, into build/onnxruntime: out of the npm package
# onnxruntime-node, of which nothing is executed. Quick where it is there already. Needs npm and, once, 110 MB.
set -euo pipefail
source "$(dirname "$0")/common.sh"
[ $# = 0 ] || unknown "$1"
cd "$(dirname "$0")/.."

version=1.30.0
sha512=b7086cd42d82fc1164cf5c9ce4e634288536194aba0d444eee10f86f1e50d90cb79c0309c115d6f31537355733136f5503d96894b3987a9a03f1f8d318e7c8ab
library=libonnxruntime.so.1
target=build/onnxruntime

[ "$(cat $target/version 2>/dev/null)" != "$version" ] || exit 0
case "$(uname -s)-$(uname -m)" in
Linux-x86_64) platform=linux/x64 ;;
Linux-aarch64) platform=linux/arm64 ;;
*)
  fail 1 "the package has no library for $(uname -s) on $(uname -m); name one: RDPP_ONNXRUNTIME=FILE"
  ;;
esac
command -v npm >/dev/null || fail 1 "npm is missing; install Debian's package npm"

mkdir -p build
work=$(mktemp -d build/.onnxruntime.XXXXXX)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent --ignore-scripts "onnxruntime-node@$version" >/dev/null)
archive=$work/onnxruntime-node-$version.tgz
echo "$sha512  $archive" | sha512sum --check --quiet ||
  fail 1 "$archive is not the version $version that this script knows; fetch it again"
tar -xzf "$archive" -C "$work" --strip-components=5 "package/bin/napi-v6/$platform/$library"
rm -rf $target
mkdir $target
mv "$work/$library" $target/
echo "$version" >$target/version  # last: says that all is there
echo "onnxruntime: version $version in $target"
