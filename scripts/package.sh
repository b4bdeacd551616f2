#!/usr/bin/env bash
# Makes a tarball that runs, from any folder, on a machine of the same system that has libtorch and nothing else of ours,
# or a Debian package.
#
#   scripts/package.sh                   build/rdpp-VERSION-linux-ARCH.tar.gz, for the system's libtorch
#   LIBTORCH=DIR scripts/package.sh      for another libtorch
#   scripts/package.sh deb               build/rdpp_VERSION_ARCH.deb, for this release of Debian and its libtorch:
#                                        train and infer in the PATH, librdpp.so, rdpp.h, manual pages, completions, the unit
set -euo pipefail
source "$(dirname "$0")/common.sh"
case "${1:-}" in
"" | deb) ;;
*) unknown "$1" ;;
esac
[ $# -le 1 ] || unknown "$2"
if [ "${1:-}" = deb ]; then
  [ -z "${LIBTORCH:-}" ] || fail 2 "a Debian package is for the system's libtorch; without LIBTORCH"
  command -v dpkg-deb >/dev/null || fail 1 "dpkg-deb is missing; this is no Debian"
fi
cd "$(dirname "$0")/.."

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
scripts/install.sh "$stage/rdpp"
read -r _ version _ libtorch < <("$stage/rdpp/bin/infer" --version)
if [ "${1:-}" = deb ]; then
  scripts/deb.sh "$stage/rdpp" "${version%,}"
  exit
fi
name=rdpp-${version%,}-linux-$(uname -m)
mv "$stage/rdpp" "$stage/$name"

# What was built against may lie elsewhere on the other machine.
for library in librdpptorch.so libcgotorch.so; do
  patchelf --set-rpath '$ORIGIN:$ORIGIN/../libtorch/lib' "$stage/$name/lib/$library"
done

# librdpp.so alone needs the codecs' libraries. In a folder of their own they are nobody else's.
scripts/codecs.sh "$stage/$name/lib/librdpp.so" "$stage/$name/lib/rdpp" "$stage/$name/share/doc/rdpp"

cat >"$stage/$name/README" <<README
rdpp ${version%,}, built against libtorch $libtorch for $(. /etc/os-release && echo "$PRETTY_NAME").

bin/infer and bin/train run from here. They need libtorch $libtorch: installed in the system (Debian: libtorch${libtorch%.*}
and libopenblas0-pthread), or unpacked or linked as the folder "libtorch" beside this file, or named:
LD_LIBRARY_PATH=/path/to/libtorch/lib. lib/librdpp.so with include/rdpp.h is the library for other programs,
lib/pkgconfig/rdpp.pc its pkg-config file, lib/rdpp.py its binding for Python and share/doc/rdpp/Rdpp.cs the one for C#;
share/doc/rdpp holds examples, a systemd unit, LICENSE and NOTICE, and the copyright of the libraries in lib/rdpp.
"bin/infer version --licenses" prints NOTICE too.
README
tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner -czf "build/$name.tar.gz" "$name"
echo "package: build/$name.tar.gz, $(du -h "build/$name.tar.gz" | cut -f1)"
