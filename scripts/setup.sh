#!/usr/bin/env bash
# Installs what building and testing rdpp needs on Debian 12 or 13. Quick where all is there.
#
#   scripts/setup.sh                        libtorch from Debian (CPU)
#   LIBTORCH=/path/to/libtorch scripts/setup.sh   another one: a libtorch or PyTorch installation, CPU or CUDA
#   scripts/setup.sh --all                  also what packaging and tests need: patchelf, Python, npm, a browser, mosquitto,
#                                           fish, zsh and groff (completions, manual pages), Mono (C#)
set -euo pipefail
source "$(dirname "$0")/common.sh"
case "${1:-}" in
"" | --all) ;;
*) unknown "$1" ;;
esac
[ $# -le 1 ] || unknown "$2"
cd "$(dirname "$0")/.."

packages=(g++ cmake ninja-build ccache libturbojpeg0-dev libdeflate-dev libtiff-dev libzstd-dev zlib1g-dev
  clang-format-19 ca-certificates)
if [ -n "${1:-}" ]; then
  packages+=(patchelf pkg-config python3 python3-numpy chromium mosquitto fish zsh groff-base mono-mcs)
  command -v npm >/dev/null || packages+=(npm) # fetches onnxruntime for the tests
fi
if [ -z "${LIBTORCH:-}" ]; then
  # Without OpenBLAS, libtorch's matrix products run on a reference BLAS.
  packages+=(libtorch-dev libgloo-dev libopenblas0-pthread)
elif [ ! -e "$LIBTORCH/share/cmake/Torch/TorchConfig.cmake" ]; then
  fail 1 "LIBTORCH=$LIBTORCH holds no share/cmake/Torch/TorchConfig.cmake; name the folder of a libtorch," \
    "or what python prints for: import torch; print(torch.__path__[0])"
fi

# From 1.21 on, Go itself fetches the version that go.mod names.
toolchain=go$(sed -n 's/^go //p' go.mod)
go_usable() { command -v go >/dev/null && (cd / && go version) | grep -qE 'go1\.(2[1-9]|[3-9][0-9])|go[2-9]'; }

missing=()
if ! command -v dpkg-query >/dev/null; then
  echo "setup: this is no Debian; install by your own means: ${packages[*]}, and Go 1.26" >&2
else
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  if ! command -v go >/dev/null; then missing+=(golang-go); fi
fi

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "setup: missing packages, and you are not root. Run:" >&2
    echo "  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  source scripts/env.sh # again, as Go may have come
fi

if ! go_usable; then
  if [ "$(id -u)" != 0 ] || [ -e /usr/local/go ] || ! command -v go >/dev/null; then
    fail 1 "Go 1.21 or newer is needed, found: $(go version 2>/dev/null || echo none)." \
      "Install one from https://go.dev/dl to /usr/local/go"
  fi
  # Debian 12's Go is too old to fetch another by itself, but can download it as the module that it is.
  echo "setup: installing $toolchain to /usr/local/go"
  module=golang.org/toolchain@v0.0.1-$toolchain.linux-$(dpkg --print-architecture)
  dir=$(cd / && GO111MODULE=on go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  mkdir -p /usr/local/bin
  cp -r "$dir" /usr/local/go
  chmod -R u+w /usr/local/go
  chmod +x /usr/local/go/bin/* /usr/local/go/pkg/tool/*/*  # a module carries no file modes
  ln -sf /usr/local/go/bin/go /usr/local/go/bin/gofmt /usr/local/bin/  # before /usr/bin in PATH
  hash -r
  source scripts/env.sh
fi
go mod download
echo "setup: all there ($(go env GOVERSION), libtorch ${LIBTORCH:-of the system})"
