#!/usr/bin/env bash
# Checks what third_party/libtorch.cmake makes of several libtorches, with folders that only look like one: that all is found
# inside LIBTORCH while another one can be found too, that a mixture of two is refused, and which C++ standard is set.
set -euo pipefail
source "$(dirname "$0")/common.sh"
[ $# = 0 ] || unknown "$1"
cd "$(dirname "$0")/.."
unset LIBTORCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# libtorch NAME [VERSION [CPLUSPLUS]]: makes one whose headers ask for that value of __cplusplus. Its two configurations
# look for each other and for libraries as PyTorch's do.
libtorch() {
  local dir=$work/$1 version=${2:-2.9.0} cplusplus=${3:-201703}
  mkdir -p "$dir"/{lib,share/cmake/{Torch,Caffe2},include/torch/csrc/api/include/torch}
  touch "$dir"/lib/{libtorch,libc10}.so
  echo "#if !defined(_MSC_VER) && __cplusplus < ${cplusplus}L" >"$dir/include/torch/csrc/api/include/torch/all.h"
  cat >"$dir/share/cmake/Caffe2/Caffe2Config.cmake" <<'CMAKE'
get_filename_component(prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
add_library(torch SHARED IMPORTED)
set_target_properties(torch PROPERTIES IMPORTED_LOCATION_RELEASE "${prefix}/lib/libtorch.so" IMPORTED_CONFIGURATIONS RELEASE)
CMAKE
  echo "set(PACKAGE_VERSION $version)" >"$dir/share/cmake/Torch/TorchConfigVersion.cmake"
  cat >"$dir/share/cmake/Torch/TorchConfig.cmake" <<'CMAKE'
if(DEFINED ENV{TORCH_INSTALL_PREFIX})
  set(TORCH_INSTALL_PREFIX $ENV{TORCH_INSTALL_PREFIX})
else()
  get_filename_component(TORCH_INSTALL_PREFIX "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
endif()
include(CMakeFindDependencyMacro)
find_dependency(Caffe2 PATHS ${CMAKE_CURRENT_LIST_DIR}/../Caffe2)
find_library(c10_LIBRARY c10 PATHS "${TORCH_INSTALL_PREFIX}/lib")
set(TORCH_LIBRARIES torch ${c10_LIBRARY})
set(TORCH_INCLUDE_DIRS ${TORCH_INSTALL_PREFIX}/include ${TORCH_INSTALL_PREFIX}/include/torch/csrc/api/include)
set_target_properties(torch PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${TORCH_INCLUDE_DIRS}")
CMAKE
}

cat >"$work/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.21)
project(check LANGUAGES NONE)
include($PWD/third_party/libtorch.cmake)
CMAKE

# want CODE TEXT DEFINITIONS...: CMake ends with that code, and its output holds TEXT, whatever the lines.
failed=0
want() {
  local code=$1 text=$2 got=0 output
  shift 2
  rm -rf "$work/build"
  output=$(cmake -G Ninja -S "$work" -B "$work/build" -DCMAKE_BUILD_TYPE=Release "$@" 2>&1) || got=$?
  output=$(tr -s '\n ' ' ' <<<"$output")
  if [ $got != "$code" ] || [[ $output != *"$text"* ]]; then
    printf 'libtorch_check: got code %s and %s\nwant code %s and %s\n' $got "$output" "$code" "$text" >&2
    failed=1
  fi
}
outside() { echo "$work/$1 lies outside of LIBTORCH=$work/$2"; }

libtorch other
libtorch ours 2.10.0
ours="libtorch 2.10.0, CUDA OFF, C++17: $work/ours/lib/libtorch.so"
want 0 "$ours" -DLIBTORCH="$work/ours"
# The other one is where CMake looks first.
CMAKE_PREFIX_PATH=$work/other want 0 "$ours" -DLIBTORCH="$work/ours"
want 0 "$ours" -DLIBTORCH="$work/ours" -DCMAKE_PREFIX_PATH="$work/other"
want 0 "$ours" -DLIBTORCH="$work/ours" -DCMAKE_SYSTEM_PREFIX_PATH="$work/other"
Torch_ROOT=$work/other Caffe2_ROOT=$work/other TORCH_INSTALL_PREFIX=$work/other want 0 "$ours" -DLIBTORCH="$work/ours"
CMAKE_PREFIX_PATH=$work/other want 0 "libtorch 2.9.0, CUDA OFF, C++17: $work/other/lib/libtorch.so"

ln -s ours "$work/link"
want 0 "C++17: $work/link/lib/libtorch.so" -DLIBTORCH="$work/link"

libtorch no_caffe2
rm -r "$work/no_caffe2/share/cmake/Caffe2"
CMAKE_PREFIX_PATH=$work/other want 1 "$(outside other/lib/libtorch.so no_caffe2)" -DLIBTORCH="$work/no_caffe2"
libtorch no_c10
rm "$work/no_c10/lib/libc10.so"
CMAKE_PREFIX_PATH=$work/other want 1 "$(outside other/lib/libc10.so no_c10)" -DLIBTORCH="$work/no_c10"
libtorch other_headers
echo "set(TORCH_INCLUDE_DIRS $work/other/include)" >>"$work/other_headers/share/cmake/Torch/TorchConfig.cmake"
want 1 "$(outside other/include other_headers)" -DLIBTORCH="$work/other_headers"
libtorch other_target
echo "set_target_properties(torch PROPERTIES INTERFACE_INCLUDE_DIRECTORIES $work/other/include)" \
  >>"$work/other_target/share/cmake/Torch/TorchConfig.cmake"
want 1 "$(outside other/include other_target)" -DLIBTORCH="$work/other_target"
libtorch other_library
echo "list(APPEND TORCH_LIBRARIES $work/other/lib/libtorch_cuda.so)" >>"$work/other_library/share/cmake/Torch/TorchConfig.cmake"
want 1 "$(outside other/lib/libtorch_cuda.so other_library)" -DLIBTORCH="$work/other_library"
libtorch ours_2 # its name begins with the other one's
echo "set(TORCH_INCLUDE_DIRS $work/ours_2/include)" >>"$work/ours/share/cmake/Torch/TorchConfig.cmake"
want 1 "$(outside ours_2/include ours)" -DLIBTORCH="$work/ours"
want 1 "LIBTORCH=$work holds no share/cmake/Torch/TorchConfig.cmake" -DLIBTORCH="$work"

libtorch cxx14 1.13.0 201402
want 0 ", C++17: " -DLIBTORCH="$work/cxx14"
libtorch cxx20 2.14.0 202002
want 0 ", C++20: " -DLIBTORCH="$work/cxx20"
libtorch cxx23 3.0.0 202302
want 0 ", C++23: " -DLIBTORCH="$work/cxx23"
libtorch old 1.12.1
want 1 "libtorch 1.12.1 is too old, 1.13 or newer is needed" -DLIBTORCH="$work/old"

[ $failed = 0 ] && echo "libtorch_check: LIBTORCH is found whole, and mixtures are refused"
