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
for file in csrc/*.cpp; do
  "${CXX:-c++}" -std=c++17 -fsyntax-only -Wall -Wextra -Wno-unused-parameter -Wno-psabi -isystem "$include" \
    -isystem "$include/torch/csrc/api/include" "$@" "$file"
  echo "compiles: $file"
done
