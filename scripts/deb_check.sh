#!/usr/bin/env bash
# Installs a Debian package of ours where nothing else of ours is, runs what is in it, and removes it. Changes the system: it is
# for the roots that scripts/fresh.sh makes:
#
#   scripts/package.sh deb
#   scripts/fresh.sh bookworm --add build/rdpp_0.1.0_amd64.deb 'scripts/deb_check.sh rdpp_0.1.0_amd64.deb'
set -euo pipefail
source "$(dirname "$0")/common.sh"
[ $# = 1 ] || fail 2 "a package is needed; see --help"
[ -f "$1" ] || fail 2 "$1 is not there"
package=$(realpath "$1")
command -v train infer >/dev/null && fail 1 "train or infer is installed here already"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$package" >/dev/null
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

train version
infer version
train version --licenses | sed '1,/^$/d' | cmp - /usr/share/doc/rdpp/NOTICE
test -s /usr/share/doc/rdpp/copyright
for program in train infer; do
  gzip -dc "/usr/share/man/man1/$program.1.gz" | grep "^.TH ${program^^}" >/dev/null
  bash -n "/usr/share/bash-completion/completions/$program"
done
unit=/usr/lib/systemd/system/rdpp.service
program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit")
[ -x "$program" ] || fail 1 "$unit starts $program, which is not there"

train sample --out sample --category part --size 64 --train 2 --test-good 1 --test-defect 1 >log
train --data sample/part --out run --arch resnet18 --image-size 64 --epochs 1 --batch 2 --accumulate 1 >>log 2>&1 ||
  { cat log; exit 1; }
infer image --model run/part/model.safetensors sample/part/train/good/*.png || [ $? = 3 ]
apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null
gcc -std=c11 /usr/share/doc/rdpp/examples/detect.c -lrdpp -o detect
./detect run/part/model.safetensors sample/part/train/good/000.png

apt-get purge -y -qq rdpp >/dev/null
left=$(find /usr /etc /var/lib/rdpp \( -name '*rdpp*' -o -name train.1.gz \) -not -path "*/share/doc/rdpp-*" 2>/dev/null | grep -v '^/var/lib/dpkg' || true)
[ -z "$left" ] || fail 1 "the package has left $left"
echo "deb_check: $(basename "$package") installs, runs and goes"
