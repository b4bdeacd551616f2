#!/usr/bin/env bash
# Makes a Debian package of what scripts/install.sh has installed into a folder; scripts/package.sh deb calls it.
#
#   scripts/deb.sh FOLDER VERSION
#
# It depends on the packages of this Debian that the programs are linked with, libtorch among them.
set -euo pipefail
shopt -s inherit_errexit
source "$(dirname "$0")/common.sh"
[ $# = 2 ] || fail 2 "FOLDER and VERSION are needed; see --help"
folder=$(realpath "$1") version=$2
cd "$(dirname "$0")/.."
architecture=$(dpkg --print-architecture)
libraries=usr/lib/$(ldconfig -p | sed -n 's/.*libc\.so\.6 .* => \/lib\/\(.*\)\/libc\.so\.6$/\1/p' | head -n 1)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root" # mktemp's is for its user alone

# The programs find their libraries beside them, so they stay together, and the PATH has links to them.
mkdir -p "$root"/{DEBIAN,usr/bin,usr/include,usr/lib/rdpp,usr/lib/systemd/system,usr/share} "$root/$libraries"
cp -r "$folder"/{bin,lib} "$root/usr/lib/rdpp/"
for program in train infer; do ln -s "../lib/rdpp/bin/$program" "$root/usr/bin/$program"; done
cp "$folder"/include/* "$root/usr/include/"
cp -r "$folder/share/." "$root/usr/share/"
# Who links with librdpp.so opens it by the link, from where the loader does not look for what lies beside the file.
patchelf --set-rpath /usr/lib/rdpp/lib "$root/usr/lib/rdpp/lib/librdpp.so"
ln -s "$(realpath -m --relative-to="/$libraries" /usr/lib/rdpp/lib/librdpp.so)" "$root/$libraries/librdpp.so"
docs=$root/usr/share/doc/rdpp
sed '/^# .*For an installation in/,/^#   cp /d; s#/opt/rdpp/bin/infer#/usr/bin/infer#' "$docs/rdpp.service" >"$root/usr/lib/systemd/system/rdpp.service"
rm "$docs/rdpp.service"
mv "$docs/LICENSE" "$docs/copyright"
gzip -9n "$root"/usr/share/man/man1/*.1
find "$root/usr/lib/rdpp/lib" -name '*.so*' -exec chmod 644 {} +
find "$root" -type d -exec chmod 755 {} +

# owner PATH: the package that a library is from, whichever of /lib and /usr/lib dpkg knows it by.
owner() {
  local path found
  path=$(realpath "$1")
  for found in "$path" "${path#/usr}" "/usr$path"; do
    dpkg-query -S "$found" 2>/dev/null | cut -d: -f1 | head -n 1 | grep . && return
  done
  fail 1 "no package of this Debian has $1"
}
depends=$(for file in "$root"/usr/lib/rdpp/bin/* "$root"/usr/lib/rdpp/lib/*.so; do
  needed=$(objdump -p "$file" | awk '$1 == "NEEDED" { print $2 }')
  ldd "$file" | awk '$3 ~ /^\// { print $1, $3 }' | while read -r name path; do
    [ ! -e "$root/usr/lib/rdpp/lib/$name" ] || continue # ours
    if grep -qxF "$name" <<<"$needed"; then owner "$path"; fi
  done
done | sort -u | paste -sd, | sed 's/,/, /g')
# libtorch's matrix products run on a reference BLAS without it.
depends+=", libopenblas0-pthread"

cat >"$root/DEBIAN/control" <<CONTROL
Package: rdpp
Version: $version
Architecture: $architecture
Maintainer: rdpp <root@localhost>
Section: science
Priority: optional
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Depends: $depends
Description: find defects in photographs of parts
 Learns what good parts look like from photographs of good parts alone, and
 then finds and outlines defects, by RD++ and PatchCore: the programs train and
 infer, a library for C, and a systemd unit that serves the models in
 /var/lib/rdpp, which is not enabled.
CONTROL
cat >"$root/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
SCRIPT
cat >"$root/DEBIAN/prerm" <<'SCRIPT'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
  case "$1" in
  remove) systemctl disable --now rdpp.service || true ;;
  esac
fi
SCRIPT
cp "$root/DEBIAN/postinst" "$root/DEBIAN/postrm"
chmod 755 "$root"/DEBIAN/{postinst,prerm,postrm}

package=build/rdpp_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$package" >/dev/null
echo "package: $package, $(du -h "$package" | cut -f1), depends on $depends"
