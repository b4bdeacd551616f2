#!/usr/bin/env bash
# Compiles csrc against the headers of another libtorch, without linking: does the shim fit that version?
#
#   scripts/compile_check.sh INCLUDE_DIR [more compiler arguments]
#   scripts/compile_check.sh root/usr/include                                   a libtorch-dev unpacked to root/
#   scripts/compile_check.sh root/usr/include -DRDPP_CUDA -isystem CUDA_INCLUDE   also the code for CUDA
set -euo pipefail
source "$(dirname "$0")/common.sh"
[ -d "${1:-}" ] || fail 2 "INCLUDE_DIR, the first argument, must be a folder; see --help"
include=$(realpath "$1")
shift
cd "$(dirname "$0")/.."
# As third_party/libtorch.cmake does: the headers say which standard they need at least.
standard=17
needed=$(sed -n 's/.*__cplusplus < \([0-9]*\)L.*/\1/p' "$include/torch/csrc/api/include/torch/all.h" | head -1)
if [ "${needed:-0}" -gt 202002 ]; then standard=23; elif [ "${needed:-0}" -gt 201703 ]; then standard=20; fi
for file in csrc/*.cpp; do
  "${CXX:-c++}" -std=c++$standard -fsyntax-only -Wall -Wextra -Wno-unused-parameter -Wno-psabi -isystem "$include" \
    -isystem "$include/torch/csrc/api/include" "$@" "$file"
  echo "compiles as C++$standard: $file"
done
