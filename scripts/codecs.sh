#!/usr/bin/env bash
# Copies the codecs that librdpp.so is linked with, and what these need beyond the C and C++ libraries, into a folder, where
# they find each other.
#
#   scripts/codecs.sh LIBRDPP FOLDER [DOCS]    and the copyright of their Debian packages into the folder DOCS
#
# bin/train and bin/infer have most of them inside. Needs patchelf.
set -euo pipefail
source "$(dirname "$0")/common.sh"
[ $# = 2 ] || [ $# = 3 ] || fail 2 "LIBRDPP and FOLDER are needed; see --help"
[ -e "$1" ] || fail 2 "$1 is not there; see --help"
librdpp=$1 folder=$2 docs=${3:-}

path_of() { ldd "$1" | awk -v name="$2" '$1 == name { print $3 }'; }

mkdir -p "$folder"
for codec in libturbojpeg.so.0 libdeflate.so.0 libtiff.so.6; do
  path=$(path_of "$librdpp" "$codec")
  [ -n "$path" ] || fail 1 "$librdpp is not linked with $codec"
  { echo "$codec $path"; ldd "$path" | awk '$3 ~ /^\// { print $1, $3 }'; }
done | sort -u | grep -vE '^(libc|libm|libstdc\+\+|libgcc_s|libdl|libpthread|librt)\.so' | while read -r name path; do
  cp -L "$path" "$folder/$name"
  patchelf --set-rpath '$ORIGIN' "$folder/$name"
  [ -n "$docs" ] || continue
  # By name alone: dpkg may call the folder /lib.
  package=$(dpkg-query -S "*/$(basename "$(realpath "$path")")" 2>/dev/null | head -1 | cut -d: -f1) || true
  copyright=/usr/share/doc/${package:-none}/copyright
  if [ -e "$copyright" ]; then cp "$copyright" "$docs/${name%%.so*}.copyright"; fi
done
