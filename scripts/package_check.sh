#!/usr/bin/env bash
# Makes the tarball, unpacks it into a folder of another name, and runs it there where neither the build tree nor
# /usr/local/lib nor Go's modules can be seen. Needs to be root, or allowed to make user namespaces.
set -euo pipefail
source "$(dirname "$0")/common.sh"
[ $# = 0 ] || unknown "$1"
cd "$(dirname "$0")/.."
if ! unshare -rm mount -t tmpfs none /mnt 2>/dev/null; then
  echo "package_check: skipped, no mount namespaces here"
  exit 0
fi
scripts/package.sh
dir=$(mktemp -d /var/tmp/rdpp.XXXXXX)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/a folder"
tar -C "$dir/a folder" --strip-components=1 -xzf "$(ls -t build/rdpp-*.tar.gz | head -1)"
bin/train sample --out "$dir/sample" --category part --size 64 --train 2 --test-good 1 --test-defect 1 >"$dir/log"
export DIR="$dir" HIDDEN="$PWD /usr/local/lib $(source build/env.sh && go env GOMODCACHE)"
cd /
unshare -rm bash -euc '
  for folder in $HIDDEN; do mount -t tmpfs none "$folder"; done
  cd "$DIR/a folder"
  bin/infer --version
  for program in infer train; do bin/$program version --licenses | sed "1,/^\$/d" | cmp - share/doc/rdpp/NOTICE; done
  test -s share/doc/rdpp/LICENSE
  bin/train --data "$DIR/sample/part" --out "$DIR/run" --arch resnet18 --image-size 64 --epochs 1 --batch 2 --accumulate 1 >>"$DIR/log" 2>&1 ||
    { cat "$DIR/log"; exit 1; }
  image=$(ls "$DIR"/sample/part/train/good/*.png | head -1)
  model=$(ls "$DIR"/run/*/model.safetensors)
  bin/infer image --model "$model" "$image" || [ $? = 3 ]
  cc -std=c11 -I include share/doc/rdpp/examples/detect.c -L lib -lrdpp -Wl,-rpath,"$PWD/lib" -o "$DIR/detect"
  "$DIR/detect" "$model" "$image"
  if command -v pkg-config >/dev/null; then
    test "$(PKG_CONFIG_PATH=lib/pkgconfig pkg-config --modversion rdpp)" = "$(bin/infer --version | sed -n "1s/rdpp \([^,]*\).*/\1/p")"
  fi
  if command -v python3 >/dev/null; then PYTHONPATH=lib python3 share/doc/rdpp/examples/detect.py "$model" "$image"; fi
'
echo "package_check: the tarball runs by itself"
