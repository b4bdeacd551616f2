# libcgotorch.so: the C++ half of github.com/wangkuiyi/gotorch, compiled from the Go module cache, but for one function.
# -DGOTORCH=DIR names its sources where there is no Go.
set(GOTORCH "" CACHE PATH "gotorch's sources; empty: asked of `go list`")
set(gotorch_dir ${GOTORCH})
if(NOT gotorch_dir)
  execute_process(COMMAND go mod download github.com/wangkuiyi/gotorch WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  execute_process(COMMAND go list -m -f "{{.Dir}}" github.com/wangkuiyi/gotorch
                  WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} OUTPUT_VARIABLE gotorch_dir OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()
if(NOT EXISTS ${gotorch_dir}/cgotorch/cgotorch.h)
  message(FATAL_ERROR "gotorch's sources are not there; `go mod download` must be able to reach a module proxy, "
                      "or name a copy: -DGOTORCH=DIR")
endif()

file(GLOB gotorch_sources ${gotorch_dir}/cgotorch/*.cc)
add_library(cgotorch SHARED ${gotorch_sources} third_party/threads.cc)
# Its own function by this name is put aside for that of threads.cc.
target_compile_definitions(cgotorch PRIVATE SetNumThreads=gotorch_SetNumThreads)
set_source_files_properties(third_party/threads.cc PROPERTIES COMPILE_OPTIONS -USetNumThreads SKIP_UNITY_BUILD_INCLUSION ON)
target_include_directories(cgotorch PRIVATE ${gotorch_dir})
target_link_libraries(cgotorch PRIVATE libtorch)
# One translation unit: its nine files are small, libtorch's headers are not.
set_target_properties(cgotorch PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
